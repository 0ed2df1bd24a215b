//! Tests of runs that go on in the pods of the run before.

use std::collections::BTreeMap;

use scriptrunner_api::{session::RunOrder, v1alpha1::NodeStatus};

use super::{
    runner::ToyRunner,
    toy::{Toy, settings_with_sessions},
};
use crate::{
    observed::{ContainerFacts, Presence},
    plan::{Action, plan},
    pod::RunnerTimes,
    validate::{Sources, validate},
};

const FIRST: &str = "{script: x, nodeLabelSelector: {}, runnerIdleSeconds: 600}";
const SECOND: &str = "{script: y, args: [a], nodeLabelSelector: {}, runnerIdleSeconds: 600}";
const ONE_BY_ONE: &str =
    "{script: x, nodeLabelSelector: {}, runnerIdleSeconds: 600, parallelism: 1, executionDeadlineSeconds: 9}";
/// How long a runner that is not connected is waited for.
const PATIENCE_SECONDS: i64 = RunnerTimes::DEFAULT.reconnect_seconds as i64;

/// A cluster whose runners really speak: what is acknowledged is not said again.
struct House {
    toy: Toy,
    runners: BTreeMap<String, ToyRunner>,
}

impl House {
    fn new(spec: &str, nodes: usize) -> Self {
        let mut toy = Toy::new(spec, nodes);
        toy.settings = settings_with_sessions();
        Self { toy, runners: BTreeMap::new() }
    }

    /// Every node's runner has done the first run, and waits.
    fn idle(spec: &str, nodes: usize) -> Self {
        let mut house = Self::new(spec, nodes);
        for _ in 0..nodes {
            house.settle();
            house.start();
            for node in house.nodes() {
                if house.runners.get(&node).is_some_and(|runner| !runner.is_done()) {
                    house.finish(&node, 0);
                }
            }
        }
        house.settle();
        assert!(house.toy.states().iter().all(|state| state == "Succeeded"), "{:?}", house.toy.states());
        assert_eq!((house.toy.live_pods(), house.toy.created), (nodes, nodes), "pods stay");
        house
    }

    fn nodes(&self) -> Vec<String> {
        self.toy.observed.nodes.keys().cloned().collect()
    }

    fn entry(&self, node: &str) -> &NodeStatus {
        &self.toy.status().nodes[node]
    }

    /// Plans until nothing changes; what is taken in is acknowledged.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.toy.settle();
            for taken in std::mem::take(&mut self.toy.taken) {
                let session = self.toy.observed.sessions.get_mut(&taken.pod_uid).unwrap();
                let mut snapshot = (**session.snapshot.as_ref().unwrap()).clone();
                snapshot.history.clear();
                session.snapshot = Some(snapshot.into());
            }
        }
    }

    /// The containers of new pods start.
    fn start(&mut self) {
        self.toy.start_all();
        for node in self.nodes() {
            let has_pod = self.toy.observed.pods.iter().any(|pod| pod.node == node && !pod.has_ended());
            let uid = if has_pod { self.toy.pod(&node).uid.clone() } else { continue };
            if !self.toy.observed.sessions.contains_key(&uid) {
                let runner = self.toy.runner(&node);
                self.toy.hear_pod(uid, &runner);
                self.runners.insert(node, runner);
            }
        }
    }

    fn finish(&mut self, node: &str, code: i32) {
        let runner = self.runners.get_mut(node).unwrap();
        runner.execute(code);
        runner.complete();
        self.hear(node);
    }

    fn hear(&mut self, node: &str) {
        let runner = self.runners[node].clone();
        self.toy.hear(node, &runner);
    }

    /// What the pods were told since the last time, by node.
    fn orders(&mut self) -> BTreeMap<String, RunOrder> {
        let orders = std::mem::take(&mut self.toy.orders);
        let node = |uid: &str| self.toy.observed.pods.iter().find(|pod| pod.uid == uid).unwrap().node.clone();
        orders.iter().map(|(uid, order)| (node(uid), (**order).clone())).collect()
    }

    /// The runner of a node hears its order, and says so.
    fn go_on(&mut self, node: &str) {
        let order = self.orders()[node].clone();
        self.runners.get_mut(node).unwrap().go_on(&order);
        self.hear(node);
    }

    fn disconnect(&mut self, node: &str) {
        let uid = self.toy.pod(node).uid.clone();
        let session = self.toy.observed.sessions.get_mut(&uid).unwrap();
        (session.connected, session.left) = (false, Some(self.toy.now));
    }

    /// Another process begins; sessions come later, if at all.
    fn restart(&mut self) {
        self.toy.observed.sessions.clear();
        self.toy.observed.since = self.toy.now;
    }

    fn state(&self, node: &str) -> (&str, &str, u64, u32) {
        let entry = self.entry(node);
        (entry.state.as_str(), entry.reason.as_str(), entry.run, entry.attempts)
    }

    fn deleting(&mut self, node: &str) -> bool {
        self.toy.pod(node).deleting
    }

    /// The container of the node's pod ends with what its runner said last.
    fn end(&mut self, node: &str, exit_code: i32) {
        let message = self.runners[node].message();
        self.toy.terminate(node, exit_code, "Completed", &message);
    }
}

#[test]
fn edited_script_runs_in_the_same_pods() {
    let mut house = House::idle(FIRST, 3);
    house.toy.edit(SECOND);
    house.settle();
    let orders = house.orders();
    assert_eq!(orders.keys().collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    for (node, order) in orders {
        assert_eq!(house.state(&node), ("Starting", "", 2, 1));
        assert_eq!((order.run, order.attempt, order.first_serial, order.remaining), (2, 1, 1, 1));
        assert_eq!((order.script.as_str(), order.history_limit, order.grace_seconds), ("y", 5, 10));
        assert!(order.spec.contains("\"args\":[\"a\"]"), "{}", order.spec);
        house.runners.get_mut(&node).unwrap().go_on(&order);
        house.hear(&node);
    }
    house.settle();
    assert_eq!(house.toy.states(), ["Running"; 3]);
    assert_eq!(house.orders().len(), 0, "it was heard");
    house.finish("n1", 0);
    house.finish("n2", 0);
    house.finish("n3", 4);
    house.settle();
    assert_eq!(house.toy.states(), ["Succeeded", "Succeeded", "Failed"]);
    let entry = house.entry("n3");
    assert_eq!((entry.executions, entry.failures, entry.exit_code, entry.history.len()), (2, 1, Some(4), 2));
    assert_eq!((house.toy.created, house.toy.live_pods()), (3, 3));
    assert_eq!(
        house.toy.observed.config_maps.len(),
        2,
        "that of run 2, and that which the pods have mounted"
    );
    // And once more: the failure of the run before is not one of this.
    house.toy.edit(FIRST);
    house.settle();
    house.go_on("n3");
    house.finish("n3", 0);
    house.settle();
    let entry = house.entry("n3");
    assert_eq!((house.state("n3"), entry.executions, entry.failures), (("Succeeded", "", 3, 1), 3, 1));
    assert_eq!(house.toy.observed.config_maps.len(), 2, "not one more with each run");
}

#[test]
fn order_is_given_only_when_the_assignment_is_stored_and_until_it_is_heard() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    let orders = |house: &House| {
        let valid = validate(&house.toy.observed.object.spec, &Sources::default());
        let actions = plan(&valid, &house.toy.observed, &house.toy.settings, house.toy.now).actions;
        actions.iter().filter(|action| matches!(action, Action::SendRun { .. })).count()
    };
    while house.entry("n1").run == 1 {
        assert_eq!((orders(&house), house.toy.orders.len()), (0, 0));
        house.toy.step();
    }
    assert_eq!(house.state("n1"), ("Starting", "", 2, 1), "in the write that begins the run");
    let pod_id = house.toy.pod("n1").id.clone();
    assert_eq!(house.entry("n1").pod_id, Some(pod_id));
    for _ in 0..3 {
        assert_eq!(orders(&house), 1, "again at every look");
    }
    house.restart();
    assert_eq!(orders(&house), 0, "nobody is there to hear it");
    house.hear("n1");
    assert_eq!(orders(&house), 1, "by another process too");
    house.settle();
    house.go_on("n1");
    assert_eq!(orders(&house), 0);
}

#[test]
fn other_shapes_need_other_pods() {
    for spec in [
        "{script: y, nodeLabelSelector: {}, runnerIdleSeconds: 600, env: [{name: A, value: b}]}",
        "{script: y, nodeLabelSelector: {}, runnerIdleSeconds: 600, interpreter: [sh]}",
        "{script: y, nodeLabelSelector: {}, runnerIdleSeconds: 600, dependencies: {pip: [six]}}",
        "{script: y, nodeLabelSelector: {}, runnerIdleSeconds: 600, runAs: Root}",
        "{script: y, nodeLabelSelector: {}, runnerIdleSeconds: 600, repeat: {count: 2, periodSeconds: 1}}",
        "{script: y, nodeLabelSelector: {}, runnerIdleSeconds: 600, terminationGracePeriodSeconds: 60}",
        "{script: y, nodeLabelSelector: {}, runnerIdleSeconds: 600, repeat: {periodSeconds: 1}}",
        "{script: y, nodeLabelSelector: {}, runnerIdleSeconds: 0}",
        "{script: y, nodeLabelSelector: {}}",
    ] {
        let mut house = House::idle(FIRST, 1);
        house.toy.edit(spec);
        house.settle();
        assert_eq!((house.orders().len(), house.toy.created), (0, 1), "{spec}");
        assert!(house.deleting("n1"), "{spec}");
        assert_eq!(house.state("n1"), ("Pending", "", 2, 0), "nothing begins beside it: {spec}");
        house.end("n1", 0);
        house.settle();
        assert_eq!((house.toy.created, house.state("n1")), (2, ("Starting", "", 2, 1)), "{spec}");
        assert_eq!(house.entry("n1").executions, 1, "{spec}");
    }
}

#[test]
fn limits_and_idle_time_are_no_part_of_the_shape() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(
        "{script: y, nodeLabelSelector: {}, runnerIdleSeconds: 5, historyLimit: 9, executionDeadlineSeconds: 7, output: {stdoutLimitBytes: 8}}",
    );
    house.settle();
    let order = house.orders()["n1"].clone();
    assert_eq!((order.history_limit, order.execution_deadline_seconds), (9, Some(7)));
    assert_eq!(order.stdout_limit_bytes, 8);
    house.toy.settings.runner_image = "newer".into();
    let mut house = House::idle(FIRST, 1);
    house.toy.settings.runner_image = "newer".into();
    house.toy.edit(SECOND);
    house.settle();
    assert!(house.deleting("n1"), "another image is another shape");
}

#[test]
fn only_as_many_are_told_as_may_be_busy() {
    let mut house = House::idle(ONE_BY_ONE, 3);
    house.toy.edit(&ONE_BY_ONE.replace("script: x", "script: y"));
    for node in ["n1", "n2", "n3"] {
        house.settle();
        let active = house.toy.states().iter().filter(|state| *state == "Starting").count();
        assert_eq!((active, house.state(node)), (1, ("Starting", "", 2, 1)));
        assert!((1..=3).all(|number| !house.deleting(&format!("n{number}"))), "they wait for their turn");
        house.go_on(node);
        house.settle();
        assert_eq!(house.orders().len(), 0, "one is busy");
        house.finish(node, 0);
    }
    house.settle();
    assert_eq!((house.toy.states(), house.toy.created), (vec!["Succeeded".to_owned(); 3], 3));
}

#[test]
fn runner_that_does_not_come_back_is_replaced_but_not_beside_its_pod() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    house.disconnect("n1");
    house.toy.wait_seconds(PATIENCE_SECONDS - 1);
    house.settle();
    assert_eq!(house.state("n1"), ("Starting", "", 2, 1), "it may come back");
    assert!(!house.deleting("n1"));
    house.toy.wait_seconds(2);
    house.settle();
    assert_eq!(house.state("n1"), ("Starting", "NotConnected", 2, 1));
    assert!(house.deleting("n1") && house.toy.created == 1, "it may have heard the order");
    house.end("n1", 0);
    house.settle();
    assert_eq!((house.toy.created, house.state("n1")), (2, ("Starting", "", 2, 2)));
    let entry = house.entry("n1");
    assert_eq!((entry.executions, entry.failures), (1, 0), "nothing was lost");
    house.start();
    house.finish("n1", 0);
    house.settle();
    assert_eq!(house.state("n1"), ("Succeeded", "", 2, 2));
}

#[test]
fn runner_that_was_given_up_and_had_heard_counts() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    let order = house.orders()["n1"].clone();
    house.disconnect("n1");
    house.toy.wait_seconds(PATIENCE_SECONDS + 1);
    house.settle();
    let runner = house.runners.get_mut("n1").unwrap();
    runner.go_on(&order);
    runner.execute(0);
    runner.complete();
    house.end("n1", 0);
    house.settle();
    assert_eq!((house.state("n1"), house.entry("n1").executions), (("Succeeded", "", 2, 1), 2));
    assert_eq!(house.toy.created, 1);
}

#[test]
fn runner_that_was_given_up_before_its_first_execution_is_replaced() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    let order = house.orders()["n1"].clone();
    house.disconnect("n1");
    house.toy.wait_seconds(PATIENCE_SECONDS + 1);
    house.settle();
    let runner = house.runners.get_mut("n1").unwrap();
    runner.go_on(&order);
    runner.end("Stopped", "Interrupted");
    house.end("n1", 6);
    house.settle();
    assert_eq!((house.toy.created, house.state("n1")), (2, ("Starting", "", 2, 2)));
}

#[test]
fn runner_that_says_nothing_of_its_order_is_replaced_at_the_start_deadline() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    let uid = house.toy.pod("n1").uid.clone();
    house.toy.observed.sessions.get_mut(&uid).unwrap().ordered = Some((2, house.toy.now));
    house.toy.wait_seconds(599);
    house.settle();
    assert!(!house.deleting("n1"));
    house.toy.wait_seconds(2);
    house.settle();
    assert!(house.deleting("n1"));
    assert_eq!(house.state("n1"), ("Starting", "NotConnected", 2, 1));
}

#[test]
fn end_of_a_pod_that_was_told_to_go_on_says_whether_it_did() {
    let went_on = |house: &mut House, work: &dyn Fn(&mut ToyRunner)| {
        let order = house.orders()["n1"].clone();
        let runner = house.runners.get_mut("n1").unwrap();
        runner.go_on(&order);
        work(runner);
    };
    // Its message is of the run before: this one never began.
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    house.end("n1", 0);
    house.settle();
    assert_eq!((house.toy.created, house.state("n1")), (2, ("Starting", "", 2, 2)));
    assert_eq!((house.entry("n1").executions, house.entry("n1").failures), (1, 0));
    // Its message is of this run.
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    went_on(&mut house, &|runner| runner.begin());
    house.end("n1", 137);
    house.settle();
    assert_eq!((house.state("n1"), house.entry("n1").executions), (("Unknown", "RunnerKilled", 2, 1), 2));
    assert_eq!(house.toy.created, 1);
    // It is gone and left nothing.
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    house.toy.pod("n1").presence = Presence::Gone;
    house.settle();
    assert_eq!((house.state("n1"), house.toy.created), (("Unknown", "PodDeleted", 2, 1), 1));
    // It spoke of this run before its message was lost.
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    let first_words = house.runners["n1"].message();
    went_on(&mut house, &|runner| runner.begin());
    house.hear("n1");
    house.settle();
    house.toy.terminate("n1", 137, "Error", &first_words);
    house.settle();
    assert_eq!((house.state("n1").0, house.entry("n1").executions), ("Unknown", 2));
    assert_eq!(house.toy.created, 1, "a message that is older than what was said proves nothing");
}

#[test]
fn idle_pod_that_somebody_deletes_gives_a_new_one_in_the_next_run() {
    let mut house = House::idle(FIRST, 2);
    house.toy.pod("n1").deleting = true;
    house.end("n1", 0);
    house.settle();
    assert_eq!(house.state("n1"), ("Succeeded", "", 1, 1));
    house.toy.edit(SECOND);
    house.settle();
    assert_eq!(house.orders().keys().collect::<Vec<_>>(), ["n2"]);
    assert_eq!((house.toy.created, house.state("n1")), (3, ("Starting", "", 2, 1)));
}

#[test]
fn idle_time_that_is_over_leaves_the_outcome_as_it_is() {
    let mut house = House::idle(FIRST, 2);
    house.toy.edit(SECOND);
    house.settle();
    house.go_on("n1");
    house.finish("n1", 0);
    house.settle();
    house.toy.wait_seconds(600);
    house.end("n1", 0);
    house.settle();
    assert_eq!(house.state("n1"), ("Succeeded", "", 2, 1));
    assert_eq!(house.toy.live_pods(), 1, "a success leaves no pod");
    assert_eq!(house.toy.created, 2);
}

#[test]
fn failed_script_leaves_its_pod_for_a_look_also_in_a_later_run() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    house.go_on("n1");
    house.finish("n1", 3);
    house.settle();
    house.end("n1", 1);
    house.settle();
    assert!(!house.deleting("n1"));
    assert_eq!(house.state("n1"), ("Failed", "ScriptFailed", 2, 1));
    assert_eq!((house.toy.live_pods(), house.toy.created), (1, 1));
    house.toy.edit(FIRST);
    house.settle();
    assert_eq!((house.toy.live_pods(), house.toy.created), (1, 2), "a newer run came first");
}

#[test]
fn killed_script_fails_although_its_container_goes_on() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    house.go_on("n1");
    house.finish("n1", -9);
    house.settle();
    assert_eq!(house.state("n1"), ("Failed", "ScriptFailed", 2, 1));
    assert!(!house.deleting("n1"));
}

#[test]
fn restarted_operator_waits_for_idle_runners_to_come_back() {
    let mut house = House::idle(FIRST, 2);
    house.restart();
    house.settle();
    assert_eq!(house.toy.live_pods(), 2, "they are not surplus");
    house.toy.edit(SECOND);
    house.settle();
    assert_eq!((house.toy.states(), house.orders().len()), (vec!["Pending".to_owned(); 2], 0));
    assert!(!house.deleting("n1") && !house.deleting("n2"));
    // One comes back and does not know that its answer is stored.
    house.hear("n1");
    house.settle();
    house.settle();
    assert_eq!(house.state("n1"), ("Starting", "", 2, 1));
    assert_eq!(house.orders().keys().collect::<Vec<_>>(), ["n1"]);
    house.toy.wait_seconds(PATIENCE_SECONDS + 1);
    house.settle();
    assert!(house.deleting("n2"), "the other one does not");
    house.end("n2", 0);
    house.settle();
    assert_eq!((house.toy.created, house.state("n2")), (3, ("Starting", "", 2, 1)));
}

#[test]
fn restarted_operator_acknowledges_what_an_idle_runner_says_again() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    house.go_on("n1");
    house.finish("n1", 0);
    house.toy.settle();
    house.restart();
    house.hear("n1");
    let before = house.entry("n1").clone();
    house.toy.settle();
    assert_eq!(house.toy.taken.len(), 1, "stored is stored");
    assert_eq!(*house.entry("n1"), before);
}

#[test]
fn newer_edit_stops_a_runner_that_went_on_and_counts_it_once() {
    for (has_begun, executions) in [(false, 1), (true, 2)] {
        let mut house = House::idle(FIRST, 1);
        house.toy.edit(SECOND);
        house.settle();
        let order = house.orders()["n1"].clone();
        let runner = house.runners.get_mut("n1").unwrap();
        if has_begun {
            runner.go_on(&order);
            runner.begin();
            house.hear("n1");
            house.settle();
        }
        house.toy.edit("{script: z, nodeLabelSelector: {}, runnerIdleSeconds: 600}");
        house.settle();
        assert_eq!((house.state("n1"), house.entry("n1").pod_run), (("Pending", "", 3, 0), 2));
        assert!(house.deleting("n1") && house.toy.created == 1);
        if has_begun {
            let runner = house.runners.get_mut("n1").unwrap();
            runner.finish(143);
            runner.end("Stopped", "Interrupted");
        }
        house.end("n1", 6);
        house.settle();
        assert_eq!((house.toy.created, house.state("n1")), (2, ("Starting", "", 3, 1)));
        let entry = house.entry("n1");
        assert_eq!((entry.executions, entry.failures, entry.pod_run), (executions, executions - 1, 0));
    }
}

#[test]
fn order_that_was_under_way_when_a_newer_run_began_is_counted_if_it_was_heard() {
    let mut house = House::idle(FIRST, 1);
    house.toy.edit(SECOND);
    house.settle();
    let order = house.orders()["n1"].clone();
    house.toy.edit("{script: z, nodeLabelSelector: {}, runnerIdleSeconds: 600}");
    house.settle();
    // Nobody had heard of it yet.
    let runner = house.runners.get_mut("n1").unwrap();
    runner.go_on(&order);
    runner.execute(0);
    runner.complete();
    house.end("n1", 0);
    house.settle();
    assert_eq!((house.state("n1"), house.entry("n1").executions), (("Starting", "", 3, 1), 2));
}

#[test]
fn node_that_is_no_longer_meant_loses_its_idle_pod() {
    let spec = |script: &str, names: &str| {
        format!("{{script: {script}, nodeNames: [{names}], runnerIdleSeconds: 600}}")
    };
    let mut house = House::idle(&spec("x", "n1, n2"), 2);
    house.toy.edit(&spec("y", "n1"));
    house.settle();
    assert_eq!(house.orders().keys().collect::<Vec<_>>(), ["n1"]);
    assert!(house.deleting("n2") && !house.deleting("n1"));
}

#[test]
fn deleted_object_deletes_idle_pods() {
    let mut house = House::idle(FIRST, 2);
    house.toy.observed.object.deleting = true;
    house.toy.step();
    assert!(house.deleting("n1") && house.deleting("n2"));
}

#[test]
fn verdict_does_not_wait_for_idle_pods() {
    let mut house = House::idle(FIRST, 2);
    let holds = |house: &House, type_: &str| {
        let conditions = &house.toy.status().conditions;
        conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    assert!(holds(&house, "Complete") && !holds(&house, "Failed"));
    house.toy.edit(SECOND);
    house.settle();
    assert!(!holds(&house, "Complete"));
    let orders = house.orders();
    for (node, code) in [("n1", 0), ("n2", 1)] {
        house.runners.get_mut(node).unwrap().go_on(&orders[node]);
        house.finish(node, code);
    }
    house.settle();
    assert!(!holds(&house, "Complete") && holds(&house, "Failed"));
    assert!(house.toy.observed.pods.iter().all(|pod| pod.container == ContainerFacts::Running));
    assert!(house.toy.status().run.as_ref().unwrap().completion_time.is_some());
}

#[test]
fn idle_runners_keep_nobody_from_starting() {
    let mut house = House::idle(ONE_BY_ONE, 2);
    house.toy.add_node("n3");
    house.settle();
    assert_eq!(house.state("n3"), ("Starting", "", 1, 1));
}

#[test]
fn runner_that_could_not_do_its_work_is_not_told_to_go_on() {
    let mut house = House::new(FIRST, 1);
    house.settle();
    house.start();
    house.runners.get_mut("n1").unwrap().end("Failed", "DependencyInstallFailed");
    house.hear("n1");
    house.settle();
    assert_eq!(house.state("n1").0, "Failed");
    house.toy.edit(SECOND);
    house.settle();
    assert_eq!((house.orders().len(), house.deleting("n1")), (0, true));
}

#[test]
fn pods_say_that_their_runners_stay_only_where_they_can() {
    let args = |spec: &str, with_sessions: bool| {
        let mut house = House::new(spec, 1);
        if !with_sessions {
            house.toy.settings.session = None;
        }
        house.settle();
        let made = &house.toy.pods_made[0];
        let has_shape = made.metadata.annotations.as_ref().unwrap().contains_key("scriptrunner.io/shape");
        let args = made.spec.as_ref().unwrap().containers[0].args.clone().unwrap();
        let idle = args.iter().position(|arg| arg == "--idle-seconds").map(|at| args[at + 1].clone());
        assert_eq!(has_shape, idle.is_some());
        idle
    };
    assert_eq!(args(FIRST, true).as_deref(), Some("600"));
    assert_eq!(args(FIRST, false), None);
    assert_eq!(args("{script: x, nodeLabelSelector: {}, runnerIdleSeconds: 0}", true), None);
    assert_eq!(args("{script: x, nodeLabelSelector: {}}", true), None);
    let endless = "{script: x, nodeLabelSelector: {}, runnerIdleSeconds: 9, repeat: {periodSeconds: 1}}";
    assert_eq!(args(endless, true), None);
}
