//! Control groups: which processes belong to a cluster, and what they may use. Version 1 and 2.
//!
//! **Invariant:** every process of a cluster is started inside of the cluster's group. So membership, not a recorded
//! pid, says what may be killed: a pid that was used again by a stranger is never in the group.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::{Error, Result};

/// The group above those of all clusters.
const ROOT: &str = "scriptrunner-testcluster";

/// Where the kernel's control groups are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// One tree per set of controllers: (mount options, folder).
    V1(Vec<(String, PathBuf)>),
    /// One tree for all.
    V2(PathBuf),
}

impl Hierarchies {
    /// Finds them among this process's mounts.
    pub(crate) fn detect() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(Error::file("read", "/proc/self/mountinfo"))?;
        Self::parse(&mounts).ok_or_else(|| Error::Machine {
            what: "no control groups below \"/sys/fs/cgroup\": mount them (systemd does; on other systems install the package cgroupfs-mount)".into(),
        })
    }

    /// Reads mountinfo; version 1 counts where it has the pids controller, whatever else is mounted beside it.
    fn parse(mountinfo: &str) -> Option<Self> {
        let mut v1 = Vec::new();
        let mut v2 = None;
        for line in mountinfo.lines() {
            let (left, right) = line.split_once(" - ")?;
            let folder = left.split(' ').nth(4)?;
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) => v2 = v2.or(Some(PathBuf::from(folder))),
                (Some("cgroup"), Some(options)) => {
                    let controllers: Vec<&str> = options
                        .split(',')
                        .filter(|word| {
                            !matches!(*word, "rw" | "ro" | "xattr" | "noprefix" | "clone_children")
                        })
                        .filter(|word| !word.starts_with("release_agent="))
                        .collect();
                    let known = v1.iter().any(|(options, _)| *options == controllers.join(","));
                    if !known {
                        v1.push((controllers.join(","), PathBuf::from(folder)));
                    }
                }
                _ => {}
            }
        }
        if v1.iter().any(|(options, _)| options.split(',').any(|word| word == "pids")) {
            return Some(Self::V1(v1));
        }
        v2.map(Self::V2)
    }

    /// The folder of a group in the one tree of version 2.
    pub(crate) fn v2_folder(&self, group: &Path) -> Option<PathBuf> {
        match self {
            Self::V1(_) => None,
            Self::V2(folder) => Some(folder.join(group)),
        }
    }

    fn folders(&self) -> Vec<&Path> {
        match self {
            Self::V1(trees) => trees.iter().map(|(_, folder)| folder.as_path()).collect(),
            Self::V2(folder) => vec![folder],
        }
    }

    /// The tree with a controller.
    fn tree(&self, controller: &str) -> Option<&Path> {
        match self {
            Self::V1(trees) => trees
                .iter()
                .find(|(options, _)| options.split(',').any(|word| word == controller))
                .map(|(_, folder)| folder.as_path()),
            Self::V2(folder) => Some(folder),
        }
    }
}

/// A control group, there or not.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    hierarchies: Hierarchies,
    path: PathBuf,
}

impl Group {
    /// The group of a cluster.
    pub(crate) fn cluster(name: &str) -> Result<Self> {
        Ok(Self { hierarchies: Hierarchies::detect()?, path: Path::new(ROOT).join(name) })
    }

    /// A group inside of this one.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self { hierarchies: self.hierarchies.clone(), path: self.path.join(name) }
    }

    /// The path below the trees' roots.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A group by the path that [`Self::path`] gave.
    pub(crate) fn by_path(path: &Path) -> Result<Self> {
        Ok(Self { hierarchies: Hierarchies::detect()?, path: path.to_owned() })
    }

    /// Makes the group in every tree, with the controllers of those above it.
    pub(crate) fn create(&self) -> Result<()> {
        self.make()?;
        if let Hierarchies::V2(folder) = &self.hierarchies {
            let mut at = folder.clone();
            for part in &self.path {
                pass_controllers_on(&at);
                at.push(part);
            }
        }
        Ok(())
    }

    /// Makes the group in every tree, usable for processes; on version 2 without controllers.
    pub(crate) fn make(&self) -> Result<()> {
        for folder in self.hierarchies.folders() {
            let mut at = folder.to_owned();
            for part in &self.path {
                let above = at.clone();
                at.push(part);
                fs::create_dir_all(&at).map_err(Error::file("make", &at))?;
                // A new cpuset of version 1 is empty, and an empty one admits no process.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if matches!(self.hierarchies, Hierarchies::V1(_)) && at.join(file).exists() {
                        copy_setting(&above.join(file), &at.join(file))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Limits memory and number of processes of everything inside.
    pub(crate) fn limit(&self, memory_mib: u64, processes: u32) -> Result<()> {
        let memory = match self.hierarchies {
            Hierarchies::V1(_) => "memory.limit_in_bytes",
            Hierarchies::V2(_) => "memory.max",
        };
        self.set("memory", memory, &(memory_mib * 1024 * 1024).to_string())?;
        self.set("pids", "pids.max", &processes.to_string())
    }

    /// Denies reading and writing of block devices to everything inside.
    ///
    /// Version 2 has no file for this; there the sandbox's first process does it. Making a device file stays allowed: container runtimes insist on being able to grant it, and without reading and
    /// writing it is of no use.
    pub(crate) fn deny_block_devices(&self) -> Result<()> {
        match self.hierarchies {
            Hierarchies::V1(_) => self.set("devices", "devices.deny", "b *:* rw"),
            Hierarchies::V2(_) => Ok(()),
        }
    }

    fn set(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        let tree = self.hierarchies.tree(controller).ok_or_else(|| Error::Machine {
            what: format!("the kernel lacks the control group controller {controller:?}: boot with `cgroup_enable={controller}`"),
        })?;
        let file = tree.join(&self.path).join(file);
        fs::write(&file, value).map_err(Error::file("write", &file))
    }

    /// Moves a process into the group.
    pub(crate) fn admit(&self, pid: u32) -> Result<()> {
        for folder in self.hierarchies.folders() {
            let file = folder.join(&self.path).join("cgroup.procs");
            fs::write(&file, pid.to_string()).map_err(Error::file("write", &file))?;
        }
        Ok(())
    }

    /// All processes inside, those of inner groups included.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        if let Some(tree) = self.hierarchies.tree("pids") {
            collect(&tree.join(&self.path), &mut found);
        }
        found
    }

    /// The names of the groups directly inside.
    pub(crate) fn children(&self) -> Vec<String> {
        let Some(tree) = self.hierarchies.tree("pids") else { return Vec::new() };
        let Ok(entries) = fs::read_dir(tree.join(&self.path)) else { return Vec::new() };
        let folders = entries.flatten().filter(|entry| entry.path().is_dir());
        folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Stops or continues everything inside.
    pub(crate) fn freeze(&self, freeze: bool) -> Result<()> {
        match (&self.hierarchies, freeze) {
            (Hierarchies::V1(_), true) => self.set("freezer", "freezer.state", "FROZEN"),
            (Hierarchies::V1(_), false) => self.set("freezer", "freezer.state", "THAWED"),
            (Hierarchies::V2(_), true) => self.set("freezer", "cgroup.freeze", "1"),
            (Hierarchies::V2(_), false) => self.set("freezer", "cgroup.freeze", "0"),
        }
    }

    /// Whether everything inside is stopped.
    pub(crate) fn is_frozen(&self) -> bool {
        let (file, frozen) = match self.hierarchies {
            Hierarchies::V1(_) => ("freezer.state", "FROZEN"),
            Hierarchies::V2(_) => ("cgroup.freeze", "1"),
        };
        let Some(tree) = self.hierarchies.tree("freezer") else { return false };
        fs::read_to_string(tree.join(&self.path).join(file)).is_ok_and(|state| state.trim() == frozen)
    }

    /// Kills everything inside and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return Ok(());
            }
            for pid in &processes {
                self.kill_member(*pid);
            }
            if Instant::now() > deadline {
                return Err(Error::Machine {
                    what: format!(
                        "processes {processes:?} do not end when killed: see `cat /proc/PID/stack`, or reboot the machine"
                    ),
                });
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn kill_member(&self, pid: u32) {
        let Some(handle) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
        let Ok(process) = pidfd_open(handle, PidfdFlags::empty()) else { return };
        // The handle now stands for one process for good; only if that one is still a member is it ours to kill.
        if self.processes().contains(&pid) {
            // Fails only when it has ended by itself.
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }

    /// Removes the group and those inside; all processes must have ended.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        for folder in self.hierarchies.folders() {
            let group = folder.join(&self.path);
            while let Err(error) = remove_tree(&group) {
                // The kernel lets go of a group a moment after its last process.
                if Instant::now() > deadline {
                    return Err(Error::file("remove", &group)(error));
                }
                sleep(Duration::from_millis(20));
            }
            // The shared parent goes with the last cluster; when it is still used, this fails and that is right.
            let _ = fs::remove_dir(folder.join(ROOT));
        }
        Ok(())
    }
}

fn collect(folder: &Path, found: &mut BTreeSet<u32>) {
    let Ok(members) = fs::read_to_string(folder.join("cgroup.procs")) else { return };
    found.extend(members.lines().filter_map(|line| line.parse::<u32>().ok()));
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        collect(&entry.path(), found);
    }
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir() && metadata.nlink() > 0) {
            remove_tree(&path)?;
        }
    }
    fs::remove_dir(folder)
}

/// Version 2: lets inner groups use every controller that this one has.
fn pass_controllers_on(folder: &Path) {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One by one: a controller that cannot be passed on must not keep the others.
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn copy_setting(from: &Path, to: &Path) -> Result<()> {
    let value = fs::read_to_string(from).map_err(Error::file("read", from))?;
    fs::write(to, value.trim()).map_err(Error::file("write", to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
30 29 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct
31 29 0:26 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
32 29 0:27 / /sys/fs/cgroup/systemd rw,relatime - cgroup systemd rw,xattr,name=systemd
33 29 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn version_1_is_found_even_beside_an_empty_version_2() {
        let Some(Hierarchies::V1(trees)) = Hierarchies::parse(V1) else { panic!("not version 1") };
        let options: Vec<&str> = trees.iter().map(|(options, _)| options.as_str()).collect();
        assert_eq!(options, ["cpu,cpuacct", "pids", "name=systemd"]);
    }

    #[test]
    fn version_2_is_found() {
        let mounts = "24 1 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(Hierarchies::parse(mounts), Some(Hierarchies::V2("/sys/fs/cgroup".into())));
    }

    #[test]
    fn no_control_groups_are_an_answer_too() {
        assert_eq!(Hierarchies::parse("1 1 0:1 / / rw - ext4 /dev/vda rw"), None);
    }
}
