//! Where a cluster keeps its things on this machine, and the few file operations that need care.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Folder of all clusters of this machine.
pub const STATE_ROOT: &str = "/var/lib/scriptrunner-testcluster";

/// The folder of one cluster: on disk, gone after `down`.
#[derive(Clone, Debug)]
pub struct ClusterFolder(PathBuf);

impl ClusterFolder {
    /// The folder of the cluster `name`, there or not.
    pub fn of(name: &str) -> Self {
        Self(Path::new(STATE_ROOT).join(name))
    }

    #[cfg(test)]
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What `up` recorded.
    pub fn state(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// Certificates, keys and the components' kubeconfigs.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// etcd's data.
    pub fn etcd(&self) -> PathBuf {
        self.0.join("etcd")
    }

    /// Configuration files of the control plane.
    pub fn config(&self) -> PathBuf {
        self.0.join("config")
    }

    /// Logs of the control plane and of the nodes' sandboxes.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// Image archives that every node has.
    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// This program as it was at `up`: a rebuild must not change a running cluster.
    pub fn program(&self) -> PathBuf {
        self.0.join("testcluster")
    }

    /// The folder of one node.
    pub fn node(&self, node: &str) -> PathBuf {
        self.0.join("nodes").join(node)
    }
}

/// Makes a folder and those above it, readable for root only below the first new one.
pub(crate) fn make(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("make", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("protect", path))
}

/// Writes a file so that a crash leaves the old or the new content, never half of it.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    // Remove first: an old file with a wider mode would keep that mode.
    remove(&new)?;
    fs::write(&new, content).map_err(Error::file("write", &new))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).map_err(Error::file("protect", &new))?;
    fs::rename(&new, path).map_err(Error::file("write", path))
}

/// Removes a file or a whole folder; that it is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes `new` the same file as `old`, by a hard link where possible.
pub(crate) fn link_or_copy(old: &Path, new: &Path) -> Result<()> {
    remove(new)?;
    if fs::hard_link(old, new).is_err() {
        fs::copy(old, new).map_err(Error::file("copy", old))?;
    }
    Ok(())
}

/// The last lines of a log, on one line, for error texts.
pub(crate) fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    let tail: String = lines.into_iter().rev().collect::<Vec<_>>().join(" | ");
    let from = tail.char_indices().rev().nth(600).map_or(0, |(index, _)| index);
    tail[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_replaces_content_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, "one", 0o644).unwrap();
        write(&path, "two", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn tail_keeps_the_end_of_a_long_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, format!("first\n{}\nlast", "x".repeat(2000))).unwrap();
        let tail = tail(&path);
        assert!(tail.ends_with("| last") && tail.len() < 700, "{tail}");
    }

    #[test]
    fn removing_what_is_not_there_is_fine() {
        remove(Path::new("/nonexistent/scriptrunner")).unwrap();
    }
}
