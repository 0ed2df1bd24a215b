//! A node's own `/etc` and `/var`: on disk, made once, kept until the cluster goes.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink},
    path::Path,
};

use crate::{
    digest::sha256,
    error::{Error, Result},
    folder,
};

/// Folders of `/etc` that hold keys, or set up things that a node sets up itself.
const NOT_COPIED: [&str; 24] = [
    "ssh",
    "kubernetes",
    "containerd",
    "cni",
    "docker",
    "containers",
    "crio",
    "rancher",
    "k0s",
    "microk8s",
    "letsencrypt",
    "wireguard",
    "openvpn",
    "ipsec.d",
    "NetworkManager",
    "netplan",
    "systemd",
    "sudoers.d",
    "google-cloud-sdk",
    "boto.cfg",
    "aws",
    "azure",
    "waagent",
    "cloud",
];

/// Folders of a fresh `/var`.
const VAR: [(&str, u32); 12] = [
    ("cache", 0o755),
    ("lib", 0o755),
    ("lib/containerd", 0o711),
    ("lib/kubelet", 0o750),
    ("lib/misc", 0o755),
    ("local", 0o755),
    ("log", 0o755),
    ("log/containers", 0o755),
    ("log/pods", 0o755),
    ("opt", 0o755),
    ("spool", 0o755),
    ("tmp", 0o1777),
];

/// Makes the node's `/etc` and `/var` in `folder`; what is there is kept.
pub(super) fn ensure(folder: &Path, node: &str) -> Result<()> {
    let (etc, unfinished) = (folder.join("etc"), folder.join("etc.new"));
    if !etc.is_dir() {
        folder::remove(&unfinished)?;
        copy_etc(Path::new("/etc"), &unfinished)?;
        identify(&unfinished, node)?;
        fs::rename(&unfinished, &etc).map_err(Error::file("rename", &unfinished))?;
    }
    let var = folder.join("var");
    folder::make(&var, 0o755)?;
    for (name, mode) in VAR {
        folder::make(&var.join(name), mode)?;
    }
    for (name, target) in [("run", "/run"), ("lock", "/run/lock")] {
        let link = var.join(name);
        if !link.is_symlink() {
            symlink(target, &link).map_err(Error::file("make", &link))?;
        }
    }
    Ok(())
}

/// Copies what anyone on the machine may read: what only root reads are keys and passwords.
fn copy_etc(from: &Path, to: &Path) -> Result<()> {
    copy_folder(from, to)?;
    for name in NOT_COPIED {
        let source = from.join(name);
        let target = to.join(name);
        folder::remove(&target)?;
        if source.is_dir() {
            folder::make(&target, 0o755)?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let metadata = fs::metadata(from).map_err(Error::file("read", from))?;
    fs::create_dir(to).map_err(Error::file("make", to))?;
    if metadata.mode() & 0o005 == 0o005 {
        for entry in fs::read_dir(from).map_err(Error::file("read", from))? {
            let entry = entry.map_err(Error::file("read", from))?;
            copy_entry(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    fs::set_permissions(to, metadata.permissions()).map_err(Error::file("protect", to))?;
    lchown(to, Some(metadata.uid()), Some(metadata.gid())).map_err(Error::file("give away", to))
}

fn copy_entry(from: &Path, to: &Path) -> Result<()> {
    // Someone may be changing the machine's /etc: what has gone meanwhile is not copied.
    let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
    if metadata.is_dir() {
        return copy_folder(from, to);
    }
    if metadata.is_symlink() {
        let Ok(target) = fs::read_link(from) else { return Ok(()) };
        return symlink(target, to).map_err(Error::file("make", to));
    }
    if metadata.is_file() && metadata.mode() & 0o004 != 0 {
        if fs::copy(from, to).is_err() && !from.exists() {
            return folder::remove(to);
        }
        fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777))
            .map_err(Error::file("protect", to))?;
        lchown(to, Some(metadata.uid()), Some(metadata.gid())).map_err(Error::file("give away", to))?;
    }
    Ok(())
}

/// Makes a node's `/etc` tell whose it is.
fn identify(etc: &Path, node: &str) -> Result<()> {
    let mut id = sha256(node);
    id.truncate(32);
    let hosts = format!("127.0.0.1 localhost\n127.0.1.1 {node}\n::1 localhost ip6-localhost ip6-loopback\n");
    for (file, content) in
        [("hostname", format!("{node}\n")), ("machine-id", format!("{id}\n")), ("hosts", hosts)]
    {
        let path = etc.join(file);
        folder::remove(&path)?;
        folder::write(&path, content, 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_root_may_read_is_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("ssh")).unwrap();
        fs::create_dir_all(from.join("ssl/private")).unwrap();
        for (file, mode) in
            [("passwd", 0o644), ("shadow", 0o640), ("ssh/key.pub", 0o644), ("ssl/private/k", 0o644)]
        {
            fs::write(from.join(file), "x").unwrap();
            fs::set_permissions(from.join(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(from.join("ssl/private"), fs::Permissions::from_mode(0o710)).unwrap();
        symlink("passwd", from.join("link")).unwrap();
        copy_etc(&from, &to).unwrap();
        assert!(to.join("passwd").is_file() && to.join("link").is_symlink());
        assert!(!to.join("shadow").exists());
        assert!(to.join("ssh").is_dir() && !to.join("ssh/key.pub").exists());
        assert!(to.join("ssl/private").is_dir() && !to.join("ssl/private/k").exists());
    }

    #[test]
    fn a_node_knows_its_name() {
        let folder = tempfile::tempdir().unwrap();
        identify(folder.path(), "dev-node1").unwrap();
        let read = |file| fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(read("hostname"), "dev-node1\n");
        assert_eq!(read("machine-id").trim().len(), 32);
    }
}
