//! The runner's container. Pure.

use k8s_openapi::api::core::v1::Container;
use scriptrunner_api::labels;

use super::{
    PodSettings, Target, arguments::arguments, environment::environment, resources::resources,
    security::container_security, volumes::mounts,
};
use crate::validate::ValidRun;

pub(super) fn container(valid: &ValidRun, target: &Target, settings: &PodSettings) -> Container {
    Container {
        name: labels::CONTAINER.to_owned(),
        image: Some(settings.runner_image.clone()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        args: Some(arguments(valid, target, settings)),
        working_dir: Some(labels::WORK_DIR.to_owned()),
        env: (!valid.pinned.env.is_empty()).then(|| valid.pinned.env.iter().map(environment).collect()),
        resources: resources(settings),
        security_context: Some(container_security(valid)),
        volume_mounts: Some(mounts(valid, settings)),
        termination_message_path: Some(labels::TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("File".to_owned()),
        ..Container::default()
    }
}
