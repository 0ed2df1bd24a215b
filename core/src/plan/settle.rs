//! Brings the entries up to date with what became of their pods and nodes. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use scriptrunner_api::{
    reason::NodeReason,
    snapshot::Record,
    v1alpha1::{Execution, NodeState, NodeStatus, Volume},
};

use super::{
    Draft,
    attempts::{ended_at, is_interrupted},
    entry,
    runners::{Heard, Runner, Runners},
    targets::is_cordoned,
};
use crate::{
    halt::{Halt, Tally, is_overdue},
    in_step::InStep,
    observed::{NodeFacts, Observed},
    results::{
        self, Beside, Cause, Ordered, Outcome, PodState, pod_state, reported_end, start_failure,
        with_last_words,
    },
    validate::ValidRun,
};

/// Takes in what became of every pod, what sessions brought, and every vanished node.
pub(super) fn settle<'a>(draft: &mut Draft<'a>, observed: &Observed, runners: &Runners<'a>) {
    let run = draft.run_number();
    let rules = Rules {
        run,
        endless_run: is_endless(draft, observed).then_some(run),
        history_limit: draft.history_limit,
        runners,
    };
    let now = draft.now;
    let (mut walk, mut nodes) = (runners.walk(), InStep::new(&observed.nodes));
    for (name, node_entry) in &mut draft.status.nodes {
        draft.heard.extend(take_in_runners(node_entry, walk.on(name), &rules));
        entry::keep_newest(node_entry, rules.history_limit);
        let node_exists = nodes.get(name).is_some_and(|node| node.id == node_entry.node_id);
        if node_exists {
            node_entry.gone_time = None;
        } else if !node_entry.node_id.is_empty() {
            entry::mark_gone(node_entry, now);
            // One that was stopped keeps that as its outcome.
            if node_entry.node_state().is_active() || entry::is_between_pods(node_entry) {
                give_up(
                    node_entry,
                    NodeReason::NodeGone,
                    "the Node object was deleted while its pod was active",
                );
            }
        }
    }
    drop_unstarted_gone_nodes(draft);
}

/// What holds for every node.
struct Rules<'a> {
    /// The current run.
    run: u64,
    /// The current run if it repeats endlessly.
    endless_run: Option<u64>,
    history_limit: usize,
    runners: &'a Runners<'a>,
}

impl Rules<'_> {
    fn beside<'a>(&self, node_entry: &NodeStatus, runner: &Runner<'a>) -> Beside<'a> {
        Beside {
            live: runner.live(),
            has_started: node_entry.node_state() == NodeState::Running && runner.is_named_by(node_entry),
            superseded: runner.part.run < self.run,
            endless: self.endless_run == Some(runner.part.run),
            ordered: runner.ordered().map(|part| Ordered {
                run: part.run,
                attempt: part.attempt,
                given_up: entry::has_given_up_order(node_entry),
            }),
        }
    }
}

/// Whether the current run repeats endlessly. The live spec tells only while it is what the run is pinned to.
fn is_endless(draft: &Draft<'_>, observed: &Observed) -> bool {
    let Some(run) = &draft.status.run else { return false };
    if let Some((_, pinned)) = observed.pinned.as_ref().filter(|(number, _)| *number == run.number) {
        return pinned.spec.executions().is_none();
    }
    let spec = &observed.object.spec;
    spec.repeat.as_ref().is_some_and(|repeat| repeat.count.is_none())
        && observed.spec_hash().as_ref() == Some(&run.spec_hash)
}

/// A gone node that never started in the run is not desired any more.
fn drop_unstarted_gone_nodes(draft: &mut Draft<'_>) {
    let run = draft.run_number();
    draft.status.nodes.retain(|_, node_entry| {
        let unstarted = node_entry.run == run && node_entry.node_state() == NodeState::Pending;
        node_entry.gone_time.is_none() || !unstarted || entry::leave(node_entry)
    });
}

/// Takes in the pods of one node. Returns the snapshot whose whole content the entry now holds, if there is one.
fn take_in_runners<'a>(
    node_entry: &mut NodeStatus,
    runners: &[Runner<'a>],
    rules: &Rules<'_>,
) -> Option<Heard<'a>> {
    let mut of_node = runners.iter().filter(|runner| runner.pod.node_id == node_entry.node_id);
    if node_entry.pod_id.is_some() {
        return match of_node.find(|runner| runner.is_named_by(node_entry)) {
            Some(runner) if runner.part.run == node_entry.run => take_in(node_entry, runner, rules),
            Some(runner) => take_in_older(node_entry, runner, rules),
            None => {
                vanish(node_entry, rules);
                None
            }
        };
    }
    let newest = of_node
        .clone()
        .filter(|runner| runner.part.run == node_entry.run)
        .max_by_key(|runner| runner.part.attempt);
    let Some(newest) = newest else {
        return of_node.find_map(|runner| hear_older(node_entry, runner));
    };
    if newest.part.attempt > node_entry.attempts {
        return if is_final(node_entry) { None } else { take_in(node_entry, newest, rules) };
    }
    if newest.part.attempt < node_entry.attempts {
        return None;
    }
    if entry::awaits_answer(node_entry) {
        return if brings_news(node_entry, newest, rules) {
            take_in(node_entry, newest, rules)
        } else {
            None
        };
    }
    let live = newest.live()?;
    entry::hear_again(node_entry, live, newest.pod.failures_before, rules.history_limit)
        .then(|| newest.heard(live))
}

/// What an idle runner says once more of an older run, because it did not hear that all of it is stored.
fn hear_older<'a>(node_entry: &NodeStatus, runner: &Runner<'a>) -> Option<Heard<'a>> {
    let newest = runner.newest_snapshot()?;
    (results::is_final(&newest.record) && entry::holds(node_entry, newest)).then(|| runner.heard(newest))
}

/// Whether the entry's part of its run is over for good, whatever pods appear.
fn is_final(node_entry: &NodeStatus) -> bool {
    node_entry.node_state().is_done() && !entry::has_given_up(node_entry) && !entry::is_left_out(node_entry)
}

/// Whether the pod that the entry was about ended after all and left something that the entry does not have.
fn brings_news(node_entry: &NodeStatus, runner: &Runner<'_>, rules: &Rules<'_>) -> bool {
    let beside = rules.beside(node_entry, runner);
    let PodState::Ended(outcome) = pod_state(runner.pod, beside) else { return false };
    let Some(snapshot) = &outcome.snapshot else { return false };
    let is_known =
        |execution: &Execution| node_entry.history.iter().any(|known| known.key() == execution.key());
    // A repetition that goes on is open again after every answer, and must not take in the same one for ever.
    snapshot.record.serial > node_entry.serial
        || !beside.endless
            && (results::has_begun(&snapshot.record) && !outcome.unseen
                || !snapshot.history.iter().all(is_known))
}

/// Takes in the newest pod of the entry's own run.
fn take_in<'a>(node_entry: &mut NodeStatus, runner: &Runner<'a>, rules: &Rules<'_>) -> Option<Heard<'a>> {
    let beside = rules.beside(node_entry, runner);
    let (failures_before, history_limit) = (runner.pod.failures_before, rules.history_limit);
    entry::reach_attempt(node_entry, runner.part.attempt);
    match pod_state(runner.pod, beside) {
        // It is not tried any more: the pod is about to end.
        PodState::Starting { .. } if beside.ordered.is_some_and(|ordered| ordered.given_up) => {}
        PodState::Starting { reason, message } => {
            let message = if reason.is_empty() { String::new() } else { format!("{reason}: {message}") };
            entry::begin(node_entry, &runner.pod.id, NodeState::Starting, &message);
        }
        PodState::Running => {
            entry::begin(node_entry, &runner.pod.id, NodeState::Running, "");
            if let Some(live) = beside.live {
                entry::progress(node_entry, live, failures_before, history_limit);
            }
        }
        PodState::NeverStarted(_) if beside.superseded => {
            entry::end(node_entry, &nothing_ran(), failures_before, history_limit);
        }
        PodState::NeverStarted(never) if never.refused && runner.pod.by_scheduler => {
            entry::replace(node_entry, NodeState::Failed, NodeReason::PodRefused, &never.message);
        }
        PodState::NeverStarted(never) => {
            let reason = if never.refused { NodeReason::PodRefused } else { NodeReason::Replaced };
            entry::replace(node_entry, NodeState::Pending, reason, &never.message);
        }
        PodState::Ended(outcome) => end(node_entry, *outcome, failures_before, rules),
    }
    beside.live.map(|live| runner.heard(live))
}

/// Takes in a pod of an older run, which the entry of a newer run still names: only its end, because it was told to end.
fn take_in_older<'a>(
    node_entry: &mut NodeStatus,
    runner: &Runner<'a>,
    rules: &Rules<'_>,
) -> Option<Heard<'a>> {
    let beside = Beside { superseded: true, ..rules.beside(node_entry, runner) };
    let outcome = match pod_state(runner.pod, beside) {
        PodState::Ended(outcome) => Some(*outcome),
        // Nothing ran, so nothing is to be counted.
        PodState::NeverStarted(_) => Some(nothing_ran()),
        PodState::Starting { .. } | PodState::Running => beside.live.and_then(reported_end),
    };
    entry::end_of_older_run(node_entry, &outcome?, runner.pod.failures_before, rules.history_limit);
    beside.live.map(|live| runner.heard(live))
}

fn nothing_ran() -> Outcome {
    Outcome {
        lost_executions: 0,
        unseen: false,
        state: NodeState::Stopped,
        ..Outcome::unknown(NodeReason::Superseded, "")
    }
}

/// The entry names a pod that the API server does not know, and nobody saw it end.
fn vanish(node_entry: &mut NodeStatus, rules: &Rules<'_>) {
    let is_own = node_entry.node_state().is_active();
    let pod_id = node_entry.pod_id.as_deref().unwrap_or_default();
    let live = rules.runners.vanished(pod_id).filter(|live| {
        let Record { run, attempt, .. } = live.record;
        match node_entry.pod_run {
            _ if is_own => (run, attempt) == (node_entry.run, node_entry.attempts),
            0 => run < node_entry.run,
            pod_run => run == pod_run,
        }
    });
    let lost = with_last_words(
        live,
        "",
        &Cause::deletion(),
        Outcome::unknown(NodeReason::PodLost, "the pod vanished and left no answer"),
    );
    if is_own {
        end(node_entry, lost, 0, rules);
    } else {
        entry::end_of_older_run(node_entry, &lost, 0, rules.history_limit);
    }
}

/// Takes in the end of the entry's own pod.
fn end(node_entry: &mut NodeStatus, outcome: Outcome, failures_before: u64, rules: &Rules<'_>) {
    let is_cut = matches!(outcome.state, NodeState::Stopped | NodeState::Unknown);
    if let Some(stop) = entry::stop_of(node_entry).filter(|_| is_cut || outcome.handed_over) {
        let (state, reason) = (NodeState::Stopped, Some(stop.reason()));
        let stopped = Outcome { state, reason, ..outcome };
        entry::end(node_entry, &stopped, failures_before, rules.history_limit);
        return;
    }
    // It was told to end because it hung, and after all it did.
    let is_unhung = entry::reason(node_entry) == Some(NodeReason::Hung) && is_cut;
    let reason = if is_unhung { Some(NodeReason::Hung) } else { outcome.reason };
    let outcome = Outcome { reason, ..outcome };
    entry::end(node_entry, &outcome, failures_before, rules.history_limit);
    if rules.endless_run == Some(node_entry.run) {
        go_on_endlessly(node_entry, &outcome);
    }
}

/// An endless repetition goes on in the next pod, whatever ended this one, unless the next would meet the same end.
fn go_on_endlessly(node_entry: &mut NodeStatus, outcome: &Outcome) {
    match outcome.reason {
        Some(NodeReason::InputTampered | NodeReason::PodRefused) => {}
        reason => entry::set(node_entry, NodeState::Running, reason, &outcome.message),
    }
}

fn give_up(node_entry: &mut NodeStatus, reason: NodeReason, message: &str) {
    entry::set(node_entry, NodeState::Unknown, Some(reason), message);
}

/// Ends the wait for pods that do not start and for nodes that do not become Ready. Once nothing more is started, nodes that
/// have no pod are not waited for.
pub(super) fn enforce_start_deadlines(
    draft: &mut Draft<'_>,
    run: &ValidRun,
    observed: &Observed,
    runners: &Runners<'_>,
) {
    let limit = SignedDuration::from_secs(i64::from(run.limits.start_deadline_seconds));
    let Some((number, run_start)) = draft.status.run.as_ref().map(|run| (run.number, run.start_time.0))
    else {
        return;
    };
    let now = draft.now;
    let mut looks = Vec::new();
    let is_overdue = is_overdue(run, &draft.status, now);
    let mut tally = Tally::of(&draft.status);
    let (mut walk, mut nodes) = (runners.walk(), InStep::new(&observed.nodes));
    let entries = draft.status.nodes.iter_mut().filter(|(_, node_entry)| node_entry.run == number);
    for (name, node_entry) in entries {
        let Some(node) = nodes.get(name) else { continue };
        if node_entry.node_state() == NodeState::Pending && Halt::of(run, tally, is_overdue).is_some() {
            continue;
        }
        let Some((since, reason, message)) =
            waits_for(node, node_entry, walk.on(name), observed, (run, run_start))
        else {
            continue;
        };
        match since.checked_add(limit) {
            Ok(deadline) if deadline > now => {
                looks.push(deadline);
                continue;
            }
            _ if matches!(reason, NodeReason::Unreachable | NodeReason::Unschedulable) => {
                give_up(node_entry, reason, &message);
            }
            _ => entry::set(node_entry, NodeState::Failed, Some(reason), &message),
        }
        tally.failures += 1;
    }
    for look in looks {
        draft.look_again_at(look);
    }
}

/// What may be missing of a pod that was not started: the kubelet waits for the volumes that are mounted, and says which in
/// Events only.
fn what_volumes_need(run: &ValidRun) -> String {
    let is_required = |optional: Option<bool>| optional != Some(true);
    let is_mounted =
        |volume: &&Volume| run.pinned.volume_mounts.iter().any(|mount| mount.name == volume.name);
    let needs = run.pinned.volumes.iter().filter(is_mounted).filter_map(|volume| {
        let Volume { name: _, config_map, secret, empty_dir: _, persistent_volume_claim, ephemeral: _ } =
            volume;
        let config_map = config_map.as_ref().filter(|volume| is_required(volume.optional));
        let secret = secret.as_ref().filter(|volume| is_required(volume.optional));
        let config_map = config_map.map(|volume| format!("ConfigMap {:?}", volume.name));
        let secret = secret.map(|volume| format!("Secret {:?}", volume.secret_name));
        let claim = persistent_volume_claim.as_ref().map(|volume| format!("claim {:?}", volume.claim_name));
        config_map.or(secret).or(claim)
    });
    let needs: Vec<String> = needs.collect();
    if needs.is_empty() {
        return String::new();
    }
    format!(
        "; its volumes need {}: look whether that is there, with every key that items names",
        needs.join(", ")
    )
}

/// Since when an entry waits for a start, and what it fails with if that takes too long.
fn waits_for(
    node: &NodeFacts,
    node_entry: &NodeStatus,
    runners: &[Runner<'_>],
    observed: &Observed,
    (run, run_start): (&ValidRun, Timestamp),
) -> Option<(Timestamp, NodeReason, String)> {
    let unreachable = || format!("node {:?} was not Ready within podStartDeadlineSeconds", node.name);
    match node_entry.node_state() {
        NodeState::Starting => {
            let runner = runners.iter().find(|runner| runner.is_named_by(node_entry))?;
            let since = if runner.ordered().is_some() {
                // That it does not hear of its order has an end of its own.
                (!node.ready).then_some(run_start)?
            } else {
                runner.pod.created?
            };
            if !node.ready {
                return Some((
                    since.max(node.ready_since.unwrap_or(since)),
                    NodeReason::Unreachable,
                    unreachable(),
                ));
            }
            let beside = Beside { live: runner.live(), ..Beside::default() };
            let PodState::Starting { reason, message } = pod_state(runner.pod, beside) else { return None };
            let failure = start_failure(&reason);
            let mut told = format!(
                "pod {:?} did not start within podStartDeadlineSeconds: {reason} {message}",
                runner.pod.name
            );
            if failure == NodeReason::StartDeadlineExceeded {
                told.push_str(&what_volumes_need(run));
            }
            Some((since, failure, told))
        }
        NodeState::Pending if entry::reason(node_entry) == Some(NodeReason::NodeNotReady) => Some((
            run_start.max(node.ready_since.unwrap_or(run_start)),
            NodeReason::Unreachable,
            unreachable(),
        )),
        NodeState::Pending if entry::reason(node_entry) == Some(NodeReason::NameConflict) => {
            let conflict = observed.pod_conflicts.get(&node.name)?;
            Some((conflict.since, NodeReason::NameConflict, conflict.message.clone()))
        }
        NodeState::Pending if is_interrupted(node_entry) && is_cordoned(node) => {
            let interrupted = runners.iter().find(|runner| {
                (runner.part.run, runner.part.attempt) == (node_entry.run, node_entry.attempts)
                    && runner.pod.node_id == node_entry.node_id
            });
            let cordoned = node.cordoned_since.unwrap_or(observed.since);
            let since = cordoned.max(interrupted.and_then(ended_at).unwrap_or(cordoned));
            let message = format!("{}; node {:?} stayed cordoned", node_entry.message, node.name);
            Some((since, NodeReason::Unschedulable, message))
        }
        NodeState::Pending
        | NodeState::Running
        | NodeState::Succeeded
        | NodeState::Failed
        | NodeState::Skipped
        | NodeState::Stopped
        | NodeState::Unknown => None,
    }
}
