//! The runner's container, and the one that puts the runner beside an image of the user's. Pure.

use k8s_openapi::api::core::v1::Container;
use scriptrunner_api::labels;

use super::{
    PodSettings, Target,
    arguments::arguments,
    environment::{environment, environment_from},
    resources::resources,
    security::container_security,
    volumes::{mounts, runner_mount},
};
use crate::validate::ValidRun;

/// The container of runner and script.
pub(super) fn container(valid: &ValidRun, target: &Target, settings: &PodSettings) -> Container {
    let pinned = &valid.pinned;
    Container {
        name: labels::CONTAINER.to_owned(),
        image: Some(pinned.image.clone().unwrap_or_else(|| settings.runner_image.clone())),
        image_pull_policy: Some(valid.parts.pull_policy.as_str().to_owned()),
        command: pinned
            .image
            .is_some()
            .then(|| vec![format!("{}/{}", labels::RUNNER_DIR, labels::RUNNER_FILE)]),
        args: Some(arguments(valid, target, settings)),
        working_dir: Some(labels::WORK_DIR.to_owned()),
        env: (!pinned.env.is_empty()).then(|| pinned.env.iter().map(environment).collect()),
        env_from: (!pinned.env_from.is_empty())
            .then(|| pinned.env_from.iter().map(environment_from).collect()),
        resources: resources(valid, settings),
        security_context: Some(container_security(valid)),
        volume_mounts: Some(mounts(valid, settings)),
        termination_message_path: Some(labels::TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    }
}

/// The container that copies the runner into the pod before the user's image starts. It has what the runner's container has, so that
/// it adds nothing to what the pod takes of its node.
pub(super) fn init_container(valid: &ValidRun, settings: &PodSettings) -> Container {
    Container {
        name: labels::INIT_CONTAINER.to_owned(),
        image: Some(settings.runner_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(["copy-runner", "--to", labels::RUNNER_DIR].map(ToOwned::to_owned).to_vec()),
        resources: resources(valid, settings),
        security_context: Some(container_security(valid)),
        volume_mounts: Some(vec![runner_mount(false)]),
        termination_message_path: Some(labels::TERMINATION_LOG.to_owned()),
        // What it says when it fails is all that anybody hears of it.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}
