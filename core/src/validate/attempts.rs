//! What ends a node's part of a run and what is tried again, from the spec. Pure.

use std::collections::BTreeSet;

use scriptrunner_api::v1alpha1::{ExitCodes, InterruptionPolicy, RerunScope, ScriptRunnerSpec};

use super::{Refusal, invalid};

/// Most further attempts after failures.
const MAX_BACKOFF_LIMIT: u32 = 100;
/// Longest deadline and time to live: a year.
const MAX_SECONDS: u32 = 31_536_000;
/// Most exit codes in one list.
const MAX_EXIT_CODES: usize = 32;

/// What is tried again, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// How often a node is tried again after it failed.
    pub backoff_limit: u32,
    /// What exit codes other than 0 mean.
    pub exit_codes: ValidExitCodes,
    /// What becomes of a node whose pod is lost.
    pub interruption: InterruptionPolicy,
    /// How long the whole run may take; none is no limit.
    pub active_deadline_seconds: Option<u32>,
}

/// What exit codes other than 0 mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValidExitCodes {
    /// Codes that are a success.
    pub success: BTreeSet<u8>,
    /// Codes by which a script leaves its node out.
    pub skipped: BTreeSet<u8>,
    /// The only failures that are tried again; empty for all.
    pub retry: BTreeSet<u8>,
}

/// What runs the script again without an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidRerun {
    /// The time that asks for it, in seconds of Unix time, as precise as a status can hold it.
    pub at_seconds: i64,
    /// Which nodes, by how they ended.
    pub scope: RerunScope,
    /// Only these of them.
    pub node_names: Option<BTreeSet<String>>,
}

impl Attempts {
    pub(super) fn of(spec: &ScriptRunnerSpec) -> Result<Self, Refusal> {
        let endless = spec.repeat.as_ref().is_some_and(|repeat| repeat.count.is_none());
        let backoff_limit = spec.backoff_limit.unwrap_or(0);
        if backoff_limit > MAX_BACKOFF_LIMIT {
            return invalid(format!(
                "backoffLimit is {backoff_limit}, it must be from 0 to {MAX_BACKOFF_LIMIT}"
            ));
        }
        if backoff_limit > 0 && spec.repeat.is_some() {
            return invalid(
                "backoffLimit cannot be combined with repeat, which runs the script again anyway; remove one of them",
            );
        }
        let exit_codes = ValidExitCodes::of(spec.exit_codes.as_ref())?;
        if !exit_codes.retry.is_empty() && backoff_limit == 0 {
            return invalid(
                "exitCodes.retry needs backoffLimit: 1 or more, which says how often a node is tried again",
            );
        }
        if !exit_codes.skipped.is_empty() && spec.repeat.is_some() {
            return invalid("exitCodes.skipped cannot be combined with repeat; remove one of them");
        }
        if let Some(seconds) =
            spec.active_deadline_seconds.filter(|seconds| !(1..=MAX_SECONDS).contains(seconds))
        {
            return invalid(format!(
                "activeDeadlineSeconds is {seconds}, it must be from 1 to {MAX_SECONDS}"
            ));
        }
        if spec.active_deadline_seconds.is_some() && endless {
            return invalid(
                "activeDeadlineSeconds cannot be combined with an endless repeat, which has no end; set repeat.count or remove activeDeadlineSeconds",
            );
        }
        if spec.interruption_policy == Some(InterruptionPolicy::Report) && endless {
            return invalid(
                "interruptionPolicy: Report cannot be combined with an endless repeat, which always goes on; set repeat.count or remove interruptionPolicy",
            );
        }
        let usual =
            if spec.repeat.is_some() { InterruptionPolicy::Retry } else { InterruptionPolicy::Report };
        Ok(Self {
            backoff_limit,
            exit_codes,
            interruption: spec.interruption_policy.unwrap_or(usual),
            active_deadline_seconds: spec.active_deadline_seconds,
        })
    }
}

impl ValidExitCodes {
    fn of(exit_codes: Option<&ExitCodes>) -> Result<Self, Refusal> {
        let Some(ExitCodes { success, skipped, retry }) = exit_codes else { return Ok(Self::default()) };
        let lists = [("success", success), ("skipped", skipped), ("retry", retry)];
        for (name, codes) in lists {
            if codes.len() > MAX_EXIT_CODES || codes.contains(&0) {
                return invalid(format!(
                    "exitCodes.{name} has {codes:?}; it takes at most {MAX_EXIT_CODES} codes from 1 to 255"
                ));
            }
        }
        let set = |codes: &[u8]| codes.iter().copied().collect::<BTreeSet<u8>>();
        for (left, right) in [(0, 1), (0, 2), (1, 2)] {
            let ((left, codes), (right, others)) = (lists[left], lists[right]);
            if let Some(code) = set(codes).intersection(&set(others)).next() {
                return invalid(format!(
                    "exit code {code} stands in exitCodes.{left} and in exitCodes.{right}; remove it from one of them"
                ));
            }
        }
        Ok(Self { success: set(success), skipped: set(skipped), retry: set(retry) })
    }
}

impl ValidRerun {
    pub(super) fn of(spec: &ScriptRunnerSpec) -> Result<Option<Self>, Refusal> {
        let Some(rerun) = &spec.rerun else { return Ok(None) };
        if rerun.node_names.as_ref().is_some_and(Vec::is_empty) {
            return invalid(
                "rerun.nodeNames is empty; name at least one node, or remove it for all in scope",
            );
        }
        Ok(Some(Self {
            at_seconds: rerun.at.0.as_second(),
            scope: rerun.scope.unwrap_or_default(),
            node_names: rerun.node_names.as_ref().map(|names| names.iter().cloned().collect()),
        }))
    }
}

/// How long an object is kept that has ended; none is for ever.
pub(super) fn time_to_live(spec: &ScriptRunnerSpec) -> Result<Option<u32>, Refusal> {
    let Some(seconds) = spec.ttl_seconds_after_finished else { return Ok(None) };
    if seconds > MAX_SECONDS {
        return invalid(format!("ttlSecondsAfterFinished is {seconds}, it must be from 0 to {MAX_SECONDS}"));
    }
    if spec.repeat.as_ref().is_some_and(|repeat| repeat.count.is_none()) {
        return invalid(
            "ttlSecondsAfterFinished cannot be combined with an endless repeat, which never finishes; set repeat.count or remove ttlSecondsAfterFinished",
        );
    }
    Ok(Some(seconds))
}
