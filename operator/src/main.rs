//! Parses the arguments and runs the operator; no logic.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use scriptrunner_operator::{
    args::{Args, Command},
    run, telemetry,
};

/// Thousands of statuses' texts are made and dropped every second; the C library's allocator keeps what they took for good.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Args { command } = Args::parse();
    match command {
        Command::Run(args) => {
            let config = args.resolve()?;
            telemetry::start(config.log_format)?;
            // Whatever the cluster said last goes through the log as everything else.
            Ok(run::run(config).await.map_or_else(
                |error| {
                    tracing::error!(error = format!("{error:#}"), "ended by an error");
                    ExitCode::FAILURE
                },
                |()| ExitCode::SUCCESS,
            ))
        }
    }
}
