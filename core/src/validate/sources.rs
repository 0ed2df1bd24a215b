//! What the ConfigMaps hold that a spec names: from what was found there to the texts that a run is pinned to. Pure.

use std::sync::Arc;

use scriptrunner_api::{
    digest::sha256_hex,
    labels,
    pinned::Inputs,
    reason::ConditionReason,
    v1alpha1::{MAX_SCRIPT_BYTES, MAX_TRUSTED_CA_BYTES, ScriptRunnerSpec, SourceKey},
};

use super::Refusal;

/// What was found of the inputs that a spec names; none where it names nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Of `scriptFrom`.
    pub script: Option<Source>,
    /// Of `dependencies.trustedCA`.
    pub trusted_ca: Option<Source>,
}

/// What was found of one key of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Text.
    Text(Arc<str>),
    /// Bytes that are no text.
    Binary,
    /// More bytes than any input may have; how many.
    TooLong(usize),
    /// The ConfigMap has the label, and no such key.
    NoKey,
    /// There is no such ConfigMap with the label.
    NoConfigMap,
    /// There is one, and the operator has no room for what it holds, beside the others of this namespace.
    NoRoom,
}

/// The texts that a run of the spec is pinned to.
pub(super) fn inputs(spec: &ScriptRunnerSpec, sources: &Sources) -> Result<Inputs, Refusal> {
    let script = match (&spec.script, &spec.script_from) {
        (Some(script), None) => script.clone(),
        (None, Some(from)) => {
            let key = &from.config_map_key_ref;
            let wanted = from.sha256.as_deref();
            check_digest(spec, "scriptFrom", wanted)?;
            text("scriptFrom", key, wanted, sources.script.as_ref(), MAX_SCRIPT_BYTES)?
        }
        (_, _) => {
            return Err(Refusal {
                reason: ConditionReason::SpecInvalid,
                message: "give exactly one of script and scriptFrom".to_owned(),
            });
        }
    };
    let trusted_ca = spec.dependencies.as_ref().and_then(|dependencies| dependencies.trusted_ca.as_ref());
    let trusted_ca = trusted_ca
        .map(|ca| {
            let wanted = ca.sha256.as_deref();
            check_digest(spec, "dependencies.trustedCA", wanted)?;
            let found = sources.trusted_ca.as_ref();
            text("dependencies.trustedCA", &ca.config_map_key_ref, wanted, found, MAX_TRUSTED_CA_BYTES)
        })
        .transpose()?;
    Ok(Inputs { script, trusted_ca })
}

/// A privileged mode runs only what the spec names by its digest, so that admission sees it.
fn check_digest(spec: &ScriptRunnerSpec, field: &str, sha256: Option<&str>) -> Result<(), Refusal> {
    if sha256.is_some() || !spec.mode.is_privileged() {
        return Ok(());
    }
    Err(Refusal {
        reason: ConditionReason::SpecInvalid,
        message: format!("a privileged mode needs {field}.sha256; get it with sha256sum"),
    })
}

fn text(
    field: &str,
    SourceKey { name, key }: &SourceKey,
    sha256: Option<&str>,
    found: Option<&Source>,
    most: usize,
) -> Result<String, Refusal> {
    let too_long = |bytes: usize| {
        format!("{field}: key {key:?} of ConfigMap {name:?} has {bytes} bytes, at most {most} are allowed")
    };
    let (reason, message) = match found {
        None | Some(Source::NoConfigMap) => (
            ConditionReason::InputMissing,
            format!(
                "{field}: no ConfigMap {name:?} with label {}={} is in this namespace; make it, or label it",
                labels::SOURCE,
                labels::SOURCE_TRUE
            ),
        ),
        Some(Source::NoRoom) => (
            ConditionReason::InputInvalid,
            format!(
                "{field}: the ConfigMaps with label {0}={1} in this namespace hold more than the operator keeps, so that it does not know what is in ConfigMap {name:?}; take the label off those that no ScriptRunner names, then change this one",
                labels::SOURCE,
                labels::SOURCE_TRUE
            ),
        ),
        Some(Source::NoKey) => (
            ConditionReason::InputMissing,
            format!("{field}: ConfigMap {name:?} has no key {key:?}; add it, or correct {field}"),
        ),
        Some(Source::Binary) => (
            ConditionReason::InputInvalid,
            format!("{field}: key {key:?} of ConfigMap {name:?} is binary data; it must be UTF-8 text"),
        ),
        Some(Source::TooLong(bytes)) => (ConditionReason::InputInvalid, too_long(*bytes)),
        Some(Source::Text(text)) if text.len() > most => {
            (ConditionReason::InputInvalid, too_long(text.len()))
        }
        Some(Source::Text(text)) if text.is_empty() => {
            (ConditionReason::InputInvalid, format!("{field}: key {key:?} of ConfigMap {name:?} is empty"))
        }
        Some(Source::Text(text)) => {
            let digest = sha256_hex(text.as_bytes());
            match sha256 {
                Some(wanted) if wanted != digest => (
                    ConditionReason::InputChanged,
                    format!(
                        "{field}: key {key:?} of ConfigMap {name:?} has SHA-256 {digest}, the spec says {wanted}; look who changed it, and write the new digest into {field}.sha256 if it is right"
                    ),
                ),
                Some(_) | None => return Ok((**text).to_owned()),
            }
        }
    };
    Err(Refusal { reason, message })
}

#[cfg(test)]
mod tests;
