//! The folders of an execution: the script's working folder, and the private place that the script is executed from.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Alone in its folder: Python puts the script's folder on its module path.
const SCRIPT_DIR: &str = "script.d";
const SCRIPT_NAME: &str = "script";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot make the working folder {path:?}: {source}")]
    MakeWorkDir { path: PathBuf, source: io::Error },
    #[error("cannot write the script to {path:?}: {source}")]
    WriteScript { path: PathBuf, source: io::Error },
}

/// Makes the working folder if it is not there.
pub(crate) fn ensure_work_dir(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(source) => Err(Error::MakeWorkDir { path: path.to_owned(), source }),
    }
}

/// Writes the verified bytes to a fresh file and returns its path. Done before every execution, because the one before
/// may have changed its own file.
pub(crate) fn write_script(state_dir: &Path, script: &[u8]) -> Result<PathBuf, Error> {
    let folder = state_dir.join(SCRIPT_DIR);
    let path = folder.join(OsStr::new(SCRIPT_NAME));
    let written = remove_whatever(&folder)
        .and_then(|()| DirBuilder::new().mode(0o700).create(&folder))
        .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o500).open(&path))
        .and_then(|mut file| file.write_all(script));
    match written {
        Ok(()) => Ok(path),
        Err(source) => Err(Error::WriteScript { path, source }),
    }
}

/// Removes a folder, a file, or a link to either; its absence is fine.
pub(crate) fn remove_whatever(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
