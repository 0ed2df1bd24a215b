//! The operator as a process that a test starts, pauses and kills.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use scriptrunner_testcluster::wait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};

use super::scene::PATIENCE;

/// What distinguishes one operator from another.
#[derive(Clone, Debug)]
pub(crate) struct Flags {
    /// Its identity in the Lease. The same one after a restart, so that its Lease is its own.
    pub(crate) name: String,
    /// Where its runners find it, and where it listens for them.
    pub(crate) session_address: SocketAddr,
    pub(crate) session_listen: SocketAddr,
    /// Namespace of its Lease and Secret.
    pub(crate) namespace: String,
    /// Further flags, such as `--lease-seconds=15`; they override those that every operator of these tests has.
    pub(crate) more: Vec<(String, String)>,
}

impl Flags {
    /// The same with another value of a flag.
    pub(crate) fn with(mut self, flag: &str, value: impl std::fmt::Display) -> Self {
        self.more.retain(|(known, _)| known != flag);
        self.more.push((flag.to_owned(), value.to_string()));
        self
    }
}

/// A running operator, or one that has ended. It is killed when this is dropped.
pub(crate) struct Operator {
    child: Child,
    health: SocketAddr,
    log: PathBuf,
}

impl Operator {
    /// Starts an operator that knows the API server from `kubeconfig` only and writes its log after what `log` has.
    pub(crate) fn start(flags: &Flags, kubeconfig: &Path, log: &Path) -> Self {
        let health = free_address(OWN_ADDRESS);
        let output = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_scriptrunner-operator"))
            .arg("run")
            .arg(format!("--runner-image=docker.io/{}", scriptrunner_operator::manifests::RUNNER_IMAGE))
            .arg(format!("--pod-name={}", flags.name))
            .arg(format!("--namespace={}", flags.namespace))
            .arg(format!("--listen={health}"))
            .arg(format!("--session-listen={}", flags.session_listen))
            .arg(format!("--session-address={}", flags.session_address))
            // These nodes cannot count it.
            .arg("--default-ephemeral-storage=")
            .arg("--log-format=text")
            .args(flags.more.iter().map(|(flag, value)| format!("--{flag}={value}")))
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "info,scriptrunner_operator=debug")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, health, log: log.to_owned() }
    }

    /// Waits until it leads and has seen everything once.
    pub(crate) async fn until_ready(&mut self) {
        let ended = wait::until("the operator to be ready", PATIENCE, async |seen| {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(Err(status)));
            }
            let answer = get(self.health, "/readyz").await?;
            seen.note(answer.clone());
            Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200").then_some(Ok(())))
        });
        if let Err(status) = ended.await.unwrap() {
            panic!("the operator has ended ({status}) before it was ready:\n{}", self.log_tail(40));
        }
    }

    /// Ends it at once, as the kernel does when memory is short, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Stops it where it is.
    pub(crate) async fn pause(&self) {
        self.signal("STOP").await;
    }

    /// Lets it go on after [`Self::pause`].
    pub(crate) async fn resume(&self) {
        self.signal("CONT").await;
    }

    /// Tells it to stop.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        self.until_ended().await
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("the operator should run");
        let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status().await.unwrap();
        assert!(status.success(), "kill -s {signal} {pid}: {status}");
    }

    /// How it ended; none while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends by itself.
    pub(crate) async fn until_ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("the operator should have ended:\n{}", self.log_tail(40)))
            .unwrap()
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// A loopback address that no connection of this machine comes from: so none takes the port while no operator has it.
pub(crate) const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

/// An address of this machine with a port that nobody listens on.
pub(crate) fn free_address(ip: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    listener.local_addr().unwrap()
}

async fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}
