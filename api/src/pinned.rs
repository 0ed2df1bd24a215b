//! What a run is pinned to: the hashed part of a spec in canonical form, as it stands in the run's ConfigMap. Pure.

use serde::{Deserialize, Serialize};

use crate::{
    digest::sha256_hex,
    v1alpha1::{AccessMode, EnvVar, Mode, Placement, Repeat, RunAs, ScriptRunnerSpec, StopOn},
};

/// Number of the hash algorithm. A status with another number never triggers a run.
pub const HASH_ALGORITHM: &str = "1";

/// Everything that decides *what* runs. Unset and default-valued fields are left out of its JSON, so that a new field with
/// a default changes no hash. The runner image and operator flags never enter.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PinnedSpec {
    /// SHA-256 of the script; the script itself stands beside this document.
    pub script_sha256: String,
    /// See [`ScriptRunnerSpec::interpreter`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<Vec<String>>,
    /// See [`ScriptRunnerSpec::args`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// See [`ScriptRunnerSpec::env`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// See [`crate::v1alpha1::Dependencies::pip`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pip: Vec<String>,
    /// See [`ScriptRunnerSpec::mode`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// See [`ScriptRunnerSpec::run_as`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub run_as: RunAs,
    /// See [`crate::v1alpha1::HostFileSystem::access_mode`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_access_mode: AccessMode,
    /// See [`ScriptRunnerSpec::placement`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: Placement,
    /// See [`ScriptRunnerSpec::repeat`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<PinnedRepeat>,
}

/// See [`Repeat`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PinnedRepeat {
    /// See [`Repeat::count`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// See [`Repeat::period_seconds`].
    pub period_seconds: u32,
    /// See [`Repeat::initial_delay_seconds`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub initial_delay_seconds: u32,
    /// See [`Repeat::stop_on`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop_on: StopOn,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl PinnedSpec {
    /// The pinned part of a spec.
    pub fn of(spec: &ScriptRunnerSpec) -> Self {
        Self {
            script_sha256: sha256_hex(spec.script.as_bytes()),
            interpreter: spec.interpreter.clone(),
            args: spec.args.clone(),
            env: spec.env.clone(),
            pip: spec.dependencies.as_ref().map(|dependencies| dependencies.pip.clone()).unwrap_or_default(),
            mode: spec.mode,
            run_as: spec.run_as.unwrap_or_default(),
            host_access_mode: spec.host_file_system.as_ref().map(|host| host.access_mode).unwrap_or_default(),
            placement: spec.placement.unwrap_or_default(),
            repeat: spec.repeat.as_ref().map(PinnedRepeat::of),
        }
    }

    /// The canonical JSON: keys sorted, no white space.
    pub fn canonical_json(&self) -> String {
        // Through `Value`, whose maps are sorted, so that the order of fields here decides nothing.
        serde_json::to_value(self).map(|value| value.to_string()).expect("plain data should serialise")
    }

    /// `1:` and the SHA-256 of the canonical JSON.
    pub fn spec_hash(&self) -> String {
        format!("{HASH_ALGORITHM}:{}", sha256_hex(self.canonical_json().as_bytes()))
    }

    /// What a runner cannot take over from one run to the next: all but script and args.
    #[must_use]
    pub fn without_script(&self) -> Self {
        Self { script_sha256: String::new(), args: Vec::new(), ..self.clone() }
    }

    /// Executions that the run makes on each node; none is endless.
    pub fn executions(&self) -> Option<u64> {
        match &self.repeat {
            None => Some(1),
            Some(repeat) => repeat.count.map(u64::from),
        }
    }
}

impl PinnedRepeat {
    fn of(repeat: &Repeat) -> Self {
        Self {
            count: repeat.count,
            period_seconds: repeat.period_seconds,
            initial_delay_seconds: repeat.initial_delay_seconds.unwrap_or_default(),
            stop_on: repeat.stop_on.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> ScriptRunnerSpec {
        serde_saphyr::from_str(yaml).unwrap()
    }

    /// The corpus only grows: a changed line here would run every script of every user again.
    #[test]
    fn golden_hashes_never_change() {
        for (yaml, hash) in [
            (
                "{script: x, nodeLabelSelector: {}}",
                "1:919b72b137364a4231e0f2e8098bce91e892096d62c19aa3c4eddde0b9e89983",
            ),
            (
                "{script: x, nodeNames: [a], mode: PrivilegedWithHostFS, hostFileSystem: {accessMode: ReadOnly}, repeat: {periodSeconds: 5, count: 2}, args: [a], env: [{name: A, value: b}], dependencies: {pip: [six]}, interpreter: [sh]}",
                "1:6817193bab60001e708760c8c72006fbd91e0e1fb74c2992822cbf19c08c10c2",
            ),
        ] {
            assert_eq!(PinnedSpec::of(&spec(yaml)).spec_hash(), hash, "{yaml}");
        }
    }

    #[test]
    fn defaults_written_out_change_no_hash() {
        let plain = spec("{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 5}}");
        let written = spec(
            "{script: x, nodeNames: [a], mode: Normal, runAs: NonRoot, placement: Direct, dependencies: {}, historyLimit: 9, executionDeadlineSeconds: 9, execution: Stopped, repeat: {periodSeconds: 5, initialDelaySeconds: 0, stopOn: Never}}",
        );
        assert_eq!(PinnedSpec::of(&plain).spec_hash(), PinnedSpec::of(&written).spec_hash());
    }

    #[test]
    fn every_hashed_field_changes_the_hash() {
        let base = PinnedSpec::of(&spec("{script: x, nodeLabelSelector: {}}")).spec_hash();
        for other in [
            "{script: y, nodeLabelSelector: {}}",
            "{script: x, nodeLabelSelector: {}, interpreter: [sh]}",
            "{script: x, nodeLabelSelector: {}, args: [a]}",
            "{script: x, nodeLabelSelector: {}, env: [{name: A}]}",
            "{script: x, nodeLabelSelector: {}, dependencies: {pip: [six]}}",
            "{script: x, nodeLabelSelector: {}, mode: Privileged}",
            "{script: x, nodeLabelSelector: {}, runAs: Root}",
            "{script: x, nodeLabelSelector: {}, hostFileSystem: {accessMode: ReadOnly}}",
            "{script: x, nodeLabelSelector: {}, placement: Scheduler}",
            "{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 5}}",
        ] {
            assert_ne!(PinnedSpec::of(&spec(other)).spec_hash(), base, "{other}");
        }
    }

    #[test]
    fn canonical_json_round_trips() {
        let pinned = PinnedSpec::of(&spec("{script: x, nodeLabelSelector: {}, args: [\"\\u0000\", 'é\"']}"));
        assert_eq!(serde_json::from_str::<PinnedSpec>(&pinned.canonical_json()).unwrap(), pinned);
    }
}
