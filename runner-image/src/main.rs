//! The runner: PID 1 of a pod that runs a script on one node. Parses, runs, and maps the end to an exit code; no logic.

mod args;
mod capture;
mod folders;
mod inputs;
mod install;
mod interpreter;
mod ledger;
mod log;
mod marker;
mod outcome;
mod pacing;
mod poll;
mod process;
mod program;
mod run;
mod signals;
mod termination;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use crate::{
    args::{Cli, Command, Environment},
    signals::Signals,
};

fn main() -> anyhow::Result<ExitCode> {
    // Before anything else: as PID 1 a SIGTERM without a handler would be lost.
    let signals = Signals::install().context("cannot install signal handlers")?;
    let Cli { command: Command::Run(args) } = Cli::parse();
    Ok(ExitCode::from(run::run(args, Environment::inherited(), signals)))
}
