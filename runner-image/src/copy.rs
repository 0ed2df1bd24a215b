//! Copies the runner, and uv where there is one, to where pods of other images find them.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use scriptrunner_api::labels;

use crate::{folders, log, program};

/// The file that this process runs, also if its name is gone.
const OWN_PROGRAM: &str = "/proc/self/exe";

#[derive(Debug, thiserror::Error)]
#[error("cannot copy {from:?} to {to:?}: {source}; mount a folder there that this user may write")]
struct Error {
    from: PathBuf,
    to: PathBuf,
    source: io::Error,
}

/// Copies what there is, and returns the exit code.
pub(crate) fn run(folder: &Path, search_path: Option<&OsStr>) -> u8 {
    let uv = program::find(OsStr::new(labels::UV_FILE), search_path).ok();
    if uv.is_none() {
        log::line("this image has no uv to copy; pip installs where the other image has it");
    }
    let copied = copy(Path::new(OWN_PROGRAM), &folder.join(labels::RUNNER_FILE))
        .and_then(|()| uv.map_or(Ok(()), |uv| copy(&uv, &folder.join(labels::UV_FILE))));
    match copied {
        Ok(()) => 0,
        Err(error) => {
            log::line(&error.to_string());
            1
        }
    }
}

/// Whole or not at all under its name, whoever is started from it meanwhile.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let new = to.with_extension("new");
    let copied = folders::remove_whatever(&new)
        .and_then(|()| fs::copy(from, &new))
        .and_then(|_| fs::set_permissions(&new, Permissions::from_mode(0o755)))
        .and_then(|()| fs::rename(&new, to));
    copied.map_err(|source| {
        // Half a copy is of no use.
        let _ = fs::remove_file(&new);
        Error { from: from.to_owned(), to: to.to_owned(), source }
    })
}
