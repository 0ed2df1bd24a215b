//! The real operator, as a process of its own.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use kube::{Client, Config};
use scriptrunner_testcluster::wait;

use crate::{
    process::Process,
    record::{Asked, Line},
    stage::{SYSTEM, Stage},
    usage::{Usage, megabytes},
};

/// Image of the runner pods; nobody pulls it.
pub(crate) const IMAGE: &str = "scriptrunner-runner:bench";
/// Its own pod, which it is not in: the same name after a crash, so that its Lease is its own.
const POD: &str = "scriptrunner-operator-bench-0";
/// The memory that it should need at most, in MB.
pub(crate) const MOST_MEMORY: f64 = 130.0;
/// How long it may take until it is ready.
const PATIENCE: Duration = Duration::from_mins(2);

/// How the operator is started.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) program: PathBuf,
    /// Further flags.
    pub(crate) flags: Vec<String>,
    /// Port of health and metrics.
    pub(crate) port: u16,
    /// Port of the runners' sessions.
    pub(crate) session_port: u16,
}

impl Settings {
    /// With ports that are free now.
    pub(crate) fn new(program: &Path, flags: &[String]) -> anyhow::Result<Self> {
        // Both are held until both are known, so that they differ.
        let free = || TcpListener::bind(("127.0.0.1", 0)).context("find a free port");
        let (one, other) = (free()?, free()?);
        let port = |listener: &TcpListener| Ok::<_, anyhow::Error>(listener.local_addr()?.port());
        Ok(Self {
            program: program.to_owned(),
            flags: flags.to_vec(),
            port: port(&one)?,
            session_port: port(&other)?,
        })
    }

    /// An error if the program is not there.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.program.is_file(),
            "{} is missing: cargo build --release -p scriptrunner-operator, or name another with --operator",
            self.program.display()
        );
        Ok(())
    }

    /// Its whole command line.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let local = |port| format!("127.0.0.1:{port}");
        let own = [
            ("runner-image", IMAGE.to_owned()),
            ("namespace", SYSTEM.to_owned()),
            ("pod-name", POD.to_owned()),
            ("listen", local(self.port)),
            ("session-listen", local(self.session_port)),
            ("session-address", local(self.session_port)),
        ];
        let own = own.into_iter().map(|(name, value)| format!("--{name}={value}"));
        std::iter::once("run".to_owned()).chain(own).chain(self.flags.iter().cloned()).collect()
    }
}

/// The operator, running.
pub(crate) struct Operator {
    process: Process,
    client: Client,
}

impl Operator {
    /// Starts it with its account's rights; returns at once.
    pub(crate) fn start(stage: &Stage, settings: &Settings) -> anyhow::Result<Self> {
        let log = stage.cluster.logs().join("operator.log");
        let environment = [("KUBECONFIG", stage.account.as_path())];
        let process = Process::start(&settings.program, &settings.arguments(), &environment, log)?;
        let url = format!("http://127.0.0.1:{}", settings.port).parse().context("make an address")?;
        let mut config = Config::new(url);
        config.proxy_url = None;
        config.default_retry = false;
        Ok(Self { process, client: Client::try_from(config).context("make a client")? })
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn await_ready(&mut self) -> anyhow::Result<()> {
        wait::until("the operator to be ready", PATIENCE, async |seen| {
            let answer = self.get("/readyz").await;
            seen.note(format!("{answer:?}"));
            Ok::<_, std::convert::Infallible>(answer.is_ok().then_some(()))
        })
        .await
        .with_context(|| self.process.last_words())?;
        self.process.check()
    }

    /// Its metrics.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        self.get("/metrics").await.context("read the operator's metrics")
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = http::Request::get(path).body(Vec::new()).context("make a request")?;
        Ok(self.client.request_text(request).await?)
    }

    /// Memory that it holds now, as a line of the summary.
    pub(crate) fn memory_line(&self) -> anyhow::Result<Line> {
        let memory = Usage::of(self.pid()?)?.memory;
        Ok(Line {
            what: "operator: memory with every session up".to_owned(),
            asked: Asked::AtMost(MOST_MEMORY),
            measured: megabytes(memory),
            unit: "MB",
        })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.process.pid()
    }

    /// An error with its last words if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.process.check()
    }

    /// SIGKILL.
    pub(crate) async fn kill(self) -> anyhow::Result<()> {
        self.process.kill().await
    }

    /// SIGTERM.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.process.end().await
    }
}
