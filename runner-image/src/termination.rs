//! Writes the termination message in place, so that whoever reads it finds a whole one at any time.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use scriptrunner_api::{
    snapshot::{MAX_MESSAGE_BYTES, Snapshot},
    v1alpha1::Execution,
};

#[derive(Debug, thiserror::Error)]
#[error("cannot write the termination message to {path:?}: {source}")]
pub(crate) struct Error {
    path: PathBuf,
    source: io::Error,
}

/// Replaces the message. The file is never empty in between; what a cut write leaves of the older message is dropped by
/// the reader, line by line.
pub(crate) fn write(path: &Path, snapshot: &Snapshot) -> Result<(), Error> {
    let message = snapshot.encode(MAX_MESSAGE_BYTES);
    replace(path, message.as_bytes()).map_err(|source| Error { path: path.to_owned(), source })
}

/// Whether the message of this snapshot holds the executions whole.
pub(crate) fn holds<'a>(snapshot: &Snapshot, executions: impl Iterator<Item = &'a Execution>) -> bool {
    let Ok(read) = Snapshot::decode(&snapshot.encode(MAX_MESSAGE_BYTES)) else { return false };
    let size = |execution: &Execution| (execution.key(), execution.stdout.len(), execution.stderr.len());
    let kept: Vec<_> = read.history.iter().map(size).collect();
    executions.map(size).all(|execution| kept.contains(&execution))
}

fn replace(path: &Path, message: &[u8]) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all_at(message, 0)?;
    file.set_len(message.len() as u64)
}
