//! What the container sees of files, and where. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use scriptrunner_api::{
    labels,
    session::AUDIENCE,
    v1alpha1::{AccessMode, Mode},
};

use super::PodSettings;
use crate::validate::ValidRun;

pub(super) fn mounts(valid: &ValidRun, settings: &PodSettings) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    };
    let mut mounts = vec![
        VolumeMount { read_only: Some(true), ..mount("input", labels::INPUT_DIR) },
        mount("work", labels::WORK_DIR),
        mount("state", labels::STATE_DIR),
        mount("tmp", "/tmp"),
    ];
    if settings.session.is_some() {
        mounts.push(VolumeMount { read_only: Some(true), ..mount("token", labels::TOKEN_DIR) });
    }
    if valid.pinned.mode == Mode::PrivilegedWithHostFS {
        let host = mount("host", labels::HOST_ROOT);
        mounts.push(match valid.pinned.host_access_mode {
            // Mounts that the node makes later appear, so that the script sees the node as it is.
            AccessMode::ReadWrite => {
                VolumeMount { mount_propagation: Some("HostToContainer".to_owned()), ..host }
            }
            // Enabled, not IfPossible: a runtime that cannot do it refuses the pod rather than leave submounts writable.
            AccessMode::ReadOnly => {
                VolumeMount { read_only: Some(true), recursive_read_only: Some("Enabled".to_owned()), ..host }
            }
        });
    }
    mounts
}

pub(super) fn volumes(mode: Mode, config_map: String, settings: &PodSettings) -> Vec<Volume> {
    let empty_dir = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let mut volumes = vec![
        Volume {
            name: "input".to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: config_map, ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
        empty_dir("work"),
        empty_dir("state"),
        empty_dir("tmp"),
    ];
    if settings.session.is_some() {
        volumes.push(token(settings.token_lifetime_seconds));
    }
    if mode == Mode::PrivilegedWithHostFS {
        volumes.push(Volume {
            name: "host".to_owned(),
            host_path: Some(HostPathVolumeSource { path: "/".to_owned(), type_: None }),
            ..Volume::default()
        });
    }
    volumes
}

/// A token that says which pod it is, for the operator and for nobody else: the API server refuses its audience.
fn token(lifetime_seconds: u32) -> Volume {
    let projection = ServiceAccountTokenProjection {
        audience: Some(AUDIENCE.to_owned()),
        expiration_seconds: Some(i64::from(lifetime_seconds)),
        path: labels::TOKEN_FILE.to_owned(),
    };
    Volume {
        name: "token".to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(projection),
                ..VolumeProjection::default()
            }]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}
