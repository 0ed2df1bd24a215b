//! The runner: PID 1 of a pod that runs a script on one node.
//!
//! [`start`] is the whole program. [`session`] is its way to the operator, public because it is also driven without pods,
//! by the thousands.

mod args;
mod capture;
mod copy;
mod folders;
mod inputs;
mod install;
mod interpreter;
mod ledger;
mod link;
mod log;
mod marker;
mod mask;
mod outcome;
mod pacing;
mod poll;
mod process;
mod program;
mod result_file;
mod run;
pub mod session;
mod signals;
mod termination;

use clap::Parser;

use crate::{
    args::{Cli, Command, Environment},
    signals::Signals,
};

/// Parses the arguments, does what they say, and returns the exit code. An error means that the signal handlers could not
/// be installed.
pub fn start() -> std::io::Result<u8> {
    // Before anything else: as PID 1 a SIGTERM without a handler would be lost.
    let signals = Signals::install()?;
    let environment = Environment::inherited();
    Ok(match Cli::parse().command {
        Command::Run(args) => run::run(*args, environment, signals),
        Command::CopyRunner(args) => copy::run(&args.to, environment.get("PATH")),
    })
}
