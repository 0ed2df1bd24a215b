//! Every derived name: pods, the run's ConfigMap, short ids. Functions of UIDs and numbers only, so that a restarted
//! operator derives the same ones. Pure.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use scriptrunner_api::{digest::sha256_hex, v1alpha1::Mode};
use sha2::{Digest, Sha256};

/// Prefix of runner pods in mode Normal. Admission sees only the name of a pod that is entered, so the name tells the mode.
pub const NORMAL_POD_PREFIX: &str = "srn-";
/// Prefix of runner pods in a privileged mode.
pub const PRIVILEGED_POD_PREFIX: &str = "srp-";
/// Prefix of the ConfigMaps that runs are pinned in.
pub const CONFIG_MAP_PREFIX: &str = "srs-";

/// Name of the pod for an attempt of a run on a node, 28 characters.
pub fn pod_name(mode: Mode, uid: &str, node_uid: &str, run: u64, attempt: u32) -> String {
    let prefix = if mode.is_privileged() { PRIVILEGED_POD_PREFIX } else { NORMAL_POD_PREFIX };
    format!("{prefix}{}", suffix(&["pod", uid, node_uid, &run.to_string(), &attempt.to_string()]))
}

/// Name of the ConfigMap that a run is pinned in, 28 characters.
pub fn config_map_name(uid: &str, run: u64, spec_hash: &str) -> String {
    format!("{CONFIG_MAP_PREFIX}{}", suffix(&["configmap", uid, &run.to_string(), spec_hash]))
}

/// Short id of a UID as it stands in the status: base64url of the first 8 bytes of its SHA-256, 11 characters.
pub fn short_id(uid: &str) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(uid.as_bytes())[..8])
}

/// 96 bits of SHA-256 over the parts, each closed by NUL so that no two lists of parts read alike.
fn suffix(parts: &[&str]) -> String {
    let mut text = String::new();
    for part in parts {
        text.push_str(part);
        text.push('\0');
    }
    let mut digest = sha256_hex(text.as_bytes());
    digest.truncate(24);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_short() {
        let name = pod_name(Mode::Normal, "u", "n", 1, 1);
        assert_eq!(name, "srn-f21d916e873d9a57cdc433b9");
        assert_eq!(pod_name(Mode::PrivilegedWithHostFS, "u", "n", 1, 1).replace("srp-", "srn-"), name);
        assert_eq!(config_map_name("u", 1, "1:x").len(), 28);
        assert_eq!(short_id("u").len(), 11);
    }

    #[test]
    fn every_part_enters_the_name() {
        let base = pod_name(Mode::Normal, "u", "n", 1, 11);
        for other in [
            pod_name(Mode::Normal, "v", "n", 1, 11),
            pod_name(Mode::Normal, "u", "m", 1, 11),
            pod_name(Mode::Normal, "u", "n", 2, 11),
            pod_name(Mode::Normal, "u", "n", 11, 1),
        ] {
            assert_ne!(base, other);
        }
    }
}
