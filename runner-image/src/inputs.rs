//! Reads the pinned inputs once and checks that they are those that the pod was made for.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use scriptrunner_api::{digest::sha256_hex, labels, pinned::PinnedSpec};

/// A ConfigMap holds at most 1 MiB.
const MAX_INPUT_BYTES: u64 = 1 << 20;

/// The verified inputs. What is executed are these bytes, never the files again.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) spec: PinnedSpec,
    pub(crate) script: Vec<u8>,
    /// Certificate authorities that installers trust, in PEM.
    pub(crate) trusted_ca: Option<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The inputs are not those that the pod was made for.
    #[error(
        "{path:?} has SHA-256 {found:?}, the pod was made for {expected:?}; nothing was executed, delete the pod and look who changed the run's ConfigMap"
    )]
    MatchDigest { path: PathBuf, found: String, expected: String },
    #[error("{path:?} is missing; nothing was executed, look who changed the run's ConfigMap")]
    FindInput { path: PathBuf },
    #[error("cannot read {path:?}: {source}")]
    ReadInput { path: PathBuf, source: io::Error },
    #[error("cannot understand {path:?}: {source}; use a runner image of the operator's version")]
    ParseSpec { path: PathBuf, source: serde_json::Error },
}

impl Error {
    /// Whether somebody changed the inputs, as opposed to a runner that cannot read them.
    pub(crate) fn is_tampering(&self) -> bool {
        match self {
            Self::MatchDigest { .. } | Self::FindInput { .. } => true,
            Self::ReadInput { .. } | Self::ParseSpec { .. } => false,
        }
    }
}

/// Reads the inputs and compares them with the digests in the pod's arguments, the script also with the spec's, and the
/// certificate authorities with the spec's.
pub(crate) fn read(folder: &Path, spec_sha256: &str, script_sha256: &str) -> Result<Inputs, Error> {
    let spec_path = folder.join(labels::SPEC_FILE);
    let script_path = folder.join(labels::SCRIPT_FILE);
    let spec_bytes = verified(&spec_path, spec_sha256)?;
    let script = verified(&script_path, script_sha256)?;
    let spec: PinnedSpec =
        serde_json::from_slice(&spec_bytes).map_err(|source| Error::ParseSpec { path: spec_path, source })?;
    if spec.script_sha256 != script_sha256 {
        return Err(Error::MatchDigest {
            path: script_path,
            found: script_sha256.to_owned(),
            expected: spec.script_sha256,
        });
    }
    let trusted_ca = spec.trusted_ca_sha256.as_deref();
    let trusted_ca =
        trusted_ca.map(|expected| verified(&folder.join(labels::TRUSTED_CA_FILE), expected)).transpose()?;
    Ok(Inputs { spec, script, trusted_ca })
}

fn verified(path: &Path, expected: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::FindInput { path: path.to_owned() });
        }
        Err(source) => return Err(Error::ReadInput { path: path.to_owned(), source }),
    }
    let found = sha256_hex(&bytes);
    if found == expected {
        Ok(bytes)
    } else {
        Err(Error::MatchDigest { path: path.to_owned(), found, expected: expected.to_owned() })
    }
}
