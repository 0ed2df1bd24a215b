//! Parses the arguments and runs the operator; no logic.

use clap::Parser;
use scriptrunner_operator::{
    args::{Args, Command},
    run, telemetry,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { command } = Args::parse();
    match command {
        Command::Run(args) => {
            let config = args.resolve()?;
            telemetry::start(config.log_format)?;
            run::run(config).await
        }
    }
}
