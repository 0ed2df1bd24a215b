//! Rules of the user's volumes and mounts: they reach nothing but the namespace and cover nothing of the runner's. Pure.

use scriptrunner_api::v1alpha1::{KeyToPath, Mode, ScriptRunnerSpec, Volume, VolumeMount};

use super::{
    Refusal, invalid,
    pod_parts::{check_resources, is_quantity},
};

/// Names of the operator's own volumes start with this.
const OURS: &str = "scriptrunner-";
/// Folders that no volume is mounted at or below.
const CLOSED: [&str; 5] = ["/scriptrunner", "/host", "/dev", "/proc", "/sys"];

pub(super) fn check(spec: &ScriptRunnerSpec) -> Result<(), Refusal> {
    let Some(template) = &spec.pod_template else { return Ok(()) };
    for (index, volume) in template.volumes.iter().enumerate() {
        check_volume(volume, spec.mode)?;
        if template.volumes[..index].iter().any(|other| other.name == volume.name) {
            return invalid(format!("podTemplate.volumes: two have the name {:?}; rename one", volume.name));
        }
    }
    for (index, mount) in template.volume_mounts.iter().enumerate() {
        check_mount(mount)?;
        if !template.volumes.iter().any(|volume| volume.name == mount.name) {
            return invalid(format!(
                "podTemplate.volumeMounts: there is no volume {:?} in podTemplate.volumes; add the volume or correct the name",
                mount.name
            ));
        }
        if template.volume_mounts[..index].iter().any(|other| other.mount_path == mount.mount_path) {
            return invalid(format!(
                "podTemplate.volumeMounts: two have the mountPath {:?}; change one",
                mount.mount_path
            ));
        }
    }
    Ok(())
}

fn check_volume(volume: &Volume, mode: Mode) -> Result<(), Refusal> {
    let Volume { name, config_map, secret, empty_dir, persistent_volume_claim, ephemeral } = volume;
    let is_inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let is_name = (1..=63).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !is_name {
        return invalid(format!(
            "volume {name:?}: a name has lower-case letters, digits and '-', at most 63 characters"
        ));
    }
    if name.starts_with(OURS) {
        return invalid(format!(
            "volume {name:?}: names that start with {OURS} are the operator's; choose another name"
        ));
    }
    let kinds = [
        config_map.is_some(),
        secret.is_some(),
        empty_dir.is_some(),
        persistent_volume_claim.is_some(),
        ephemeral.is_some(),
    ];
    if kinds.into_iter().filter(|is_given| *is_given).count() != 1 {
        return invalid(format!(
            "volume {name:?}: give exactly one of configMap, secret, emptyDir, persistentVolumeClaim, ephemeral; other kinds of volumes cannot be used"
        ));
    }
    if config_map.is_some() && mode.is_privileged() {
        return invalid(format!(
            "volume {name:?}: a volume of a ConfigMap is for mode Normal only, because whoever edits the ConfigMap would decide what a privileged script reads"
        ));
    }
    let config_map = config_map.iter().map(|volume| (volume.default_mode, &volume.items));
    let secret = secret.iter().map(|volume| (volume.default_mode, &volume.items));
    for (default_mode, items) in config_map.chain(secret) {
        check_files(name, default_mode, items)?;
    }
    let size = empty_dir.iter().find_map(|empty| empty.size_limit.as_ref());
    if let Some(size) = size.filter(|size| !is_quantity(&size.0)) {
        return invalid(format!(
            "volume {name:?}: sizeLimit is {:?}, which is no quantity; write for example 1Gi",
            size.0
        ));
    }
    match ephemeral {
        Some(ephemeral) => {
            let claim = &ephemeral.volume_claim_template.spec;
            check_resources(&format!("volume {name:?}: resources"), &claim.resources)
        }
        None => Ok(()),
    }
}

fn check_files(volume: &str, default_mode: Option<i32>, items: &[KeyToPath]) -> Result<(), Refusal> {
    let modes = items.iter().map(|item| item.mode).chain([default_mode]);
    if let Some(mode) = modes.flatten().find(|mode| !(0..=0o777).contains(mode)) {
        return invalid(format!(
            "volume {volume:?}: a mode is {mode}, it must be from 0 to 511 (octal 0777)"
        ));
    }
    if let Some(item) = items.iter().find(|item| !is_relative(&item.path)) {
        return invalid(format!(
            "volume {volume:?}: path {:?}: the path of an item is relative and has no ..",
            item.path
        ));
    }
    Ok(())
}

fn is_relative(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != "..")
}

fn check_mount(mount: &VolumeMount) -> Result<(), Refusal> {
    let VolumeMount { name: _, mount_path, read_only: _, sub_path } = mount;
    let is_path = mount_path.strip_prefix('/').is_some_and(|rest| {
        !rest.contains([':', '\n'])
            && rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    });
    if !is_path {
        return invalid(format!(
            "mountPath {mount_path:?} must be an absolute path other than /, without . and .., and without : and //"
        ));
    }
    let is_at_or_below = |folder: &&str| {
        mount_path.strip_prefix(*folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if CLOSED.iter().any(is_at_or_below) || mount_path == "/tmp" {
        return invalid(format!(
            "mountPath {mount_path:?}: /scriptrunner, /host, /dev, /proc, /sys and /tmp are the runner's own; mount the volume elsewhere"
        ));
    }
    if let Some(path) = sub_path.as_ref().filter(|path| !is_relative(path)) {
        return invalid(format!("subPath {path:?} must be relative and have no .."));
    }
    Ok(())
}
