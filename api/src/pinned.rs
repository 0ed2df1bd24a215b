//! What a run is pinned to: the hashed part of a spec in canonical form, as it stands in the run's ConfigMap. Pure.

use serde::{Deserialize, Serialize};

use crate::{
    digest::sha256_hex,
    v1alpha1::{
        AccessMode, EnvFromSource, EnvVar, Mode, Placement, Repeat, RunAs, ScriptRunnerSpec, StopOn, Volume,
        VolumeMount,
    },
};

/// Number of the hash algorithm. A status with another number never triggers a run.
pub const HASH_ALGORITHM: &str = "1";

/// What a spec names and what it holds: the texts that are pinned beside the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inputs {
    /// The script.
    pub script: String,
    /// Certificate authorities that installers trust, in PEM.
    pub trusted_ca: Option<String>,
}

impl Inputs {
    /// The inputs of a spec that names no ConfigMap; none if it does.
    pub fn inline(spec: &ScriptRunnerSpec) -> Option<Self> {
        let names_ca =
            spec.dependencies.as_ref().is_some_and(|dependencies| dependencies.trusted_ca.is_some());
        match (&spec.script, &spec.script_from) {
            (Some(script), None) if !names_ca => Some(Self { script: script.clone(), trusted_ca: None }),
            (_, _) => None,
        }
    }
}

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
    /// See [`ScriptRunnerSpec::env_from`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from: Vec<EnvFromSource>,
    /// See [`crate::v1alpha1::Dependencies::pip`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pip: Vec<String>,
    /// See [`crate::v1alpha1::Dependencies::packages`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// See [`crate::v1alpha1::Dependencies::index_url`].
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "indexURL")]
    pub index_url: Option<String>,
    /// See [`crate::v1alpha1::Dependencies::extra_index_urls`].
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "extraIndexURLs")]
    pub extra_index_urls: Vec<String>,
    /// SHA-256 of the trusted certificate authorities; they stand beside this document.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "trustedCASHA256")]
    pub trusted_ca_sha256: Option<String>,
    /// See [`ScriptRunnerSpec::mode`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// See [`ScriptRunnerSpec::run_as`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub run_as: RunAs,
    /// See [`crate::v1alpha1::HostFileSystem::access_mode`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_access_mode: AccessMode,
    /// See [`ScriptRunnerSpec::host_pid`].
    #[serde(default, skip_serializing_if = "is_default", rename = "hostPID")]
    pub host_pid: bool,
    /// See [`ScriptRunnerSpec::host_network`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_network: bool,
    /// See [`ScriptRunnerSpec::host_ipc`].
    #[serde(default, skip_serializing_if = "is_default", rename = "hostIPC")]
    pub host_ipc: bool,
    /// See [`ScriptRunnerSpec::image`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// See [`crate::v1alpha1::PodTemplate::volumes`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// See [`crate::v1alpha1::PodTemplate::volume_mounts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// See [`crate::v1alpha1::PodTemplate::runtime_class_name`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
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
    /// The pinned part of a spec, with what it names.
    pub fn of(spec: &ScriptRunnerSpec, inputs: &Inputs) -> Self {
        let dependencies = spec.dependencies.clone().unwrap_or_default();
        let template = spec.pod_template.clone().unwrap_or_default();
        Self {
            script_sha256: sha256_hex(inputs.script.as_bytes()),
            interpreter: spec.interpreter.clone(),
            args: spec.args.clone(),
            env: spec.env.clone(),
            env_from: spec.env_from.clone(),
            pip: dependencies.pip,
            packages: dependencies.packages,
            index_url: dependencies.index_url,
            extra_index_urls: dependencies.extra_index_urls,
            trusted_ca_sha256: inputs.trusted_ca.as_ref().map(|text| sha256_hex(text.as_bytes())),
            mode: spec.mode,
            run_as: spec.run_as.unwrap_or_default(),
            host_access_mode: spec.host_file_system.as_ref().map(|host| host.access_mode).unwrap_or_default(),
            host_pid: spec.host_pid.unwrap_or_default(),
            host_network: spec.host_network.unwrap_or_default(),
            host_ipc: spec.host_ipc.unwrap_or_default(),
            image: spec.image.clone(),
            volumes: template.volumes,
            volume_mounts: template.volume_mounts,
            runtime_class_name: template.runtime_class_name,
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

    fn pinned(yaml: &str) -> PinnedSpec {
        let spec = spec(yaml);
        let inputs = Inputs::inline(&spec).unwrap_or_default();
        PinnedSpec::of(&spec, &inputs)
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
            assert_eq!(pinned(yaml).spec_hash(), hash, "{yaml}");
        }
    }

    #[test]
    fn defaults_written_out_change_no_hash() {
        let plain = "{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 5}}";
        let written = "{script: x, nodeNames: [a], mode: Normal, runAs: NonRoot, placement: Direct, dependencies: {}, historyLimit: 9, executionDeadlineSeconds: 9, execution: Stopped, repeat: {periodSeconds: 5, initialDelaySeconds: 0, stopOn: Never}, hostPID: false, hostNetwork: false, hostIPC: false, envFrom: [], podTemplate: {labels: {a: b}, annotations: {a: b}, priorityClassName: p, volumes: []}, imagePullPolicy: Always, imagePullSecrets: [{name: s}], resources: {limits: {cpu: 1}}, output: {groupBy: Result, keep: DigestOnly, truncation: Head}}";
        assert_eq!(pinned(plain).spec_hash(), pinned(written).spec_hash());
    }

    #[test]
    fn every_hashed_field_changes_the_hash() {
        let base = pinned("{script: x, nodeLabelSelector: {}}").spec_hash();
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
            "{script: x, nodeLabelSelector: {}, envFrom: [{secretRef: {name: a}}]}",
            "{script: x, nodeLabelSelector: {}, dependencies: {packages: [jq]}}",
            "{script: x, nodeLabelSelector: {}, dependencies: {indexURL: 'https://a'}}",
            "{script: x, nodeLabelSelector: {}, dependencies: {extraIndexURLs: ['https://a']}}",
            "{script: x, nodeLabelSelector: {}, hostPID: true}",
            "{script: x, nodeLabelSelector: {}, hostNetwork: true}",
            "{script: x, nodeLabelSelector: {}, hostIPC: true}",
            "{script: x, nodeLabelSelector: {}, image: a}",
            "{script: x, nodeLabelSelector: {}, podTemplate: {volumes: [{name: a, emptyDir: {}}]}}",
            "{script: x, nodeLabelSelector: {}, podTemplate: {volumeMounts: [{name: a, mountPath: /a}]}}",
            "{script: x, nodeLabelSelector: {}, podTemplate: {runtimeClassName: a}}",
            "{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 5}}",
        ] {
            assert_ne!(pinned(other).spec_hash(), base, "{other}");
        }
        let named = spec("{scriptFrom: {configMapKeyRef: {name: a, key: b}}, nodeLabelSelector: {}}");
        let inputs = Inputs { script: "x".to_owned(), trusted_ca: Some("ca".to_owned()) };
        assert_ne!(PinnedSpec::of(&named, &inputs).spec_hash(), base);
        // Where a script stands decides nothing: the same bytes are the same run.
        let inputs = Inputs { trusted_ca: None, ..inputs };
        assert_eq!(PinnedSpec::of(&named, &inputs).spec_hash(), base);
    }

    #[test]
    fn canonical_json_round_trips() {
        let pinned = pinned("{script: x, nodeLabelSelector: {}, args: [\"\\u0000\", 'é\"']}");
        assert_eq!(serde_json::from_str::<PinnedSpec>(&pinned.canonical_json()).unwrap(), pinned);
    }
}
