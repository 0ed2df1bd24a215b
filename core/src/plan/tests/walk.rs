//! Random walks: runners work, speak, are stopped and killed; snapshots are delivered, lost, repeated and reordered; the
//! operator dies between any two actions. A ledger knows what really happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::{collection::vec, prelude::*};
use scriptrunner_api::{
    session::RunOrder,
    snapshot::Snapshot,
    v1alpha1::{Execution, NodeState, NodeStatus},
};

use super::{
    runner::{KEPT, ToyRunner},
    toy::{Toy, settings_with_sessions},
};
use crate::observed::{ContainerFacts, Presence, SessionFacts};

/// Specs that a walk edits to and fro, and how often each executes at most.
const SPECS: [(&str, u64); 7] = [
    ("{script: x, nodeLabelSelector: {}, exitCodes: {skipped: [4]}}", 1),
    (
        "{script: x, nodeLabelSelector: {}, repeat: {count: 3, periodSeconds: 1}, exitCodes: {success: [4]}}",
        3,
    ),
    ("{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 1}}", u64::MAX),
    (
        "{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 9, podStartDeadlineSeconds: 15}",
        1,
    ),
    ("{script: x, nodeLabelSelector: {}, runnerIdleSeconds: 600}", 1),
    (
        "{script: x, nodeLabelSelector: {}, runnerIdleSeconds: 600, parallelism: 1, executionDeadlineSeconds: 9, exitCodes: {skipped: [4]}}",
        1,
    ),
    ("{script: x, nodeLabelSelector: {}, runnerIdleSeconds: 600, repeat: {count: 2, periodSeconds: 1}}", 2),
];
/// The first of them whose runners stay for further runs.
const FIRST_IDLE: usize = 4;
const NODES: usize = 2;

/// A container as it really is, whatever the API server knows of it.
struct Container {
    node: String,
    runner: ToyRunner,
    executions: u64,
    /// How it ended: exit code, reason, message.
    end: Option<(i32, &'static str, String)>,
    /// Run and serial of the newest result in each snapshot.
    published: BTreeMap<u64, (u64, u64)>,
    /// Serial of the newest result that is acknowledged; it is not sent again.
    stored: u64,
    is_final_stored: bool,
    in_flight: Vec<Snapshot>,
    /// Whether its runner stays for further runs.
    stays: bool,
    /// Orders that are on their way.
    orders: Vec<Arc<RunOrder>>,
    /// The newest order that has come.
    order: Option<Arc<RunOrder>>,
    /// How often it was asked in vain, when everybody does what is left to do, whether its end is stored.
    rounds: u32,
}

impl Container {
    fn is_alive(&self) -> bool {
        self.end.is_none()
    }

    fn newest_result(&self) -> u64 {
        self.runner.history.last().map_or(0, |newest| newest.serial)
    }

    fn publish(&mut self) {
        self.published.insert(self.runner.record.seq, (self.runner.record.run, self.newest_result()));
    }

    /// Whether it may be told to go on: it did what it was to do, and knows that everything is stored.
    fn is_idle(&self) -> bool {
        let state = self.runner.record.state.as_str();
        self.stays
            && self.is_alive()
            && self.is_final_stored
            && matches!(state, "Succeeded" | "Skipped" | "Failed")
    }

    /// Goes on with the newest order, if there is one.
    fn go_on(&mut self) {
        let run = self.runner.record.run;
        let Some(order) = self.order.take_if(|order| order.run > run) else { return };
        self.runner.go_on(&order);
        self.executions = order.remaining;
        (self.stored, self.is_final_stored) = (0, false);
        self.publish();
    }

    /// An order comes.
    fn hear(&mut self, order: Arc<RunOrder>) {
        if self.order.as_ref().is_none_or(|known| known.run < order.run) {
            self.order = Some(order);
        }
    }

    fn send(&mut self) {
        let mut snapshot = self.runner.snapshot();
        snapshot.history.retain(|execution| execution.serial > self.stored);
        self.in_flight.push(snapshot);
    }

    fn die(&mut self, exit_code: i32, reason: &'static str) {
        self.end = Some((exit_code, reason, self.runner.message()));
    }

    /// What SIGTERM does.
    fn stop(&mut self) {
        if self.runner.is_executing() {
            self.runner.finish(143);
            self.publish();
        }
        if !self.runner.is_done() {
            self.runner.end("Stopped", "Interrupted");
            self.publish();
        }
    }
}

struct Walk {
    toy: Toy,
    edits: usize,
    containers: BTreeMap<String, Container>,
    /// Every execution that began, by node.
    begun: BTreeMap<String, u64>,
    /// Every result, by node.
    results: BTreeMap<String, Vec<Execution>>,
    /// Executions without a result whose memory ran out, by node: they count as failures if it was their own run.
    starved: BTreeMap<String, u64>,
    /// Results that were acknowledged, by node.
    acked: BTreeMap<String, BTreeSet<(u64, u32, u64)>>,
    /// Pods whose end was hidden from the operator, by node.
    hidden: BTreeMap<String, BTreeSet<String>>,
    /// Node, run, attempt and serial of every execution. The attempt counts only where an end was hidden: what nobody has
    /// heard of may be made again by the next attempt.
    serials: BTreeSet<(String, u64, u32, u64)>,
    /// Parts that were gone on with.
    went_on: u64,
}

impl Walk {
    fn new(spec: usize) -> Self {
        let mut toy = Toy::new(SPECS[spec].0, NODES);
        toy.settings = settings_with_sessions();
        Self {
            toy,
            edits: spec,
            containers: BTreeMap::new(),
            begun: BTreeMap::new(),
            results: BTreeMap::new(),
            starved: BTreeMap::new(),
            acked: BTreeMap::new(),
            hidden: BTreeMap::new(),
            serials: BTreeSet::new(),
            went_on: 0,
        }
    }

    fn act(&mut self, action: u8, pick: usize) {
        match action {
            0 => self.operate(pick),
            1 => self.restart(),
            2 => self.edit(pick),
            3 => self.toy.wait_seconds(7),
            4 => self.start_containers(),
            5 => self.report(pick, false),
            6 if pick.is_multiple_of(3) => self.delete(pick),
            6 => self.vanish(pick),
            20 => self.get_on(pick),
            _ => {
                let alive: Vec<String> = self.containers.keys().cloned().collect();
                if let Some(uid) = alive.get(pick % alive.len().max(1)).cloned() {
                    self.act_on(&uid, action, pick);
                }
            }
        }
    }

    /// Nothing goes wrong for a while: everybody goes on, and is heard.
    fn get_on(&mut self, pick: usize) {
        self.start_containers();
        self.report(0, true);
        for uid in self.containers.keys().cloned().collect::<Vec<_>>() {
            let container = self.containers.get_mut(&uid).unwrap();
            for order in std::mem::take(&mut container.orders) {
                container.hear(order);
            }
            for _ in 0..pick % 7 {
                self.work(&uid, pick / 5);
            }
            let container = self.containers.get_mut(&uid).unwrap();
            if container.is_alive() {
                container.send();
                let snapshot = container.in_flight.pop().unwrap();
                self.hear(&uid, snapshot);
            }
            self.take_down(&uid);
        }
        self.operate(7 * (pick % 3) + 2);
    }

    /// One reconcile, which may be cut after any action, before its status is written, or before its acknowledgements go.
    fn operate(&mut self, pick: usize) {
        self.toy.crash_after = pick.is_multiple_of(5).then_some(pick / 5 % 4);
        let crashed = self.toy.crash_after.is_some();
        let before = self.toy.observed.previous.clone();
        self.toy.step();
        self.send_orders();
        if crashed {
            return self.restart();
        }
        let taken = std::mem::take(&mut self.toy.taken);
        for (name, entry) in &self.toy.status().nodes {
            if entry.reason == "StartDeadlineExceeded" {
                // What that pod does after all is heard of only if it ends before the next run.
                self.hidden.entry(name.clone()).or_default().insert(format!("given up in run {}", entry.run));
            }
            let Some(before) = before.as_ref().and_then(|before| before.nodes.get(name)) else { continue };
            assert!(entry.executions >= before.executions && entry.failures >= before.failures, "{entry:#?}");
        }
        if pick % 7 == 1 {
            return self.restart();
        }
        for taken in taken {
            let Some(container) = self.containers.get_mut(&taken.pod_uid) else { continue };
            let (run, newest) = container.published[&taken.ack.seq];
            if let Some(session) = self.toy.observed.sessions.get_mut(&taken.pod_uid) {
                forget_stored(session, run, newest);
            }
            if run != container.runner.record.run {
                continue;
            }
            container.stored = container.stored.max(newest);
            container.is_final_stored |=
                container.runner.is_done() && taken.ack.seq == container.runner.record.seq;
            let kept = &self.toy.status().nodes[&container.node].history;
            let record = &container.runner.record;
            let acked = self.acked.entry(container.node.clone()).or_default();
            for result in &self.results[&container.node] {
                let is_of_pod = (result.run, result.attempt) == (record.run, record.attempt);
                if is_of_pod && result.serial <= newest {
                    let has_left = kept.len() == KEPT && result.key() < kept[0].key();
                    assert!(has_left || kept.contains(result), "acknowledged and lost: {result:#?}");
                    acked.insert(result.key());
                }
            }
        }
    }

    /// Another process, which knows what is stored and what the API server shows.
    fn restart(&mut self) {
        self.toy.observed.sessions.clear();
        self.toy.observed.since = self.toy.now;
        self.toy.observed.known_answers.clear();
        let gone = self.toy.observed.pods.extract_if(.., |pod| pod.presence == Presence::Gone);
        let stored = self.toy.observed.previous.as_ref();
        for pod in gone {
            let entry = stored.and_then(|status| status.nodes.get(&pod.node));
            if entry.is_none_or(|entry| (entry.run, entry.attempts) < (pod.run, pod.attempt)) {
                // Nothing tells it from a pod that was never made, so the next one has its attempt again.
                let of_pod = (&pod.node, pod.run, pod.attempt);
                self.serials.retain(|(node, run, attempt, _)| (node, *run, *attempt) != of_pod);
            }
            self.hidden.entry(pod.node.clone()).or_default().insert(pod.uid.clone());
        }
    }

    fn edit(&mut self, pick: usize) {
        if self.edits < if self.toy.observed.object.spec.runner_idle_seconds.is_some() { 100 } else { 30 } {
            self.edits += 10;
            let goes_on =
                self.toy.observed.object.spec.runner_idle_seconds.is_some() && !pick.is_multiple_of(8);
            let first = if goes_on { FIRST_IDLE } else { 0 };
            let spec = SPECS[first + pick / 8 % (SPECS.len() - first)].0;
            self.toy.edit(&spec.replace("script: x", &format!("script: x{}", self.edits)));
        }
    }

    fn start_containers(&mut self) {
        for made in &self.toy.pods_made {
            let uid = made.metadata.uid.clone().unwrap();
            let pod = self.toy.observed.pods.iter().find(|pod| pod.uid == uid);
            let Some(pod) = pod.filter(|pod| pod.presence == Presence::Present && !pod.deleting) else {
                continue;
            };
            let args = made.spec.as_ref().unwrap().containers[0].args.clone().unwrap();
            let remaining = args[args.iter().position(|arg| arg == "--remaining").unwrap() + 1].parse();
            self.containers.entry(uid).or_insert_with(|| Container {
                node: pod.node.clone(),
                runner: ToyRunner::new("boot", &args),
                executions: remaining.unwrap_or(u64::MAX),
                end: None,
                published: BTreeMap::from([(1, (pod.run, 0))]),
                stays: args.iter().any(|arg| arg == "--idle-seconds"),
                orders: Vec::new(),
                order: None,
                rounds: 0,
                stored: 0,
                is_final_stored: false,
                in_flight: Vec::new(),
            });
        }
    }

    /// The kubelet reports some containers, or all of them.
    fn report(&mut self, pick: usize, all: bool) {
        for (position, pod) in self.toy.observed.pods.iter_mut().map(Arc::make_mut).enumerate() {
            let chosen = all || (pick >> (position % 8)) & 1 == 1;
            if !chosen || pod.presence == Presence::Gone {
                continue;
            }
            match self.containers.get(&pod.uid).map(|container| &container.end) {
                // Deleted before it started.
                None if pod.deleting => pod.presence = Presence::Gone,
                None => {}
                Some(None) => pod.container = ContainerFacts::Running,
                Some(Some((exit_code, reason, message))) => {
                    pod.container = ContainerFacts::Terminated {
                        exit_code: *exit_code,
                        reason: (*reason).into(),
                        message: message.clone(),
                        finished: None,
                    };
                    if pod.deleting {
                        pod.presence = Presence::Gone;
                    }
                }
            }
        }
    }

    /// What the operator tells runners is on its way, if there was a connection as far as it knows.
    fn send_orders(&mut self) {
        for (uid, order) in std::mem::take(&mut self.toy.orders) {
            if let Some(container) = self.containers.get_mut(&uid) {
                container.orders.push(order);
            }
        }
    }

    /// Somebody deletes a pod, idle or not.
    fn delete(&mut self, pick: usize) {
        let mut pods = self
            .toy
            .observed
            .pods
            .iter_mut()
            .map(Arc::make_mut)
            .filter(|pod| pod.presence == Presence::Present && self.containers.contains_key(&pod.uid));
        if let Some(pod) = pods.nth(pick / 3 % NODES) {
            pod.deleting = true;
        }
    }

    /// Somebody removes a pod by force. One that no status names could be taken for one that was never made; of one that is
    /// being deleted the kubelet is believed to have told everything.
    fn vanish(&mut self, pick: usize) {
        let Some(status) = self.toy.observed.previous.clone() else { return };
        let mut named = self.toy.observed.pods.iter_mut().map(Arc::make_mut).filter(|pod| {
            pod.presence == Presence::Present
                && !pod.deleting
                && status.nodes.get(&pod.node).is_some_and(|entry| entry.pod_id.as_ref() == Some(&pod.id))
        });
        if let Some(pod) = named.nth(pick % NODES) {
            pod.presence = Presence::Gone;
            self.hidden.entry(pod.node.clone()).or_default().insert(pod.uid.clone());
            if let Some(container) =
                self.containers.get_mut(&pod.uid).filter(|container| container.is_alive())
            {
                container.die(137, "Error");
            }
        }
    }

    fn act_on(&mut self, uid: &str, action: u8, pick: usize) {
        let container = self.containers.get_mut(uid).unwrap();
        match action {
            7 if !container.in_flight.is_empty() => {
                let position = pick % container.in_flight.len();
                let snapshot = if pick.is_multiple_of(3) {
                    container.in_flight[position].clone()
                } else {
                    container.in_flight.remove(position)
                };
                self.hear(uid, snapshot);
            }
            8 => container.in_flight.clear(),
            9 if container.is_alive() => container.send(),
            10..=12 if container.stays && !pick.is_multiple_of(5) => self.work(uid, pick),
            10 if container.is_alive() && pick.is_multiple_of(2) => container.die(137, "Error"),
            10 if container.is_alive() => {
                let is_starved = u64::from(container.runner.is_executing());
                *self.starved.entry(container.node.clone()).or_default() += is_starved;
                container.die(137, "OOMKilled");
            }
            11 if container.is_alive() && container.runner.is_done() => container.die(0, "Completed"),
            12 if pick.is_multiple_of(4) => {
                // The script wrote over the message.
                container.stop();
                container.end = Some((1, "Error", "scribbled".into()));
                self.hidden.entry(container.node.clone()).or_default().insert(uid.to_owned());
            }
            13 => {
                if let Some(session) = self.toy.observed.sessions.get_mut(uid) {
                    (session.connected, session.left) = (false, Some(self.toy.now));
                }
                if pick.is_multiple_of(2) {
                    container.orders.clear();
                }
            }
            14 | 15 if !container.orders.is_empty() => {
                let position = pick % container.orders.len();
                let order = if pick.is_multiple_of(3) {
                    container.orders[position].clone()
                } else {
                    container.orders.remove(position)
                };
                container.hear(order);
            }
            _ => self.work(uid, pick),
        }
        self.take_down(uid);
    }

    fn hear(&mut self, uid: &str, snapshot: Snapshot) {
        if snapshot.record.run < self.containers[uid].runner.record.run {
            // A connection keeps the order, and each begins with the newest.
            return;
        }
        let session =
            SessionFacts { connected: true, snapshot: Some(snapshot.into()), ..SessionFacts::default() };
        self.toy.observed.sessions.insert(uid.to_owned(), session);
    }

    /// The next step of a runner.
    fn work(&mut self, uid: &str, pick: usize) {
        let deleting = self.toy.observed.pods.iter().any(|pod| pod.uid == uid && pod.deleting);
        let container = self.containers.get_mut(uid).unwrap();
        if !deleting && container.is_idle() {
            container.go_on();
            self.went_on += u64::from(!container.runner.is_done());
        }
        if !container.is_alive() || container.runner.is_done() {
            return;
        }
        if deleting {
            container.stop();
        } else if container.runner.is_executing() {
            container.runner.finish([0, 4, 1, -9][pick % 4]);
        } else if container.runner.executions() == container.executions {
            container.runner.complete();
        } else if container.executions == u64::MAX && pick % 9 == 8 {
            container.runner.end("Running", "NoSession");
        } else {
            container.runner.begin();
            let record = &container.runner.record;
            let is_hidden = self.hidden.contains_key(&container.node);
            let attempt = if is_hidden { record.attempt } else { 0 };
            let serial = (container.node.clone(), record.run, attempt, record.serial);
            assert!(self.serials.insert(serial.clone()), "{serial:?} is executed twice");
            *self.begun.entry(container.node.clone()).or_default() += 1;
        }
        container.publish();
        let node = container.node.clone();
        let at_work = self
            .containers
            .values()
            .filter(|other| other.node == node && other.is_alive() && other.runner.is_executing());
        assert!(at_work.count() <= 1, "two runners at work on {node}");
    }

    /// Writes new results into the ledger.
    fn take_down(&mut self, uid: &str) {
        let container = &self.containers[uid];
        let results = self.results.entry(container.node.clone()).or_default();
        for execution in &container.runner.history {
            if !results.iter().any(|known| known.key() == execution.key()) {
                results.push(execution.clone());
            }
        }
    }

    /// Everybody does what is left to do, and everything is delivered.
    fn come_to_rest(&mut self) {
        for _ in 0..40 {
            self.start_containers();
            self.send_orders();
            for uid in self.containers.keys().cloned().collect::<Vec<_>>() {
                let is_endless = self.containers[&uid].executions == u64::MAX;
                let container = self.containers.get_mut(&uid).unwrap();
                for order in std::mem::take(&mut container.orders) {
                    container.hear(order);
                }
                for _ in 0..8 {
                    if !is_endless || self.toy.observed.pods.iter().any(|pod| pod.uid == uid && pod.deleting)
                    {
                        self.work(&uid, 0);
                    }
                }
                let container = self.containers.get_mut(&uid).unwrap();
                if container.is_alive() {
                    let deleting = self.toy.observed.pods.iter().any(|pod| pod.uid == uid && pod.deleting);
                    if container.runner.is_done()
                        && container.is_final_stored
                        && (deleting || !container.is_idle())
                    {
                        container.die(0, "Completed");
                    }
                    let container = self.containers.get_mut(&uid).unwrap();
                    container.send();
                    let snapshot = container.in_flight.pop().unwrap();
                    self.hear(&uid, snapshot);
                }
                self.take_down(&uid);
            }
            self.report(0, true);
            self.toy.step();
            self.acknowledge();
            self.toy.wait_seconds(61);
        }
    }

    fn acknowledge(&mut self) {
        for taken in std::mem::take(&mut self.toy.taken) {
            if let Some(container) = self.containers.get_mut(&taken.pod_uid) {
                let (run, newest) = container.published[&taken.ack.seq];
                container.is_final_stored |=
                    container.runner.is_done() && taken.ack.seq == container.runner.record.seq;
                if run == container.runner.record.run {
                    container.stored = container.stored.max(newest);
                }
                if let Some(session) = self.toy.observed.sessions.get_mut(&taken.pod_uid) {
                    forget_stored(session, run, newest);
                }
            }
        }
        for container in self.containers.values_mut() {
            // Nobody waits for ever.
            if container.is_alive() && container.runner.is_done() && !container.is_final_stored {
                container.rounds += 1;
                if !container.stays {
                    container.is_final_stored = true;
                } else if container.rounds > 3 {
                    container.die(0, "Completed");
                }
            }
        }
    }

    fn check(&mut self) {
        self.toy.settle();
        let status = self.toy.status().clone();
        let endless = status.run.is_some()
            && self.toy.observed.object.spec.repeat.as_ref().is_some_and(|repeat| repeat.count.is_none());
        for (name, entry) in &status.nodes {
            assert!(entry.node_state().is_done() != endless, "{entry:#?}");
            let mut results = self.results.get(name).cloned().unwrap_or_default();
            results.sort_by_key(Execution::key);
            let begun = self.begun.get(name).copied().unwrap_or(0);
            if let Some(hidden) = self.hidden.get(name) {
                let acked = self.acked.get(name).map_or(0, BTreeSet::len) as u64;
                let known = acked..=begun + hidden.len() as u64;
                assert!(known.contains(&entry.executions), "{known:?} {entry:#?}");
                continue;
            }
            assert_ne!(entry.reason, "PodLost", "{entry:#?}");
            let failures = results.iter().filter(|result| result.failed()).count() as u64;
            let starved = self.starved.get(name).copied().unwrap_or(0);
            assert_eq!(entry.executions, begun, "{entry:#?}");
            assert!((failures..=failures + starved).contains(&entry.failures), "{failures} {entry:#?}");
            let newest = &results[results.len().saturating_sub(KEPT)..];
            let keys = |history: &[Execution]| history.iter().map(Execution::key).collect::<Vec<_>>();
            assert_eq!(keys(&entry.history), keys(newest), "{name}");
            for (kept, result) in entry.history.iter().zip(newest) {
                let is_acked = self.acked.get(name).is_some_and(|acked| acked.contains(&result.key()));
                assert!(result.stdout.ends_with(&kept.stdout) && result.exit_code == kept.exit_code);
                assert!(!is_acked || kept == result, "cut although it was acknowledged");
            }
            assert_eq!(entry.node_state() == NodeState::Succeeded, entry.reason.is_empty() && !endless);
        }
    }
}

/// What is stored is not kept any more.
fn forget_stored(session: &mut SessionFacts, run: u64, newest: u64) {
    if let Some(snapshot) = session.snapshot.as_mut().map(Arc::make_mut) {
        snapshot
            .history
            .retain(|execution| execution.run > run || (execution.run == run && execution.serial > newest));
    }
}

/// Snapshots of one runner, some of them with cut outputs.
fn snapshots(codes: &[i32], end: Option<(&str, &str)>, toy: &mut Toy) -> (Vec<Snapshot>, String) {
    let mut runner = toy.runner("n1");
    let mut snapshots = vec![runner.snapshot()];
    for code in codes {
        runner.begin();
        snapshots.push(runner.snapshot());
        runner.finish(*code);
        snapshots.push(runner.snapshot());
    }
    if let Some((state, reason)) = end {
        runner.end(state, reason);
    } else {
        runner.complete();
    }
    snapshots.push(runner.snapshot());
    let cut = snapshots.iter().map(|whole| {
        let mut cut = whole.clone();
        for execution in &mut cut.history {
            execution.stdout.drain(..execution.stdout.len() / 2);
        }
        cut
    });
    let cut: Vec<_> = cut.collect();
    snapshots.extend(cut);
    (snapshots, runner.message())
}

/// The entry after a pod that told all of this and, at some point, ended.
fn entry_after(
    codes: &[i32],
    end: Option<(&str, &str)>,
    order: &[usize],
    ends_at: usize,
    repeat: bool,
) -> NodeStatus {
    let count = codes.len().max(1);
    let spec =
        format!("{{script: x, nodeLabelSelector: {{}}, repeat: {{count: {count}, periodSeconds: 1}}}}");
    let mut toy = Toy::new(&spec, 1);
    toy.settle();
    let (snapshots, message) = snapshots(codes, end, &mut toy);
    let uid = toy.observed.pods[0].uid.clone();
    for (position, index) in order.iter().enumerate() {
        if position == ends_at {
            toy.terminate("n1", 1, "Error", &message);
            toy.settle();
        }
        let session = SessionFacts {
            connected: true,
            snapshot: Some(snapshots[*index].clone().into()),
            ..SessionFacts::default()
        };
        toy.observed.sessions.insert(uid.clone(), session);
        toy.settle();
        if repeat {
            let before = toy.status().nodes["n1"].clone();
            toy.observed.sessions.clear();
            toy.settle();
            assert_eq!(toy.status().nodes["n1"], before, "stored once is stored");
        }
    }
    if ends_at >= order.len() {
        toy.terminate("n1", 1, "Error", &message);
        toy.settle();
    }
    toy.status().nodes["n1"].clone()
}

fn walk(spec: usize, actions: Vec<(u8, usize)>) {
    let mut walk = Walk::new(spec);
    for _ in 0..4 {
        walk.toy.step();
    }
    for (action, pick) in actions {
        walk.act(action, pick);
    }
    walk.come_to_rest();
    walk.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn snapshots_in_any_order_before_and_after_the_end_give_the_same_entry(
        codes in vec(prop::sample::select(vec![0, 1, -9]), 0..4),
        end in prop::sample::select(vec![
            None, Some(("Stopped", "Interrupted")), Some(("Failed", "RunnerFailed")), Some(("Unknown", "Restarted")),
        ]),
        order in Just((0..16).collect::<Vec<usize>>()).prop_shuffle(),
        (again, ends_at) in (vec(any::<prop::sample::Index>(), 0..4), 0..24_usize),
    ) {
        let sorted: Vec<usize> = (0..codes.len() * 4 + 4).collect();
        let order: Vec<usize> = order.into_iter().filter(|index| *index < sorted.len()).collect();
        let mut repeated = order.clone();
        repeated.extend(again.iter().map(|index| index.index(order.len())));
        let expected = entry_after(&codes, end, &sorted, usize::MAX, false);
        prop_assert_eq!(entry_after(&codes, end, &repeated, ends_at, true), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_status_tells_what_happened(
        spec in 0..FIRST_IDLE,
        actions in vec((0..20_u8, any::<usize>()), 0..160),
    ) {
        walk(spec, actions);
    }

    #[test]
    fn whatever_happens_runs_that_go_on_in_the_same_pods_are_told_as_they_happened(
        spec in FIRST_IDLE..SPECS.len(),
        actions in vec((prop_oneof![8 => Just(20), 1 => Just(2), 6 => 0..20_u8], any::<usize>()), 0..160),
    ) {
        walk(spec, actions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "long; run by ./test.sh faults"]
    fn exhaustive_walks_end_with_a_true_status(
        spec in 0..SPECS.len(),
        actions in vec((prop_oneof![5 => Just(20), 20 => 0..20_u8], any::<usize>()), 0..400),
    ) {
        walk(spec, actions);
    }
}
