//! Reads what a script left as its result. The script owns the folder and may put anything there: nothing is followed,
//! nothing is waited for, and no more is read than can be a result.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat, open},
    io::Errno,
};
use scriptrunner_api::result::{self, MAX_RESULT_FILE_BYTES};
use serde_json::Value;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("a {0} is where the result file should be; write a regular file")]
    Kind(&'static str),
    #[error("cannot read the result file: {0}")]
    Read(io::Error),
    #[error(transparent)]
    Parse(result::Error),
}

/// The result, none if there is no file.
pub(crate) fn read(path: &Path) -> Result<Option<Value>, Error> {
    // Opening a fifo or a device would wait for somebody.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let descriptor = match open(path, flags, Mode::empty()) {
        Ok(descriptor) => descriptor,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(Error::Kind("symbolic link")),
        Err(Errno::NXIO) => return Err(Error::Kind("socket")),
        Err(error) => return Err(Error::Read(error.into())),
    };
    let metadata = fstat(&descriptor).map_err(|error| Error::Read(error.into()))?;
    match FileType::from_raw_mode(metadata.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Error::Kind("folder")),
        FileType::Fifo => return Err(Error::Kind("fifo")),
        _ => return Err(Error::Kind("special file")),
    }
    let most = u64::try_from(MAX_RESULT_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::from(descriptor).take(most).read_to_end(&mut bytes).map_err(Error::Read)?;
    result::parse(&bytes).map(Some).map_err(Error::Parse)
}
