//! What is to be installed for a run. Pure.

use std::ffi::OsString;

use scriptrunner_api::pinned::PinnedSpec;

use super::{
    Error,
    inline::{self, Inline},
};
use crate::interpreter;

/// What is to be installed. Where it is equal nothing is installed again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What all runs in the pod have in common.
    pub(crate) of_pod: OfPod,
    /// The script's inline metadata.
    pub(super) inline: Option<String>,
    /// The Python that it is for, as the command line names it; none if there is nothing for a Python.
    pub(super) python: Option<OsString>,
}

/// What `dependencies` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfPod {
    pub(super) pip: Vec<String>,
    pub(super) packages: Vec<String>,
    pub(super) index_url: Option<String>,
    pub(super) extra_index_urls: Vec<String>,
    trusted_ca_sha256: Option<String>,
}

impl Wanted {
    /// What the spec and the script ask for; the script only if a Python runs it.
    pub(crate) fn of(spec: &PinnedSpec, script: &[u8], command_line: &[OsString]) -> Result<Self, Error> {
        let python = interpreter::python_of(command_line);
        let inline = match python.as_ref().map_or(Inline::Absent, |_| inline::find(script)) {
            Inline::Absent => None,
            Inline::Unclosed => return Err(Error::EndInline),
            Inline::Several => return Err(Error::ReadInline),
            Inline::Block(_) if !spec.pip.is_empty() => return Err(Error::CombineInline),
            Inline::Block(block) => Some(block),
        };
        let needs_python = inline.is_some() || !spec.pip.is_empty();
        Ok(Self {
            of_pod: OfPod {
                pip: spec.pip.clone(),
                packages: spec.packages.clone(),
                index_url: spec.index_url.clone(),
                extra_index_urls: spec.extra_index_urls.clone(),
                trusted_ca_sha256: spec.trusted_ca_sha256.clone(),
            },
            inline,
            python: needs_python.then(|| python.unwrap_or(OsString::from("python3"))),
        })
    }
}
