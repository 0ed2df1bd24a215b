//! Programs that this one starts: each with a log, and gone when this one goes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How long a program has for its end.
const PATIENCE: Duration = Duration::from_secs(15);

/// A program that runs.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with nothing in its environment but `environment`, and its words in a log.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(&str, &Path)],
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let open = || File::options().create(true).append(true).open(&log);
        let (out, err) = (open().context("open a log")?, open().context("open a log")?);
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { name, child, log })
    }

    /// Its number, while it runs.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name))
    }

    /// An error with its last words if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait().context("look after a program")? {
            bail!("{} has ended ({status}): {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("{}\n(from {})", lines[lines.len().saturating_sub(10)..].join("\n"), self.log.display())
    }

    /// Kills it at once.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Asks it to end, and kills it if it does not.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            kill_process(pid, Signal::TERM).with_context(|| format!("end {}", self.name))?;
        }
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(ended) => ended.map(drop).with_context(|| format!("wait for {}", self.name)),
            Err(_) => self.kill().await,
        }
    }
}
