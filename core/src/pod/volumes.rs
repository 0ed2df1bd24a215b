//! What the container sees of files, and where. Pure.
//!
//! Names of our volumes start with `scriptrunner-`, which no name of a user's does.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use scriptrunner_api::{
    labels,
    session::AUDIENCE,
    v1alpha1::{AccessMode, Mode},
};

use super::{
    PodSettings,
    user_volumes::{user_mount, user_volume},
};
use crate::validate::ValidRun;

const INPUT: &str = "scriptrunner-input";
const WORK: &str = "scriptrunner-work";
const STATE: &str = "scriptrunner-state";
const TMP: &str = "scriptrunner-tmp";
const TOKEN: &str = "scriptrunner-token";
const HOST: &str = "scriptrunner-host";
const BIN: &str = "scriptrunner-bin";

pub(super) fn mounts(valid: &ValidRun, settings: &PodSettings) -> Vec<VolumeMount> {
    let mut mounts = vec![
        VolumeMount { read_only: Some(true), ..mount(INPUT, labels::INPUT_DIR) },
        mount(WORK, labels::WORK_DIR),
        mount(STATE, labels::STATE_DIR),
        mount(TMP, "/tmp"),
    ];
    if valid.pinned.image.is_some() {
        mounts.push(runner_mount(true));
    }
    if settings.session.is_some() {
        mounts.push(VolumeMount { read_only: Some(true), ..mount(TOKEN, labels::TOKEN_DIR) });
    }
    if valid.pinned.mode == Mode::PrivilegedWithHostFS {
        let host = mount(HOST, labels::HOST_ROOT);
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
    mounts.extend(valid.pinned.volume_mounts.iter().map(user_mount));
    mounts
}

/// Where the runner lies that is copied beside an image of the user's. The script must not be able to change it.
pub(super) fn runner_mount(read_only: bool) -> VolumeMount {
    VolumeMount { read_only: read_only.then_some(true), ..mount(BIN, labels::RUNNER_DIR) }
}

pub(super) fn volumes(valid: &ValidRun, config_map: String, settings: &PodSettings) -> Vec<Volume> {
    let empty_dir = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let mut volumes = vec![
        Volume {
            name: INPUT.to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: config_map, ..ConfigMapVolumeSource::default() }),
            ..Volume::default()
        },
        empty_dir(WORK),
        empty_dir(STATE),
        empty_dir(TMP),
    ];
    if valid.pinned.image.is_some() {
        volumes.push(empty_dir(BIN));
    }
    if settings.session.is_some() {
        volumes.push(token(settings.times.token_lifetime_seconds));
    }
    if valid.pinned.mode == Mode::PrivilegedWithHostFS {
        volumes.push(Volume {
            name: HOST.to_owned(),
            host_path: Some(HostPathVolumeSource { path: "/".to_owned(), type_: None }),
            ..Volume::default()
        });
    }
    volumes.extend(valid.pinned.volumes.iter().map(user_volume));
    volumes
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

/// A token that says which pod it is, for the operator and for nobody else: the API server refuses its audience.
fn token(lifetime_seconds: u32) -> Volume {
    let projection = ServiceAccountTokenProjection {
        audience: Some(AUDIENCE.to_owned()),
        expiration_seconds: Some(i64::from(lifetime_seconds)),
        path: labels::TOKEN_FILE.to_owned(),
    };
    Volume {
        name: TOKEN.to_owned(),
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
