//! A node's programs: started in order, and started again when they end, as a service manager does.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::wait::{WaitStatus, waitpid};

use super::SandboxConfig;
use crate::{
    component::config::{self, CONTAINERD_SOCKET, NODE_BINARIES},
    error::{Error, Result},
    images, tool,
};

/// A program that must always run.
struct Program {
    name: &'static str,
    folder: &'static str,
    arguments: Vec<String>,
}

impl Program {
    /// Starts it; its output goes to `/var/log`, where a person would look.
    fn start(&self) -> Result<i32> {
        let log = PathBuf::from(format!("/var/log/{}.log", self.name));
        let open = || File::options().create(true).append(true).open(&log).map_err(Error::file("open", &log));
        let program = Path::new(NODE_BINARIES).join(self.folder).join(self.name);
        let child = Command::new(&program)
            .args(&self.arguments)
            .env("PATH", format!("{NODE_BINARIES}/containerd:{}", tool::PATH))
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .spawn()
            .map_err(|source| Error::Start { program: program.display().to_string(), source })?;
        i32::try_from(child.id()).map_err(|_| Error::Machine { what: "a pid above 2^31".into() })
    }
}

/// Starts everything and keeps it running; returns only an error.
pub(super) fn supervise(config: &SandboxConfig) -> Error {
    let serve = || -> Result<std::convert::Infallible> {
        let mut running = BTreeMap::new();
        let containerd = Program {
            name: "containerd",
            folder: "containerd",
            arguments: vec!["--config=/etc/containerd/config.toml".into()],
        };
        running.insert(containerd.start()?, containerd);
        await_file(Path::new(CONTAINERD_SOCKET))?;
        images::import_pause()?;
        await_api_server(config)?;
        for program in [kubelet(config), proxy(config)] {
            running.insert(program.start()?, program);
        }
        reap(running)
    };
    let Err(error) = serve();
    error
}

fn kubelet(config: &SandboxConfig) -> Program {
    let labels = config::node_labels(config.index);
    let address = config.slot.node_address(config.index);
    let arguments = config::kubelet_arguments(&config.node, address, &labels);
    Program { name: "kubelet", folder: "kubernetes", arguments }
}

fn proxy(config: &SandboxConfig) -> Program {
    let arguments = config::proxy_arguments(&config.node, config.slot.pod_network());
    Program { name: "kube-proxy", folder: "kubernetes", arguments }
}

/// As the node's first process this one inherits every orphan, and must take note of every end.
fn reap(mut running: BTreeMap<i32, Program>) -> Result<std::convert::Infallible> {
    loop {
        let change = waitpid(None, None).map_err(Error::call("wait for the node's programs"))?;
        let (WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, _, _)) = change else { continue };
        if let Some(program) = running.remove(&ended.as_raw()) {
            // Not at once: a program that cannot start must not eat the machine.
            sleep(Duration::from_secs(1));
            running.insert(program.start()?, program);
        }
    }
}

fn await_file(path: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_mins(5);
    while fs::metadata(path).is_err() {
        if Instant::now() > deadline {
            return Err(Error::Machine {
                what: format!("no {} after 5 min: see /var/log/containerd.log of the node", path.display()),
            });
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A kubelet that starts before its API server waits longer and longer between tries.
fn await_api_server(config: &SandboxConfig) -> Result<()> {
    let address = SocketAddr::from((config.slot.gateway(), crate::slot::API_PORT));
    let deadline = Instant::now() + Duration::from_mins(5);
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        if Instant::now() > deadline {
            return Err(Error::Machine {
                what: format!("no API server at {address} after 5 min: run `up` again"),
            });
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}
