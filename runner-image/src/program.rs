//! Finds programs on the search path of the environment that they will run in.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access};

/// What execvp(3) searches when PATH is unset.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no program {name:?} in PATH {path:?}")]
    FindProgram { name: OsString, path: OsString },
    #[error("{program:?} is not executable for this user")]
    AccessProgram { program: PathBuf },
}

/// The file that the name stands for. A name with a slash is a path, and is not checked here.
pub(crate) fn find(name: &OsStr, search_path: Option<&OsStr>) -> Result<PathBuf, Error> {
    if name.as_encoded_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    let search_path = search_path.unwrap_or(OsStr::new(DEFAULT_PATH));
    let candidates: Vec<PathBuf> = std::env::split_paths(search_path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .filter(|candidate| !name.is_empty() && candidate.is_file())
        .collect();
    match candidates.iter().find(|candidate| is_executable(candidate)).or(candidates.first()) {
        Some(program) if is_executable(program) => Ok(program.clone()),
        Some(program) => Err(Error::AccessProgram { program: program.clone() }),
        None => Err(Error::FindProgram { name: name.to_owned(), path: search_path.to_owned() }),
    }
}

fn is_executable(path: &Path) -> bool {
    access(path, Access::EXEC_OK).is_ok()
}
