//! Writes `crds/` and `deploy/` from the code; with `--check` it writes nothing and fails if they differ.

use std::path::Path;

use anyhow::Result;
use clap::Parser;
use scriptrunner_operator::manifests::{File, ROOT, ensure_file, files};

/// Writes the generated files of this repository.
#[derive(Parser)]
struct Args {
    /// Write nothing; fail if a file is not what the code says.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<()> {
    let Args { check } = Args::parse();
    for File { path, contents } in files() {
        ensure_file(&Path::new(ROOT).join(path), &contents, check)?;
    }
    Ok(())
}
