//! Names, labels and annotations of a run's children. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use scriptrunner_api::{GROUP, VERSION, labels, v1alpha1::Mode};

use super::{FAILURES_BEFORE, LONGEST_SECONDS, Target, longest_seconds};
use crate::{names::pod_name, observed::ObjectFacts, validate::ValidRun};

pub(super) fn child_metadata(object: &ObjectFacts, mode: Mode, run: u64) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(object.namespace.clone()),
        labels: Some(BTreeMap::from([
            (labels::UID.to_owned(), object.uid.clone()),
            (labels::MODE.to_owned(), mode.as_str().to_owned()),
            (labels::RUN.to_owned(), run.to_string()),
        ])),
        annotations: Some(BTreeMap::from([(labels::NAME.to_owned(), object.name.clone())])),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{GROUP}/{VERSION}"),
            kind: "ScriptRunner".to_owned(),
            name: object.name.clone(),
            uid: object.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

pub(super) fn pod_metadata(object: &ObjectFacts, valid: &ValidRun, target: &Target) -> ObjectMeta {
    let mode = valid.pinned.mode;
    let mut metadata = child_metadata(object, mode, target.run);
    metadata.name = Some(pod_name(mode, &object.uid, &target.node_uid, target.run, target.attempt));
    let pod_labels = metadata.labels.get_or_insert_default();
    let annotations = metadata.annotations.get_or_insert_default();
    pod_labels.insert(labels::ATTEMPT.to_owned(), target.attempt.to_string());
    pod_labels.insert(labels::NODE_UID.to_owned(), target.node_uid.clone());
    // A mesh's sidecar would outlive the script, and keep the pod from ending.
    pod_labels.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    annotations.insert(labels::NODE.to_owned(), target.node.clone());
    annotations.insert(FAILURES_BEFORE.to_owned(), target.failures_before.to_string());
    if let Some(longest) = longest_seconds(valid, target.first_serial, target.remaining) {
        annotations.insert(LONGEST_SECONDS.to_owned(), longest.to_string());
    }
    if let Some(shape) = &target.shape {
        annotations.insert(labels::SHAPE.to_owned(), shape.clone());
    }
    annotations.insert("linkerd.io/inject".to_owned(), "disabled".to_owned());
    for (key, value) in &valid.parts.labels {
        pod_labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    for (key, value) in &valid.parts.annotations {
        annotations.entry(key.clone()).or_insert_with(|| value.clone());
    }
    annotations.entry(labels::SAFE_TO_EVICT.to_owned()).or_insert_with(|| "true".to_owned());
    metadata
}
