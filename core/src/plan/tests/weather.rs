//! Random weather: nodes come, go, change and are replaced, specs are edited, the operator dies between any two actions. No
//! node is run twice, each is counted once, and a sample stays within its size.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::{collection::vec, prelude::*};
use scriptrunner_api::{labels, v1alpha1::NodeState};

use super::{
    targets::{label, taint},
    toy::{Toy, succeeded},
};
use crate::observed::{ContainerFacts, NodeFacts, Presence};

/// Specs that differ only in where they run.
const SPECS: [&str; 9] = [
    "{script: x, nodeLabelSelector: {}}",
    "{script: x, nodeLabelSelector: {matchLabels: {a: b}}}",
    "{script: x, nodeNames: [n1, n2, n3, n7]}",
    "{script: x, nodeLabelSelector: {}, excludedNodeNames: [n1]}",
    "{script: x, nodeLabelSelector: {}, nodeSample: 2}",
    "{script: x, nodeLabelSelector: {}, nodeSample: 2, newNodePolicy: Ignore}",
    "{script: x, nodeLabelSelector: {}, notReadyNodePolicy: Skip, unschedulableNodePolicy: Skip, podStartDeadlineSeconds: 20}",
    "{script: x, nodeLabelSelector: {matchLabels: {a: b}}, newNodePolicy: Ignore, tolerations: [{key: t, operator: Exists}]}",
    "{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 9}",
];
/// Largest sample of [`SPECS`].
const SAMPLE: usize = 2;

/// Nodes that change at random, and a ledger of what ran.
struct Weather {
    toy: Toy,
    spec: usize,
    /// Whether the spec was never edited.
    is_constant: bool,
    uids: usize,
    /// Nodes that are gone and may come back as they were.
    gone: Vec<NodeFacts>,
    /// Pods that started, by run and UID of the node.
    started: BTreeMap<(u64, String), BTreeSet<String>>,
}

impl Weather {
    fn new(spec: usize) -> Self {
        let toy = Toy::new(SPECS[spec], 4);
        Self { toy, spec, is_constant: true, uids: 0, gone: Vec::new(), started: BTreeMap::new() }
    }

    fn act(&mut self, action: u8, pick: usize) {
        let names: Vec<String> = self.toy.observed.nodes.keys().cloned().collect();
        let name = names.get(pick % names.len().max(1)).cloned().unwrap_or_default();
        match action {
            0..=3 => {
                self.toy.crash_after = pick.is_multiple_of(4).then_some(pick / 4 % 3);
                self.toy.step();
            }
            4 => self.toy.wait_seconds(7),
            5 => self.edit(pick),
            6 | 7 => self.run_pods(pick),
            8 => self.come(pick),
            _ if name.is_empty() => {}
            9 => {
                let node = self.toy.remove_node(&name);
                self.gone.push(node);
            }
            10 => {
                self.uids += 1;
                self.toy.replace_node(&name, &format!("made-{}", self.uids));
            }
            _ => befall(self.toy.node(&name), action),
        }
        self.check();
    }

    /// A node comes back as it was, or one of a new name joins.
    fn come(&mut self, pick: usize) {
        let nodes = &self.toy.observed.nodes;
        self.gone.retain(|node| !nodes.contains_key(&node.name));
        if pick.is_multiple_of(2) && !self.gone.is_empty() {
            let node = self.gone.remove(pick / 2 % self.gone.len());
            Arc::make_mut(&mut self.toy.observed.nodes).insert(node.name.clone(), node);
        } else {
            let name = format!("n{}", 5 + pick % 4);
            if !self.toy.observed.nodes.contains_key(&name) {
                self.uids += 1;
                self.toy.add_node(&name);
                self.toy.replace_node(&name, &format!("made-{}", self.uids));
            }
        }
    }

    fn edit(&mut self, pick: usize) {
        if pick.is_multiple_of(3) {
            self.is_constant = false;
            self.spec = pick % SPECS.len();
            self.toy.edit(SPECS[self.spec]);
        } else if pick.is_multiple_of(5) {
            let number = self.toy.observed.object.generation;
            self.toy.edit(&SPECS[self.spec].replace("script: x", &format!("script: x{number}")));
        }
    }

    /// Kubelets go on: pods start, end, or are refused.
    fn run_pods(&mut self, pick: usize) {
        let (started, mut ended) = (&mut self.started, 0);
        for (position, pod) in self.toy.observed.pods.iter_mut().map(Arc::make_mut).enumerate() {
            if pod.has_ended() || (pick >> (position % 8)) & 1 == 0 {
                continue;
            }
            match (&pod.container, pod.deleting) {
                (ContainerFacts::Absent, true) => pod.presence = Presence::Gone,
                (ContainerFacts::Absent, false) if pick.is_multiple_of(7) => {
                    (pod.phase, pod.reason) = ("Failed".into(), "OutOfcpu".into());
                }
                (ContainerFacts::Absent, false) => {
                    pod.container = ContainerFacts::Running;
                    started.entry((pod.run, pod.node_uid.clone())).or_default().insert(pod.uid.clone());
                }
                _ => ended += 1,
            }
        }
        if ended > 0 {
            self.end_started();
        }
    }

    /// Ends what runs.
    fn end_started(&mut self) {
        let waiting = |pod: &crate::observed::PodFacts| pod.container == ContainerFacts::Absent;
        let waiting: BTreeSet<String> =
            self.toy.observed.pods.iter().filter(|pod| waiting(pod)).map(|pod| pod.uid.clone()).collect();
        // Hidden while all others are ended.
        let (hidden, shown) = std::mem::take(&mut self.toy.observed.pods)
            .into_iter()
            .partition::<Vec<_>, _>(|pod| waiting.contains(&pod.uid));
        self.toy.observed.pods = shown;
        self.toy.end_all(&succeeded("hi"));
        self.toy.observed.pods.extend(hidden);
    }

    fn check(&self) {
        self.toy.assert_sum();
        for (of, pods) in &self.started {
            assert!(pods.len() <= 1, "run twice: {of:?} by {pods:?}");
        }
        if self.is_constant && SPECS[self.spec].contains("nodeSample") {
            let mut nodes_per_run: BTreeMap<u64, usize> = BTreeMap::new();
            for (run, _) in self.started.keys() {
                *nodes_per_run.entry(*run).or_default() += 1;
            }
            assert!(nodes_per_run.values().all(|nodes| *nodes <= SAMPLE), "{nodes_per_run:?}");
        }
    }

    /// Everything becomes well, and everybody does what is left to do.
    fn come_to_rest(&mut self) {
        for node in Arc::make_mut(&mut self.toy.observed.nodes).values_mut() {
            (node.ready, node.unschedulable) = (true, false);
            node.taints.clear();
            node.labels.clear();
            label(node, "a", "b");
        }
        for _ in 0..12 {
            self.toy.wait_seconds(61);
            self.toy.settle();
            self.run_pods(0xFF);
            self.run_pods(0xFF);
            self.check();
        }
        self.toy.settle();
        let status = self.toy.status();
        assert_eq!(status.pending + status.active, 0, "{:#?}", status.nodes);
        let number = status.run.as_ref().unwrap().number;
        for (name, entry) in status.nodes.iter().filter(|(_, entry)| entry.run == number) {
            let is_there = self.toy.observed.nodes.get(name).is_some_and(|node| node.id == entry.node_id);
            let expected = if is_there { ["NewNode", "Excluded"] } else { ["NewNode", "NodeNotFound"] };
            let is_left_out = entry.node_state() == NodeState::Skipped;
            assert!(!is_left_out || expected.contains(&entry.reason.as_str()), "{name} {entry:#?}");
        }
    }
}

fn befall(node: &mut NodeFacts, action: u8) {
    match action {
        11 => node.ready = !node.ready,
        12 => node.unschedulable = !node.unschedulable,
        13 if node.taints.is_empty() => node.taints.push(taint("t", "", "NoExecute")),
        14 if node.taints.is_empty() => node.taints.push(taint("u", "v", "NoSchedule")),
        13 | 14 => node.taints.clear(),
        15 if node.labels.remove("a").is_none() => label(node, "a", "b"),
        15 => {}
        _ if node.labels.remove(labels::EXCLUDE).is_none() => label(node, labels::EXCLUDE, ""),
        _ => {}
    }
}

fn weather(spec: usize, actions: Vec<(u8, usize)>) {
    let mut weather = Weather::new(spec);
    for (action, pick) in actions {
        weather.act(action, pick);
    }
    weather.come_to_rest();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn whatever_befalls_nodes_none_is_run_twice_and_each_is_counted_once(
        spec in 0..SPECS.len(),
        actions in vec((0..17_u8, any::<usize>()), 0..120),
    ) {
        weather(spec, actions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "long; run by ./test.sh faults"]
    fn exhaustive_weather_runs_no_node_twice(
        spec in 0..SPECS.len(),
        actions in vec((0..17_u8, any::<usize>()), 0..300),
    ) {
        weather(spec, actions);
    }
}
