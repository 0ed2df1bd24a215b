//! The marker against a second start: a file in a volume that outlives the container.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use scriptrunner_api::labels;

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot make the start marker {path:?}: {source}; the pod's state volume must be writable for the script's user"
)]
pub(crate) struct Error {
    path: PathBuf,
    source: io::Error,
}

/// Whether this is the first start in this pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    First,
    Repeated,
}

/// Makes the marker, durable before this returns. `restartPolicy: Never` is at-least-once, the marker makes it at-most-once.
pub(crate) fn make(state_dir: &Path) -> Result<Start, Error> {
    let path = state_dir.join(labels::STARTED_FILE);
    match OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path) {
        Ok(file) => {
            file.sync_all()
                .and_then(|()| File::open(state_dir)?.sync_all())
                .map_err(|source| Error { path, source })?;
            Ok(Start::First)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Start::Repeated),
        Err(source) => Err(Error { path, source }),
    }
}
