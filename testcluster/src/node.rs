//! The machine's side of a node: its folder, its sandbox, its cable, and everything that can befall it.

mod skeleton;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;

use crate::{
    binaries::Binaries,
    cgroup::Group,
    component::config,
    error::{Error, Result},
    folder::{self, ClusterFolder},
    images, network,
    pki::{Identity, Pki},
    process::Launch,
    sandbox::SandboxConfig,
    slot::Slot,
    state::State,
};

/// How a node is doing, seen from the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Running,
    /// All of its processes are stopped.
    Frozen,
    /// It runs, but its cable is unplugged.
    Cut,
    /// It has no process.
    Dead,
}

/// A node of a cluster on this machine.
#[derive(Debug)]
pub(crate) struct Node<'a> {
    state: &'a State,
    folder: ClusterFolder,
    index: u8,
    name: String,
    group: Group,
}

impl<'a> Node<'a> {
    /// The node `index` (from 1) of a cluster.
    pub(crate) fn new(state: &'a State, index: u8) -> Result<Self> {
        let name = state.node_name(index);
        let group = Group::cluster(&state.name)?.child(&name);
        Ok(Self { state, folder: state.folder(), index, name, group })
    }

    /// The node's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The log of the sandbox itself.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.logs().join(format!("{}.log", self.name))
    }

    /// The node's folder on disk.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder.node(&self.name)
    }

    /// When the node was last started, in whole seconds as Kubernetes counts: its configuration is written then.
    pub(crate) fn start_time(&self) -> Result<Timestamp> {
        let path = self.configuration();
        let metadata = fs::metadata(&path).map_err(Error::file("read", &path))?;
        Ok(Timestamp::from_second(metadata.mtime()).unwrap_or_default())
    }

    fn configuration(&self) -> PathBuf {
        self.disk().join("sandbox.json")
    }

    fn slot(&self) -> Slot {
        self.state.slot
    }

    /// The control group that is the top for everything in the node; limits lie above, where a node cannot reach.
    fn inside(&self) -> Group {
        self.group.child("root")
    }

    /// The pid, on the machine, of the node's first process.
    pub(crate) fn first_process(&self) -> Option<u32> {
        self.inside().processes().into_iter().find(|pid| is_first_process(*pid))
    }

    /// How the node is doing.
    pub(crate) fn condition(&self) -> Condition {
        if self.first_process().is_none() {
            Condition::Dead
        } else if self.inside().is_frozen() {
            Condition::Frozen
        } else if network::is_connected(self.slot(), self.index) {
            Condition::Running
        } else {
            Condition::Cut
        }
    }

    /// Starts the node when it is dead, and undoes what else befell it.
    pub(crate) fn heal(&self) -> Result<()> {
        match self.condition() {
            Condition::Running => return Ok(()),
            Condition::Frozen => {
                self.inside().freeze(false)?;
                if self.condition() == Condition::Running {
                    return Ok(());
                }
            }
            Condition::Cut | Condition::Dead => {}
        }
        // Without its cable a cut node cannot be told from one whose start was interrupted: then it starts anew.
        if self.condition() == Condition::Cut && network::switch(self.slot(), self.index, true).is_ok() {
            return Ok(());
        }
        self.kill()?;
        self.start()
    }

    /// Ends all of the node's processes at once, as a power cut does.
    pub(crate) fn kill(&self) -> Result<()> {
        if self.inside().is_frozen() {
            self.inside().freeze(false)?;
        }
        self.group.kill()?;
        network::disconnect(self.slot(), self.index)?;
        self.group.remove()
    }

    /// Stops all of the node's processes where they are.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.require_process()?;
        self.inside().freeze(true)
    }

    /// Unplugs the node's cable.
    pub(crate) fn cut(&self) -> Result<()> {
        self.require_process()?;
        network::switch(self.slot(), self.index, false)
    }

    fn require_process(&self) -> Result<u32> {
        self.first_process().ok_or_else(|| Error::ReachNode { node: self.name.clone() })
    }

    /// Where the machine reaches the node's containerd.
    pub(crate) fn containerd_socket(&self) -> Result<PathBuf> {
        let pid = self.require_process()?;
        Ok(PathBuf::from(format!("/proc/{pid}/root{}", config::CONTAINERD_SOCKET)))
    }

    fn start(&self) -> Result<()> {
        let config = self.prepare()?;
        self.group.create()?;
        self.group.limit(self.state.node_memory_mib, self.state.node_processes)?;
        self.group.deny_block_devices()?;
        let (inside, program) = (self.inside(), self.folder.program());
        let namespaces =
            "--mount --uts --net --pid --ipc --cgroup --fork --kill-child --propagation private --";
        let mut arguments: Vec<String> = namespaces.split(' ').map(str::to_owned).collect();
        arguments.extend([program.display().to_string(), "sandbox".into(), config.display().to_string()]);
        let unshare = Path::new("/usr/bin/unshare");
        let launch =
            Launch { launcher: &program, group: &inside, program: unshare, arguments, log: self.log() };
        let outer = launch.start()?;
        let first = self.await_first_process()?;
        // Version 2 lets a group pass its controllers on only when it has no process itself.
        let keeper = self.group.child("keeper");
        keeper.create()?;
        keeper.admit(outer)?;
        network::connect(self.slot(), self.index, first)
    }

    fn await_first_process(&self) -> Result<u32> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(pid) = self.first_process() {
                return Ok(pid);
            }
            if Instant::now() > deadline || self.inside().processes().is_empty() {
                return Err(self.failure("did not start"));
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// An error about this node, with what its log says.
    pub(crate) fn failure(&self, state: &str) -> Error {
        let kubelet = self.disk().join("var/log/kubelet.log");
        let log = if self.first_process().is_some() && kubelet.exists() { kubelet } else { self.log() };
        Error::Component {
            component: format!("node {:?}", self.name),
            state: state.into(),
            tail: folder::tail(&log),
            log,
        }
    }

    /// Brings the node's folder up to date; gives the sandbox's configuration file.
    fn prepare(&self) -> Result<PathBuf> {
        let disk = self.disk();
        folder::make(&disk, 0o755)?;
        skeleton::ensure(&disk, &self.name)?;
        self.write_configuration(&disk.join("etc"))?;
        images::place_pause(&self.folder, &disk.join("var"))?;
        let config = SandboxConfig {
            node: self.name.clone(),
            index: self.index,
            slot: self.slot(),
            group: self.group.path().to_owned(),
            folder: disk.clone(),
            binaries: self.state.binaries.clone(),
            hidden: self.hidden(),
        };
        let path = self.configuration();
        write_json(&path, &config)?;
        Ok(path)
    }

    /// Folders of the machine that hold what is nobody's business in a test.
    fn hidden(&self) -> Vec<PathBuf> {
        let mut hidden: Vec<PathBuf> =
            ["/root", "/home", "/srv", "/boot", "/mnt", "/media"].into_iter().map(PathBuf::from).collect();
        hidden.push(self.state.checkout.clone());
        let Binaries { kubernetes, .. } = &self.state.binaries;
        hidden.extend(kubernetes.parent().map(Path::to_owned));
        hidden
    }

    fn write_configuration(&self, etc: &Path) -> Result<()> {
        let kubernetes = etc.join("kubernetes");
        folder::make(&kubernetes.join("pki"), 0o755)?;
        folder::make(&etc.join("containerd"), 0o755)?;
        folder::make(&etc.join("cni/net.d"), 0o755)?;
        let pki = Pki::new(self.folder.pki(), self.slot(), &self.state.name);
        pki.ensure(&[Identity::kubelet(self.slot(), &self.name, self.index)])?;
        let files = [
            ("ca.crt".to_owned(), "pki/ca.crt", 0o644),
            (format!("{}.crt", self.name), "pki/kubelet.crt", 0o644),
            (format!("{}.key", self.name), "pki/kubelet.key", 0o600),
            (format!("{}.kubeconfig", self.name), "kubelet.kubeconfig", 0o600),
            ("kube-proxy.kubeconfig".to_owned(), "kube-proxy.kubeconfig", 0o600),
        ];
        for (from, to, mode) in files {
            let from = pki.file(&from);
            let content = fs::read(&from).map_err(Error::file("read", &from))?;
            folder::write(&kubernetes.join(to), content, mode)?;
        }
        let reserved = machine_memory_mib()?.saturating_sub(self.state.node_memory_mib);
        let kubelet = config::kubelet(self.slot().dns_service(), reserved);
        write_json(&kubernetes.join("kubelet.yaml"), &kubelet)?;
        folder::write(&etc.join("containerd/config.toml"), config::containerd(), 0o644)?;
        let pods = config::pod_network(self.slot().pod_subnet(self.index));
        write_json(&etc.join("cni/net.d/10-pods.conflist"), &pods)?;
        // The machine's own name server is often one on its loopback, which a node does not have.
        folder::write(&etc.join("resolv.conf"), format!("nameserver {}\n", self.slot().gateway()), 0o644)
    }
}

/// Whether a process is number 1 of a sandbox, not of the machine and not of a container inside.
fn is_first_process(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_whitespace().skip(1).collect::<Vec<_>>() == ["1"]
}

fn machine_memory_mib() -> Result<u64> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let kib = kib.and_then(|number| number.trim().parse::<u64>().ok());
    kib.map(|kib| kib / 1024).ok_or_else(|| Error::Machine { what: "no MemTotal in /proc/meminfo".into() })
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Encode { what: path.display().to_string(), reason: error.to_string() })?;
    folder::write(path, text, 0o644)
}
