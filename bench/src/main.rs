//! The program `scriptrunner-bench`: a real control plane, fake nodes, the real operator, and runners that only pretend to
//! execute. See the README of this crate.

mod args;
mod audit;
mod exposition;
mod figures;
mod follow;
mod ledger;
mod nodes;
mod null;
mod objects;
mod operator;
mod orders;
mod pods;
mod process;
mod record;
mod runner;
mod sampler;
mod scenario;
mod stage;
mod tally;
mod theatre;
mod token;
mod trial;
mod usage;

use std::{io::Write, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::Args, scenario::Desk};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let (name, keep) = (args.cluster.clone(), args.keep);
    let outcome = tokio::select! {
        done = measure(args) => done,
        stopped = told_to_stop() => stopped,
    };
    // Whatever happened: the programs ended with their owners, and the control plane goes too.
    let gone = if keep { Ok(true) } else { scriptrunner_testcluster::down(&name) };
    match outcome.and(gone.map_err(Into::into)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a reader there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "scriptrunner-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: Args) -> anyhow::Result<()> {
    raise_file_limit()?;
    let mut desk = Desk::new(args)?;
    let outcome = desk.run().await;
    let summary = desk.recording.folder().join("summary.md");
    if let Ok(text) = std::fs::read_to_string(&summary) {
        writeln!(std::io::stdout(), "{text}\n{}", summary.display()).context("write the answer")?;
    }
    outcome
}

/// Each simulated runner holds a connection, and so does the operator for each; it inherits the limit.
fn raise_file_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("raise the limit of open files")
}

async fn told_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted.context("wait for SIGINT")?,
    }
    anyhow::bail!("told to stop")
}
