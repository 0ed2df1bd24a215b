//! What pods are made of beside what runs, and the rules of image and host. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use scriptrunner_api::{
    labels::{NOT_IN_ANNOTATIONS, NOT_IN_ANNOTATIONS_TEXT, SAFE_TO_EVICT},
    v1alpha1::{ImagePullPolicy, Mode, Resources, ScriptRunnerSpec},
};

use super::{Refusal, inputs::is_sha256, invalid};
use crate::quantity::nanos;

/// Domain of the operator's own keys.
const OURS: &str = "scriptrunner.io";

/// What pods are made of beside what runs. None of this is pinned: a change is for pods that are made later.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodParts {
    /// When the image is pulled.
    pub pull_policy: ImagePullPolicy,
    /// Names of the Secrets with which images are pulled.
    pub pull_secrets: Vec<String>,
    /// What the user states of requests and limits.
    pub resources: Resources,
    /// Labels of the user.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the user.
    pub annotations: BTreeMap<String, String>,
    /// Name of the priority class.
    pub priority_class: Option<String>,
}

impl PodParts {
    pub(super) fn of(spec: &ScriptRunnerSpec) -> Result<Self, Refusal> {
        check_image(spec)?;
        let is_shared = [spec.host_pid, spec.host_ipc, spec.host_network].contains(&Some(true));
        if spec.mode == Mode::Normal && is_shared {
            return invalid("hostPID, hostIPC and hostNetwork need a privileged mode");
        }
        let resources = spec.resources.clone().unwrap_or_default();
        check_resources("resources", &resources)?;
        let template = spec.pod_template.clone().unwrap_or_default();
        check_keys("labels", &template.labels, |key| {
            let is_ours = key.split_once('/').is_some_and(|(domain, _)| is_of(domain, OURS));
            is_ours.then(|| format!("labels of {OURS} are the operator's; choose another key"))
        })?;
        check_keys("annotations", &template.annotations, |key| {
            let is_refused =
                key != SAFE_TO_EVICT && NOT_IN_ANNOTATIONS.into_iter().any(|part| has_part(key, part));
            is_refused.then(|| NOT_IN_ANNOTATIONS_TEXT.to_owned())
        })?;
        Ok(Self {
            pull_policy: spec.image_pull_policy.unwrap_or_default(),
            pull_secrets: spec.image_pull_secrets.iter().map(|secret| secret.name.clone()).collect(),
            resources,
            labels: template.labels,
            annotations: template.annotations,
            priority_class: template.priority_class_name,
        })
    }
}

fn check_image(spec: &ScriptRunnerSpec) -> Result<(), Refusal> {
    let Some(image) = &spec.image else { return Ok(()) };
    let is_name = image.starts_with(|first: char| first.is_ascii_alphanumeric())
        && image.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_name {
        return invalid(format!("image {image:?} is no name of an image; correct it, or remove the field"));
    }
    let has_digest = image.rsplit_once("@sha256:").is_some_and(|(_, digest)| is_sha256(digest));
    if spec.mode.is_privileged() && !has_digest {
        return invalid(format!(
            "image {image:?}: a privileged mode needs the image by digest (name@sha256:...), so that admission sees what runs"
        ));
    }
    Ok(())
}

/// Requests and limits that no pod could have.
pub(super) fn check_resources(field: &str, resources: &Resources) -> Result<(), Refusal> {
    let Resources { requests, limits } = resources;
    for (kind, quantities) in [("requests", requests), ("limits", limits)] {
        if let Some((name, Quantity(quantity))) =
            quantities.iter().find(|(_, Quantity(text))| !is_quantity(text))
        {
            return invalid(format!(
                "{field}.{kind}: {name} is {quantity:?}, which is no quantity; write for example 500m or 1Gi"
            ));
        }
    }
    for (name, Quantity(request)) in requests {
        let Some(Quantity(limit)) = limits.get(name) else { continue };
        if let (Some(wanted), Some(most)) = (nanos(request), nanos(limit))
            && wanted > most
        {
            return invalid(format!(
                "{field}: the request of {name}, {request:?}, is above its limit {limit:?}; lower it or raise the limit"
            ));
        }
    }
    Ok(())
}

/// Whether the text is a quantity without a sign. One that is too large to compare is for the API server to judge.
pub(super) fn is_quantity(text: &str) -> bool {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let has_number = text[..end].bytes().any(|byte| byte.is_ascii_digit());
    nanos(text).is_some() || has_number && text.len() <= 32 && text[end..].starts_with(['e', 'E'])
}

/// Whether a domain is that one, or below it.
fn is_of(domain: &str, other: &str) -> bool {
    domain.strip_suffix(other).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether the text is in the key between dots and slashes, or begins or ends it.
fn has_part(key: &str, part: &str) -> bool {
    let is_edge = |beside: Option<char>| beside.is_none_or(|beside| ['.', '/'].contains(&beside));
    key.match_indices(part).any(|(at, _)| {
        is_edge(key[..at].chars().next_back()) && is_edge(key[at + part.len()..].chars().next())
    })
}

fn check_keys(
    field: &str,
    values: &BTreeMap<String, String>,
    refusal: impl Fn(&str) -> Option<String>,
) -> Result<(), Refusal> {
    for key in values.keys() {
        if let Some(why) = refusal(key) {
            return invalid(format!("podTemplate.{field}: {key:?}: {why}"));
        }
        let (prefix, name) = key.split_once('/').unwrap_or(("a", key));
        if !is_name(prefix, 253, b"-.") || !is_name(name, 63, b"-._") || prefix != prefix.to_ascii_lowercase()
        {
            return invalid(format!(
                "podTemplate.{field}: {key:?} is no key; write name or domain/name, the name of at most 63 letters, digits and -_."
            ));
        }
    }
    Ok(())
}

fn is_name(text: &str, most: usize, inner: &[u8]) -> bool {
    let is_edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= most
        && is_edge(text.bytes().next())
        && is_edge(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || inner.contains(&byte))
}
