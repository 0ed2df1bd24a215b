//! The first process of a node: makes the node's root and network inside fresh namespaces, then runs its programs.

mod disks;
mod mounts;
mod programs;

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    binaries::Binaries,
    cgroup::Group,
    error::{Error, Result},
    slot::Slot,
    tool,
};

/// What a sandbox needs to know; the machine's side writes it before each start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxConfig {
    /// The node's name.
    pub(crate) node: String,
    /// Its number, from 1.
    pub(crate) index: u8,
    /// The cluster's slot.
    pub(crate) slot: Slot,
    /// The node's control group on the machine.
    pub(crate) group: PathBuf,
    /// The node's folder on disk, with its `etc`, its `var` and a mount point `root`.
    pub(crate) folder: PathBuf,
    /// Where the binaries are on the machine.
    pub(crate) binaries: Binaries,
    /// Folders of the machine that the node sees empty.
    pub(crate) hidden: Vec<PathBuf>,
}

/// Runs the node until the process is killed; returns only an error.
pub fn run(config: &Path) -> Error {
    let serve = || -> Result<std::convert::Infallible> {
        let text = fs::read_to_string(config).map_err(Error::file("read", config))?;
        let parsed: SandboxConfig = serde_json::from_str(&text)
            .map_err(|error| Error::ParseState { path: config.into(), reason: error.to_string() })?;
        nix::unistd::sethostname(&parsed.node).map_err(Error::call("set the hostname"))?;
        let guard = disks::deny(&parsed.group)?;
        mounts::enter_root(&parsed)?;
        connect(&parsed)?;
        make_room()?;
        let error = programs::supervise(&parsed);
        drop(guard);
        Err(error)
    };
    let Err(error) = serve();
    error
}

/// Gives the cable that the machine has plugged in the node's address.
fn connect(config: &SandboxConfig) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !Path::new("/sys/class/net/eth0").exists() {
        if Instant::now() > deadline {
            return Err(Error::Machine {
                what: "no cable was plugged into the sandbox: run `up` again".into(),
            });
        }
        sleep(Duration::from_millis(10));
    }
    let SandboxConfig { slot, index, .. } = config;
    tool::run("ip link set lo up")?;
    tool::run(&format!("ip address add {}/24 dev eth0", slot.node_address(*index)))?;
    tool::run("ip link set eth0 up")?;
    tool::run(&format!("ip route add default via {}", slot.gateway()))?;
    write_setting("net/ipv4/ip_forward")?;
    // Without it, what a pod sends through a Service to its own node's bridge comes back past the rules.
    if Path::new("/proc/sys/net/bridge").exists() {
        write_setting("net/bridge/bridge-nf-call-iptables")?;
    }
    Ok(())
}

fn write_setting(name: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(name);
    fs::write(&path, "1").map_err(Error::file("write", &path))
}

/// Leaves the node's top group to the kubelet: version 2 wants no process in a group that has inner ones.
fn make_room() -> Result<()> {
    let system = Group::by_path(Path::new("system"))?;
    system.make()?;
    system.admit(std::process::id())?;
    // Only now: passing controllers on beside a process spoils the inner groups for good.
    system.create()
}
