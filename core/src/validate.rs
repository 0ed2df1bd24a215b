//! From a spec as stored to one that cannot be wrong. The API server checks most of this too; an object may be older than
//! the rule, so everything that later steps rely on is checked here again. Pure.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use scriptrunner_api::{
    labels,
    pinned::PinnedSpec,
    reason::ConditionReason,
    v1alpha1::{
        DEFAULT_HISTORY_LIMIT, DEFAULT_OUTPUT_LIMIT_BYTES, DEFAULT_POD_START_DEADLINE_SECONDS,
        DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS, LabelOperator, LabelSelector, MAX_RUNNER_IDLE_SECONDS,
        MAX_SCRIPT_BYTES, Mode, ScriptRunnerSpec,
    },
};

/// A spec with every default resolved and every rule checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidRun {
    /// What runs.
    pub pinned: PinnedSpec,
    /// Digest of what runs.
    pub spec_hash: String,
    /// The script.
    pub script: String,
    /// Where it runs.
    pub targets: Targets,
    /// How long things may take and how much is kept.
    pub limits: Limits,
    /// How many nodes may be busy at once; none is all.
    pub parallelism: Option<Parallelism>,
}

/// Which nodes are meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Nodes with labels.
    Selector(LabelSelector),
    /// Nodes with names.
    Names(BTreeSet<String>),
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
}

/// A limit of busy nodes, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parallelism {
    /// So many nodes.
    Nodes(u32),
    /// So many percent of the desired nodes.
    Percent(u32),
}

impl Parallelism {
    /// The limit in nodes: percentages round up, never under one.
    pub fn nodes(self, desired: usize) -> usize {
        match self {
            Self::Nodes(nodes) => (nodes as usize).max(1),
            Self::Percent(percent) => (desired * percent as usize).div_ceil(100).max(1),
        }
    }
}

/// Why a spec is not run: the user's to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of the condition `Accepted`.
    pub reason: ConditionReason,
    /// What is wrong and what to do.
    pub message: String,
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { reason: ConditionReason::SpecInvalid, message: message.into() })
}

/// Resolves and checks a spec.
pub fn validate(spec: &ScriptRunnerSpec) -> Result<ValidRun, Refusal> {
    check_script(spec)?;
    check_mode(spec)?;
    check_parallelism(spec)?;
    let pinned = PinnedSpec::of(spec);
    Ok(ValidRun {
        spec_hash: pinned.spec_hash(),
        pinned,
        script: spec.script.clone(),
        targets: targets(spec)?,
        limits: limits(spec)?,
        parallelism: parallelism(spec)?,
    })
}

fn check_script(spec: &ScriptRunnerSpec) -> Result<(), Refusal> {
    if spec.script.is_empty() {
        return invalid("script is empty; write the script into spec.script");
    }
    if spec.script.len() > MAX_SCRIPT_BYTES {
        return invalid(format!(
            "script has {} bytes, at most {MAX_SCRIPT_BYTES} are allowed",
            spec.script.len()
        ));
    }
    if let Some(name) =
        spec.env.iter().map(|variable| &variable.name).find(|name| name.starts_with(labels::ENV_PREFIX))
    {
        return invalid(format!(
            "env {name:?}: names that start with {} are set by the runner",
            labels::ENV_PREFIX
        ));
    }
    if let Some(requirement) =
        spec.dependencies.iter().flat_map(|d| &d.pip).find(|r| r.is_empty() || r.starts_with('-'))
    {
        return invalid(format!("dependencies.pip: {requirement:?} is an option, not a requirement"));
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

fn check_parallelism(spec: &ScriptRunnerSpec) -> Result<(), Refusal> {
    let endless = spec.repeat.as_ref().is_some_and(|repeat| repeat.count.is_none());
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

fn targets(spec: &ScriptRunnerSpec) -> Result<Targets, Refusal> {
    match (&spec.node_label_selector, &spec.node_names) {
        (Some(selector), None) => {
            let odd = selector.match_expressions.iter().find(|requirement| match requirement.operator {
                LabelOperator::In | LabelOperator::NotIn => requirement.values.is_empty(),
                LabelOperator::Exists | LabelOperator::DoesNotExist => !requirement.values.is_empty(),
            });
            match odd {
                Some(requirement) => invalid(format!(
                    "nodeLabelSelector: key {:?}: In and NotIn need values, Exists and DoesNotExist take none",
                    requirement.key
                )),
                None => Ok(Targets::Selector(selector.clone())),
            }
        }
        (None, Some(names)) if !names.is_empty() => Ok(Targets::Names(names.iter().cloned().collect())),
        (None, Some(_)) => {
            invalid("nodeNames is empty; name at least one node, or use nodeLabelSelector: {} for every node")
        }
        (Some(_), Some(_)) | (None, None) => invalid("give exactly one of nodeLabelSelector and nodeNames"),
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
    let output = spec.output.clone().unwrap_or_default();
    Ok(Limits {
        execution_deadline_seconds: spec.execution_deadline_seconds,
        grace_seconds: spec
            .termination_grace_period_seconds
            .unwrap_or(DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS),
        start_deadline_seconds: spec.pod_start_deadline_seconds.unwrap_or(DEFAULT_POD_START_DEADLINE_SECONDS),
        idle_seconds: spec.runner_idle_seconds.unwrap_or(0),
        history,
        stdout_bytes: output.stdout_limit_bytes.unwrap_or(DEFAULT_OUTPUT_LIMIT_BYTES),
        stderr_bytes: output.stderr_limit_bytes.unwrap_or(DEFAULT_OUTPUT_LIMIT_BYTES),
    })
}

fn parallelism(spec: &ScriptRunnerSpec) -> Result<Option<Parallelism>, Refusal> {
    match &spec.parallelism {
        None => Ok(None),
        Some(IntOrString::Int(nodes)) => match u32::try_from(*nodes) {
            Ok(nodes) if nodes > 0 => Ok(Some(Parallelism::Nodes(nodes))),
            _ => invalid(format!(
                "parallelism is {nodes}, it must be at least 1 or a percentage from 1% to 100%"
            )),
        },
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<u32>().ok());
            match percent {
                Some(percent @ 1..=100) => Ok(Some(Parallelism::Percent(percent))),
                _ => invalid(format!(
                    "parallelism is {text:?}, it must be at least 1 or a percentage from 1% to 100%"
                )),
            }
        }
    }
}

#[cfg(test)]
mod tests;
