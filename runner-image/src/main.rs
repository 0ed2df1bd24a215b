//! The runner's program. Maps the end to an exit code; no logic.

use std::process::ExitCode;

use anyhow::Context;

fn main() -> anyhow::Result<ExitCode> {
    let code = scriptrunner_runner::start().context("cannot install signal handlers")?;
    Ok(ExitCode::from(code))
}
