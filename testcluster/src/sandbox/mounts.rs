//! A node's file system: the machine's root to read, the node's own everything else, nothing of the machine to write.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, mknod},
};

use super::SandboxConfig;
use crate::{
    cgroup::Hierarchies,
    component::config::NODE_BINARIES,
    error::{Error, Result},
};

/// Device files of a node; no disk of the machine is among them.
const DEVICES: [&str; 8] = ["null", "zero", "full", "random", "urandom", "tty", "kmsg", "fuse"];

/// Settings that a kubelet demands, shown to it without changing the machine's.
const SHOWN_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Folders that may be file systems of their own, which an overlay of `/` does not show.
const SEPARATE: [&str; 6] = ["usr", "bin", "sbin", "lib", "lib64", "nix"];

/// Makes the node's root and moves into it; the machine's root is gone afterwards.
pub(super) fn enter_root(config: &SandboxConfig) -> Result<()> {
    let hierarchies = Hierarchies::detect()?;
    let scratch = config.folder.join("root");
    make(&scratch)?;
    attach("tmpfs", &scratch, "tmpfs", MsFlags::empty(), "mode=755")?;
    let root = scratch.join("merged");
    overlay(config, &scratch, &root)?;
    bind(&config.folder.join("etc"), &root.join("etc"))?;
    bind(&config.folder.join("var"), &root.join("var"))?;
    separate_file_systems(&root)?;
    binaries(config, &root)?;
    kernel(&scratch, &root)?;
    control_groups(&hierarchies, &root.join("sys/fs/cgroup"))?;
    devices(&root.join("dev"))?;
    attach("tmpfs", &root.join("run"), "tmpfs", MsFlags::empty(), "mode=755")?;
    make(&root.join("run/lock"))?;
    attach("tmpfs", &root.join("tmp"), "tmpfs", MsFlags::empty(), "mode=1777")?;
    pivot(&root)
}

/// The machine's root below a layer in memory; what is hidden is hidden in that layer, where no unmount uncovers it.
fn overlay(config: &SandboxConfig, scratch: &Path, root: &Path) -> Result<()> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for folder in [&upper, &work, root] {
        make(folder)?;
    }
    let own = [Path::new("/etc"), Path::new("/var")];
    let hidden: Vec<&Path> = config.hidden.iter().map(PathBuf::as_path).chain(own).collect();
    let hidden: Vec<PathBuf> = hidden
        .iter()
        .filter(|path| !hidden.iter().any(|other| other != *path && path.starts_with(other)))
        .filter(|path| path.is_dir())
        .filter_map(|path| path.strip_prefix("/").ok().map(Path::to_owned))
        .collect();
    for path in &hidden {
        let whiteout = upper.join(path);
        if let Some(above) = whiteout.parent() {
            make(above)?;
        }
        mknod(&whiteout, SFlag::S_IFCHR, Mode::empty(), 0).map_err(Error::file("hide", &whiteout))?;
    }
    let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
    attach("overlay", root, "overlay", MsFlags::empty(), &layers)?;
    for path in &hidden {
        let mode = if path == Path::new("root") { 0o700 } else { 0o755 };
        let folder = root.join(path);
        fs::DirBuilder::new().mode(mode).create(&folder).map_err(Error::file("make", &folder))?;
    }
    Ok(())
}

fn separate_file_systems(root: &Path) -> Result<()> {
    let path = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(path).map_err(Error::file("read", path))?;
    for name in SEPARATE {
        let folder = Path::new("/").join(name);
        let is_mount = mounts.lines().any(|line| line.split(' ').nth(4) == folder.to_str());
        if is_mount && !folder.is_symlink() {
            bind(&folder, &root.join(name))?;
            read_only(&root.join(name))?;
        }
    }
    Ok(())
}

fn binaries(config: &SandboxConfig, root: &Path) -> Result<()> {
    let binaries = &config.binaries;
    let folders =
        [("kubernetes", &binaries.kubernetes), ("containerd", &binaries.containerd), ("cni", &binaries.cni)];
    for (name, folder) in folders {
        let target = root.join(NODE_BINARIES.trim_start_matches('/')).join(name);
        make(&target)?;
        bind(folder, &target)?;
        read_only(&target)?;
    }
    Ok(())
}

/// `/proc` and `/sys`, of which only the network's settings (they are the node's own) can be written.
fn kernel(scratch: &Path, root: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = root.join("proc");
    attach("proc", &proc, "proc", flags, "")?;
    attach("sysfs", &root.join("sys"), "sysfs", flags | MsFlags::MS_RDONLY, "")?;
    for name in ["sys", "sysrq-trigger"] {
        let path = proc.join(name);
        if path.exists() {
            bind(&path, &path)?;
            read_only(&path)?;
        }
    }
    let network = proc.join("sys/net");
    bind(&network, &network)?;
    attach("", &network, "", MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, "")?;
    for (name, value) in SHOWN_SETTINGS {
        let shown = scratch.join(name.replace('/', "-"));
        fs::write(&shown, format!("{value}\n")).map_err(Error::file("write", &shown))?;
        bind(&shown, &proc.join("sys").join(name))?;
    }
    Ok(())
}

/// The control groups, seen from the node's own as the top.
fn control_groups(hierarchies: &Hierarchies, target: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let trees = match hierarchies {
        Hierarchies::V2(_) => return attach("cgroup2", target, "cgroup2", flags, ""),
        Hierarchies::V1(trees) => trees,
    };
    attach("tmpfs", target, "tmpfs", flags, "mode=755")?;
    for (options, folder) in trees {
        let name = folder.file_name().unwrap_or_default();
        let tree = target.join(name);
        make(&tree)?;
        let data = if options.starts_with("name=") { format!("none,{options}") } else { options.clone() };
        attach("cgroup", &tree, "cgroup", flags, &data)?;
        for controller in options.split(',').filter(|word| !word.contains('=')) {
            let link = target.join(controller);
            if !link.exists() {
                symlink(name, &link).map_err(Error::file("make", &link))?;
            }
        }
    }
    Ok(())
}

fn devices(dev: &Path) -> Result<()> {
    attach("tmpfs", dev, "tmpfs", MsFlags::MS_NOSUID, "mode=755")?;
    for name in DEVICES {
        let (device, target) = (Path::new("/dev").join(name), dev.join(name));
        if device.exists() {
            fs::write(&target, "").map_err(Error::file("make", &target))?;
            bind(&device, &target)?;
        }
    }
    for name in ["pts", "shm", "mqueue"] {
        make(&dev.join(name))?;
    }
    let terminals = "newinstance,ptmxmode=0666,mode=620,gid=5";
    attach("devpts", &dev.join("pts"), "devpts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, terminals)?;
    attach("tmpfs", &dev.join("shm"), "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")?;
    attach("mqueue", &dev.join("mqueue"), "mqueue", MsFlags::empty(), "")?;
    let links = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        symlink(target, dev.join(name)).map_err(Error::file("make", dev.join(name)))?;
    }
    Ok(())
}

fn pivot(root: &Path) -> Result<()> {
    let old = root.join("old");
    make(&old)?;
    nix::unistd::chdir(root).map_err(Error::file("enter", root))?;
    nix::unistd::pivot_root(".", "old").map_err(Error::file("move the root to", root))?;
    nix::unistd::chdir("/").map_err(Error::file("enter", "/"))?;
    umount2("/old", MntFlags::MNT_DETACH).map_err(Error::file("unmount", "/old"))?;
    fs::remove_dir("/old").map_err(Error::file("remove", "/old"))?;
    // A kubelet needs mounts made in one place to show in others.
    attach("", Path::new("/"), "", MsFlags::MS_SHARED | MsFlags::MS_REC, "")
}

fn make(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(Error::file("make", folder))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(Error::file("protect", folder))
}

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(Error::file("mount", target))
}

fn read_only(target: &Path) -> Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    attach("", target, "", flags, "")
}

fn attach(source: &str, target: &Path, kind: &str, flags: MsFlags, data: &str) -> Result<()> {
    mount(Some(source), target, Some(kind), flags, Some(data)).map_err(Error::file("mount", target))
}
