//! The user's volumes and mounts, as they stand in the pod. What means the same as nothing is left out, as the API server does. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, EphemeralVolumeSource, KeyToPath, PersistentVolumeClaimSpec,
    PersistentVolumeClaimTemplate, PersistentVolumeClaimVolumeSource, SecretVolumeSource, Volume,
    VolumeMount, VolumeResourceRequirements,
};
use scriptrunner_api::v1alpha1;

pub(super) fn user_mount(wanted: &v1alpha1::VolumeMount) -> VolumeMount {
    let v1alpha1::VolumeMount { name, mount_path, read_only, sub_path } = wanted;
    VolumeMount {
        name: name.clone(),
        mount_path: mount_path.clone(),
        read_only: read_only.filter(|read_only| *read_only),
        sub_path: sub_path.clone(),
        ..VolumeMount::default()
    }
}

pub(super) fn user_volume(wanted: &v1alpha1::Volume) -> Volume {
    let v1alpha1::Volume { name, config_map, secret, empty_dir, persistent_volume_claim, ephemeral } = wanted;
    Volume {
        name: name.clone(),
        config_map: config_map.as_ref().map(config_map_volume),
        secret: secret.as_ref().map(secret_volume),
        empty_dir: empty_dir.as_ref().map(empty_dir_volume),
        persistent_volume_claim: persistent_volume_claim.as_ref().map(claim_volume),
        ephemeral: ephemeral.as_ref().map(ephemeral_volume),
        ..Volume::default()
    }
}

fn config_map_volume(wanted: &v1alpha1::ConfigMapVolume) -> ConfigMapVolumeSource {
    let v1alpha1::ConfigMapVolume { name, items, default_mode, optional } = wanted;
    ConfigMapVolumeSource {
        name: name.clone(),
        items: files(items),
        default_mode: *default_mode,
        optional: *optional,
    }
}

fn secret_volume(wanted: &v1alpha1::SecretVolume) -> SecretVolumeSource {
    let v1alpha1::SecretVolume { secret_name, items, default_mode, optional } = wanted;
    SecretVolumeSource {
        secret_name: Some(secret_name.clone()),
        items: files(items),
        default_mode: *default_mode,
        optional: *optional,
    }
}

fn files(items: &[v1alpha1::KeyToPath]) -> Option<Vec<KeyToPath>> {
    let file = |item: &v1alpha1::KeyToPath| {
        let v1alpha1::KeyToPath { key, path, mode } = item.clone();
        KeyToPath { key, path, mode }
    };
    (!items.is_empty()).then(|| items.iter().map(file).collect())
}

fn empty_dir_volume(wanted: &v1alpha1::EmptyDirVolume) -> EmptyDirVolumeSource {
    let v1alpha1::EmptyDirVolume { medium, size_limit } = wanted;
    EmptyDirVolumeSource {
        medium: medium.map(|medium| match medium {
            v1alpha1::EmptyDirMedium::Memory => "Memory".to_owned(),
        }),
        size_limit: size_limit.clone(),
    }
}

fn claim_volume(wanted: &v1alpha1::ClaimVolume) -> PersistentVolumeClaimVolumeSource {
    let v1alpha1::ClaimVolume { claim_name, read_only } = wanted;
    PersistentVolumeClaimVolumeSource {
        claim_name: claim_name.clone(),
        read_only: read_only.filter(|read_only| *read_only),
    }
}

fn ephemeral_volume(wanted: &v1alpha1::EphemeralVolume) -> EphemeralVolumeSource {
    let v1alpha1::ClaimSpec { access_modes, storage_class_name, resources } =
        &wanted.volume_claim_template.spec;
    let v1alpha1::Resources { requests, limits } = resources;
    let spec = PersistentVolumeClaimSpec {
        access_modes: Some(access_modes.iter().map(|mode| mode.as_str().to_owned()).collect()),
        storage_class_name: storage_class_name.clone(),
        resources: Some(VolumeResourceRequirements {
            requests: (!requests.is_empty()).then(|| requests.clone()),
            limits: (!limits.is_empty()).then(|| limits.clone()),
        }),
        ..PersistentVolumeClaimSpec::default()
    };
    EphemeralVolumeSource {
        volume_claim_template: Some(PersistentVolumeClaimTemplate { metadata: None, spec }),
    }
}
