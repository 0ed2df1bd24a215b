//! From a spec as stored to one that cannot be wrong. The API server checks most of this too; an object may be older than
//! the rule, so everything that later steps rely on is checked here again. Pure.

pub(crate) mod attempts;
pub mod images;
mod inputs;
mod pod_parts;
pub mod sources;
pub(crate) mod targets;
mod volumes;

use scriptrunner_api::{
    digest::sha256_hex,
    labels,
    pinned::{Inputs, PinnedSpec},
    reason::ConditionReason,
    v1alpha1::{
        DEFAULT_HISTORY_LIMIT, DEFAULT_INSTALL_TIMEOUT_SECONDS, DEFAULT_OUTPUT_LIMIT_BYTES,
        DEFAULT_POD_START_DEADLINE_SECONDS, DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS, DesiredExecution, Keep,
        MAX_INSTALL_TIMEOUT_SECONDS, MAX_RUNNER_IDLE_SECONDS, MAX_SCRIPT_BYTES, Mode, OutputTruncation,
        Placement, PodCleanupPolicy, ScriptRunnerSpec, UpdatePolicy,
    },
};

pub use self::{
    attempts::{Attempts, ValidExitCodes, ValidRerun},
    images::AllowedImages,
    pod_parts::PodParts,
    sources::{Source, Sources},
    targets::{Matching, NodeCount, Targets},
};

/// A spec with every default resolved and every rule checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidRun {
    /// What runs.
    pub pinned: PinnedSpec,
    /// Digest of what runs.
    pub spec_hash: String,
    /// What it is pinned to beside the spec.
    pub inputs: Inputs,
    /// Where it runs.
    pub targets: Targets,
    /// What pods are made of beside what runs.
    pub parts: PodParts,
    /// How long things may take and how much is kept.
    pub limits: Limits,
    /// How many nodes may be busy at once; none is all.
    pub parallelism: Option<NodeCount>,
    /// How many nodes may fail or become unknown before nothing more is started; none is all.
    pub max_failures: Option<NodeCount>,
    /// Whether the run goes on.
    pub execution: DesiredExecution,
    /// What is tried again, and for how long.
    pub attempts: Attempts,
    /// What runs the script again without an edit.
    pub rerun: Option<ValidRerun>,
    /// What an edit of what runs does.
    pub updates: UpdatePolicy,
    /// How many seconds after its end the object is deleted; none is never.
    pub ttl_seconds: Option<u32>,
    /// Which ended pods are deleted.
    pub cleanup: PodCleanupPolicy,
}

impl ValidRun {
    /// The same spec, but for what runs: that is what an older spec said.
    #[must_use]
    pub fn pinned_to(&self, pinned: &Pinned) -> Self {
        Self {
            spec_hash: pinned.spec.spec_hash(),
            pinned: pinned.spec.clone(),
            inputs: pinned.inputs.clone(),
            ..self.clone()
        }
    }

    /// Whether its pods go through the scheduler from the start. Only the scheduler finds a node's part of a claim.
    pub fn is_by_scheduler(&self) -> bool {
        self.pinned.placement == Placement::Scheduler
            || self
                .pinned
                .volumes
                .iter()
                .any(|volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some())
    }

    /// Whether anything is installed before the script runs.
    pub fn installs(&self) -> bool {
        let has_inline_metadata = || self.inputs.script.lines().any(|line| line.starts_with("# /// script"));
        !self.pinned.pip.is_empty() || !self.pinned.packages.is_empty() || has_inline_metadata()
    }
}

/// What a run is pinned to, as its ConfigMap has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pinned {
    /// What runs.
    pub spec: PinnedSpec,
    /// The texts beside it.
    pub inputs: Inputs,
}

impl Pinned {
    /// Reads what a ConfigMap holds; none if that is not what has this hash.
    pub fn read(spec: &str, script: &str, trusted_ca: Option<&str>, spec_hash: &str) -> Option<Self> {
        let pinned: PinnedSpec = serde_json::from_str(spec).ok()?;
        let is_whole = pinned.spec_hash() == spec_hash
            && sha256_hex(script.as_bytes()) == pinned.script_sha256
            && trusted_ca.map(|text| sha256_hex(text.as_bytes())) == pinned.trusted_ca_sha256;
        let inputs = Inputs { script: script.to_owned(), trusted_ca: trusted_ca.map(ToOwned::to_owned) };
        is_whole.then_some(Self { spec: pinned, inputs })
    }
}

/// How long things may take and how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Limit of one execution; none is no limit.
    pub execution_deadline_seconds: Option<u32>,
    /// Between SIGTERM and SIGKILL.
    pub grace_seconds: u32,
    /// Until a pod's runner has started and a node is Ready.
    pub start_deadline_seconds: u32,
    /// How long a runner that has finished stays for a further run.
    pub idle_seconds: u32,
    /// Executions kept per node.
    pub history: u32,
    /// Bytes of stdout kept per execution.
    pub stdout_bytes: u32,
    /// Bytes of stderr kept per execution.
    pub stderr_bytes: u32,
    /// Which part of an output that is longer is kept.
    pub truncation: OutputTruncation,
    /// How long all installing in a pod may take.
    pub install_seconds: u32,
}

/// Why a spec is not run: the user's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the condition `Accepted`.
    pub reason: ConditionReason,
    /// What is wrong and what to do.
    pub message: String,
}

impl Refusal {
    /// Whether what stands against the spec is only what the ConfigMaps hold that it names.
    pub fn is_of_inputs(&self) -> bool {
        [ConditionReason::InputMissing, ConditionReason::InputInvalid, ConditionReason::InputChanged]
            .contains(&self.reason)
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { reason: ConditionReason::SpecInvalid, message: message.into() })
}

/// Resolves and checks a spec, with what was found of the ConfigMaps that it names.
pub fn validate(spec: &ScriptRunnerSpec, sources: &Sources) -> Result<ValidRun, Refusal> {
    check_script(spec)?;
    check_mode(spec)?;
    check_pace(spec)?;
    inputs::check(spec)?;
    volumes::check(spec)?;
    let inputs = sources::inputs(spec, sources)?;
    let pinned = PinnedSpec::of(spec, &inputs);
    Ok(ValidRun {
        spec_hash: pinned.spec_hash(),
        pinned,
        inputs,
        targets: Targets::of(spec)?,
        parts: PodParts::of(spec)?,
        limits: limits(spec)?,
        parallelism: NodeCount::of("parallelism", spec.parallelism.as_ref(), 1)?,
        max_failures: NodeCount::of("maxFailures", spec.max_failures.as_ref(), 0)?,
        execution: spec.execution.unwrap_or_default(),
        attempts: Attempts::of(spec)?,
        rerun: ValidRerun::of(spec)?,
        updates: spec.update_policy.unwrap_or_default(),
        ttl_seconds: attempts::time_to_live(spec)?,
        cleanup: spec.pod_cleanup_policy.unwrap_or_default(),
    })
}

/// Hash of what runs by a spec; none if what it names cannot be used.
pub fn spec_hash(spec: &ScriptRunnerSpec, sources: &Sources) -> Option<String> {
    let inputs = sources::inputs(spec, sources).ok()?;
    Some(PinnedSpec::of(spec, &inputs).spec_hash())
}

fn check_script(spec: &ScriptRunnerSpec) -> Result<(), Refusal> {
    let script = spec.script.as_deref();
    if script.is_some_and(str::is_empty) {
        return invalid("script is empty; write the script into spec.script");
    }
    if let Some(script) = script.filter(|script| script.len() > MAX_SCRIPT_BYTES) {
        return invalid(format!("script has {} bytes, at most {MAX_SCRIPT_BYTES} are allowed", script.len()));
    }
    if let Some(name) =
        spec.env.iter().map(|variable| &variable.name).find(|name| name.starts_with(labels::ENV_PREFIX))
    {
        return invalid(format!(
            "env {name:?}: names that start with {} are set by the runner",
            labels::ENV_PREFIX
        ));
    }
    if spec.interpreter.as_ref().is_some_and(|interpreter| interpreter.first().is_none_or(String::is_empty)) {
        return invalid("interpreter is empty; name a program or remove the field");
    }
    Ok(())
}

fn check_mode(spec: &ScriptRunnerSpec) -> Result<(), Refusal> {
    if spec.mode != Mode::Normal && spec.run_as.is_some() {
        return invalid("runAs is for mode Normal only");
    }
    if spec.mode != Mode::Normal && spec.runner_idle_seconds.is_some_and(|seconds| seconds > 0) {
        return invalid("runnerIdleSeconds is for mode Normal only");
    }
    if spec.mode != Mode::PrivilegedWithHostFS && spec.host_file_system.is_some() {
        return invalid("hostFileSystem needs mode PrivilegedWithHostFS");
    }
    let from_config_map = |name: &&scriptrunner_api::v1alpha1::EnvVar| {
        name.value_from.as_ref().is_some_and(|source| source.config_map_key_ref.is_some())
    };
    if let Some(variable) = spec.env.iter().find(from_config_map).filter(|_| spec.mode.is_privileged()) {
        return invalid(format!(
            "env {:?} comes from a ConfigMap, which is for mode Normal only",
            variable.name
        ));
    }
    Ok(())
}

fn check_pace(spec: &ScriptRunnerSpec) -> Result<(), Refusal> {
    let endless = spec.repeat.as_ref().is_some_and(|repeat| repeat.count.is_none());
    if spec.max_failures.is_some() && endless {
        return invalid("maxFailures cannot be combined with an endless repeat, whose nodes never end");
    }
    if spec.max_failures.is_some() && spec.execution_deadline_seconds.is_none() {
        return invalid(
            "maxFailures needs executionDeadlineSeconds, so that a hung node is counted as a failure",
        );
    }
    match (&spec.parallelism, endless) {
        (Some(_), true) => invalid("parallelism cannot be combined with an endless repeat"),
        (Some(_), false) if spec.execution_deadline_seconds.is_none() => {
            invalid("parallelism needs executionDeadlineSeconds")
        }
        (None, false) if spec.mode.is_privileged() => {
            invalid("a privileged mode must state parallelism (100% is allowed)")
        }
        (Some(_) | None, _) => Ok(()),
    }
}

fn limits(spec: &ScriptRunnerSpec) -> Result<Limits, Refusal> {
    let history = spec.history_limit.unwrap_or(DEFAULT_HISTORY_LIMIT);
    if history == 0 || history > 100 {
        return invalid(format!("historyLimit is {history}, it must be from 1 to 100"));
    }
    if let Some(repeat) = &spec.repeat
        && (repeat.count == Some(0) || repeat.period_seconds == 0)
    {
        return invalid(
            "repeat.count and repeat.periodSeconds must be at least 1; leave count out for an endless repeat",
        );
    }
    if let Some(seconds) = spec.runner_idle_seconds.filter(|seconds| *seconds > MAX_RUNNER_IDLE_SECONDS) {
        return invalid(format!(
            "runnerIdleSeconds is {seconds}, it must be from 0 to {MAX_RUNNER_IDLE_SECONDS}"
        ));
    }
    let dependencies = spec.dependencies.clone().unwrap_or_default();
    let install_seconds = dependencies.install_timeout_seconds.unwrap_or(DEFAULT_INSTALL_TIMEOUT_SECONDS);
    if !(1..=MAX_INSTALL_TIMEOUT_SECONDS).contains(&install_seconds) {
        return invalid(format!(
            "dependencies.installTimeoutSeconds is {install_seconds}, it must be from 1 to {MAX_INSTALL_TIMEOUT_SECONDS}"
        ));
    }
    let output = spec.output.clone().unwrap_or_default();
    let kept = |limit: Option<u32>| match output.keep.unwrap_or_default() {
        Keep::Full => limit.unwrap_or(DEFAULT_OUTPUT_LIMIT_BYTES),
        Keep::DigestOnly => 0,
    };
    Ok(Limits {
        execution_deadline_seconds: spec.execution_deadline_seconds,
        grace_seconds: spec
            .termination_grace_period_seconds
            .unwrap_or(DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS),
        start_deadline_seconds: spec.pod_start_deadline_seconds.unwrap_or(DEFAULT_POD_START_DEADLINE_SECONDS),
        idle_seconds: spec.runner_idle_seconds.unwrap_or(0),
        history,
        stdout_bytes: kept(output.stdout_limit_bytes),
        stderr_bytes: kept(output.stderr_limit_bytes),
        truncation: output.truncation.unwrap_or_default(),
        install_seconds,
    })
}

#[cfg(test)]
mod tests;
