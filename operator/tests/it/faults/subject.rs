//! A ScriptRunner whose executions write the ledger: made, waited for, held against the ledger, deleted.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use scriptrunner_api::{
    condition::{self, ConditionType},
    labels,
    reason::NodeReason,
    v1alpha1::{Execution, NodeState, NodeStatus, ScriptRunner, ScriptRunnerStatus},
};
use scriptrunner_testcluster::wait;
use serde_json::{Value, json};

use super::{
    ledger::{self, Ledger},
    scene::{PATIENCE, Scene},
    witness::Witness,
};
use crate::cluster::acting_as_operator;

/// How many executions per node are kept.
const HISTORY_LIMIT: u64 = 20;

/// Bytes of an answer of which a termination message holds no more than two: the others come by a session, or are cut.
const WIDE: usize = 1500;

/// A ScriptRunner of a test.
pub(crate) struct Subject<'a> {
    scene: &'a Scene,
    api: Api<ScriptRunner>,
    pub(crate) name: String,
    /// Bytes of each answer, at least.
    width: usize,
}

impl<'a> Subject<'a> {
    /// Runs `count` times on every node, each time for a fifth of a second, a second apart, with answers so short that the
    /// termination message of a pod holds those of its last twenty executions.
    pub(crate) async fn create(scene: &'a Scene, name: &str, count: u64) -> Self {
        Self::with_answers(scene, name, json!({"count": count, "periodSeconds": 1}), 0).await
    }

    /// The same, with answers so long that the executions of a pod are told whole by its session only: an acknowledgement of
    /// what was not stored would cost some.
    pub(crate) async fn create_wide(scene: &'a Scene, name: &str, count: u64) -> Self {
        Self::with_answers(scene, name, json!({"count": count, "periodSeconds": 1}), WIDE).await
    }

    /// The same without an end, with short answers.
    pub(crate) async fn create_endless(scene: &'a Scene, name: &str) -> Self {
        Self::with_answers(scene, name, json!({"periodSeconds": 1}), 0).await
    }

    async fn with_answers(scene: &'a Scene, name: &str, repeat: Value, width: usize) -> Self {
        let mut object = json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
            "metadata": {"name": name}, "spec": {"nodeLabelSelector": {}, "mode": "PrivilegedWithHostFS",
            "script": ledger::script(scene, name, width), "historyLimit": HISTORY_LIMIT,
            "executionDeadlineSeconds": 60, "repeat": repeat}});
        if object["spec"]["repeat"]["count"].is_number() {
            // A repetition with an end has to state it in a privileged mode; without an end it may not.
            object["spec"]["parallelism"] = json!("100%");
            // What is lost is to be seen.
            object["spec"]["interruptionPolicy"] = json!("Report");
        }
        let api: Api<ScriptRunner> = scene.objects();
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        Self { scene, api, name: name.to_owned(), width }
    }

    /// Sets `execution`.
    pub(crate) async fn hold(&self, execution: &str) {
        let patch = json!({"spec": {"execution": execution}});
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Lets the script run once more and no more, in a new run.
    pub(crate) async fn run_once_more(&self) {
        let patch = json!({"spec": {"args": ["once more"], "repeat": null, "parallelism": "100%"}});
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Deletes the object and makes it anew as it was in a backup, with its status or without. Returns the new one.
    pub(crate) async fn restore(&self, backup: &ScriptRunner, with_status: bool) -> ScriptRunner {
        self.api.delete(&self.name, &DeleteParams::default()).await.unwrap();
        wait::until(&format!("{:?} to be gone", self.name), PATIENCE, async |_| {
            Ok::<_, kube::Error>(self.api.get_opt(&self.name).await?.is_none().then_some(()))
        })
        .await
        .unwrap();
        let object = ScriptRunner::new(&self.name, backup.spec.clone());
        let created = self.api.create(&PostParams::default(), &object).await.unwrap();
        assert_ne!(created.metadata.uid, backup.metadata.uid);
        if !with_status {
            return created;
        }
        // A status is the operator's to write, whoever brings it back.
        let api: Api<ScriptRunner> = Api::namespaced(acting_as_operator().await, &self.scene.namespace);
        let patch = Patch::Merge(json!({"status": backup.status}));
        api.patch_status(&self.name, &PatchParams::default(), &patch).await.unwrap()
    }

    /// The object as it is now.
    pub(crate) async fn get(&self) -> ScriptRunner {
        self.api.get(&self.name).await.unwrap()
    }

    /// Waits until the object is as described.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&ScriptRunner) -> bool) -> ScriptRunner {
        wait::until(&format!("{:?}: {what}", self.name), PATIENCE, async |seen| {
            let object = self.api.get(&self.name).await?;
            seen.note(summary(&object));
            Ok::<_, kube::Error>(is_so(&object).then_some(object))
        })
        .await
        .unwrap()
    }

    /// Waits until the first run is over, whatever came of it.
    pub(crate) async fn until_over(&self) -> ScriptRunner {
        self.until_run_over(1).await
    }

    /// The run ends, everything comes to rest, the status tells each of the `count` executions of every node exactly once,
    /// and no version of it that anybody saw was wrong.
    pub(crate) async fn until_told_exactly(&self, witness: &Witness, count: u64) {
        let object = self.until_over().await;
        self.until_no_pods().await;
        witness.until_rest(&self.name).await;
        self.assert_exact(&object, count);
        witness.assert_nothing_wrong();
    }

    /// Waits until run `number` is over, whatever came of it.
    pub(crate) async fn until_run_over(&self, number: u64) -> ScriptRunner {
        self.until(&format!("run {number} to be over"), |object| {
            let Some(status) = &object.status else { return false };
            let holds = |type_| condition::holds(&status.conditions, type_);
            status.run.as_ref().is_some_and(|run| run.number == number)
                && (holds(ConditionType::Complete) || holds(ConditionType::Failed))
        })
        .await
    }

    /// Waits until every node's status names a running pod.
    pub(crate) async fn until_running(&self) -> ScriptRunner {
        let nodes = self.scene.cluster.node_names().len();
        self.until("every node to run", |object| {
            let running =
                |entry: &&NodeStatus| entry.pod_id.is_some() && entry.node_state() == NodeState::Running;
            object.status.as_ref().is_some_and(|it| it.nodes.values().filter(running).count() == nodes)
        })
        .await
    }

    /// Waits until the status has so many executions of every node while all of their pods still run: only a session brings
    /// them then.
    pub(crate) async fn until_live(&self, executions: u64) -> ScriptRunner {
        let nodes = self.scene.cluster.node_names();
        self.until(&format!("{executions} executions while the pods run"), |object| {
            nodes.iter().all(|node| {
                let entry = object.status.as_ref().and_then(|status| status.nodes.get(node));
                entry.is_some_and(|entry| entry.executions >= executions && entry.node_state().is_active())
            })
        })
        .await
    }

    /// Its pods.
    pub(crate) async fn pods(&self) -> Vec<Pod> {
        let ours = ListParams::default().labels(labels::UID);
        let pods = self.scene.objects::<Pod>().list(&ours).await.unwrap().items;
        let is_its = |pod: &Pod| {
            let marks = pod.metadata.annotations.as_ref();
            marks.and_then(|marks| marks.get(labels::NAME)).is_some_and(|name| *name == self.name)
        };
        pods.into_iter().filter(is_its).collect()
    }

    /// Waits until it has no pods any more.
    pub(crate) async fn until_no_pods(&self) {
        wait::until(&format!("no pods of {:?}", self.name), PATIENCE, async |seen| {
            let pods = self.pods().await;
            seen.note(format!("{} pods", pods.len()));
            Ok::<_, kube::Error>(pods.is_empty().then_some(()))
        })
        .await
        .unwrap();
    }

    /// Waits until so many executions have ended on every node, by their ledgers.
    pub(crate) async fn until_ledgers(&self, executions: u64, deadline: Duration) {
        wait::until(&format!("{executions} executions in each ledger"), deadline, async |seen| {
            let ended: Vec<_> = self.ledgers().map(|(_, ledger)| ledger.ended.len()).collect();
            seen.note(format!("{ended:?}"));
            Ok::<_, kube::Error>(ended.iter().all(|ended| *ended as u64 >= executions).then_some(()))
        })
        .await
        .unwrap();
    }

    fn ledgers(&self) -> impl Iterator<Item = (String, Ledger)> {
        let nodes = self.scene.cluster.node_names().into_iter();
        nodes.map(|node| (node.clone(), ledger::read(self.scene, &node, &self.name)))
    }

    /// Every node executed `count` times with one pod, each execution once, and the status says exactly that.
    pub(crate) fn assert_exact(&self, object: &ScriptRunner, count: u64) {
        let status = status(object);
        let nodes = self.scene.cluster.node_names();
        assert_eq!((status.succeeded as usize, status.unknown), (nodes.len(), 0), "{}", summary(object));
        for (node, ledger) in self.ledgers() {
            let expected: Vec<_> = (1..=count).map(|serial| (1, 1, serial)).collect();
            assert_eq!(ledger.ended, expected, "{node}: {}", summary(object));
            let entry = &status.nodes[&node];
            assert_eq!(
                (entry.executions, entry.failures, entry.attempts),
                (count, 0, 1),
                "{node}: {entry:?}"
            );
        }
        self.assert_accounted(object, &[]);
    }

    /// Nothing of the ledgers is missing in the status but on nodes that are counted as unknown, and those are `unknown`.
    pub(crate) fn assert_accounted(&self, object: &ScriptRunner, unknown: &[&str]) {
        let status = status(object);
        for (node, ledger) in self.ledgers() {
            assert_eq!(ledger.breaches, Vec::<String>::new(), "{node}: {}", summary(object));
            let entry = &status.nodes[&node];
            let is_unknown = entry.node_state() == NodeState::Unknown;
            assert_eq!(is_unknown, unknown.contains(&node.as_str()), "{node}: {}", summary(object));
            let problems = differences(entry, &ledger, self.width);
            assert_eq!(problems, Vec::<String>::new(), "{node}: {entry:?} {ledger:?}");
        }
        assert_eq!(status.unknown as usize, unknown.len(), "{}", summary(object));
    }

    /// Deletes it, and waits until nothing of it is left.
    pub(crate) async fn delete(self) {
        self.api.delete(&self.name, &DeleteParams::default()).await.unwrap();
        self.until_no_pods().await;
        ledger::remove(self.scene, &self.name);
    }
}

/// Whether an execution was told to end before its script came to its first line: the interpreter takes its time.
fn is_unwritten(execution: &Execution, ledger: &Ledger) -> bool {
    execution.reason == NodeReason::Interrupted.as_str() && !ledger.begun.contains(&execution.key())
}

/// What a node's entry does not say and should, or says and should not.
fn differences(entry: &NodeStatus, ledger: &Ledger, width: usize) -> Vec<String> {
    let mut problems = Vec::new();
    let kept: BTreeSet<_> = entry.history.iter().map(Execution::key).collect();
    let is_full = kept.len() as u64 == HISTORY_LIMIT;
    let is_superseded = |key| is_full && kept.first().is_some_and(|oldest| key < oldest);
    let is_unknown = entry.node_state() == NodeState::Unknown;
    for key in &ledger.ended {
        if !kept.contains(key) && !is_superseded(key) && !is_unknown {
            problems.push(format!("{key:?} is lost"));
        }
    }
    for execution in &entry.history {
        if !ledger.begun.contains(&execution.key()) && !is_unwritten(execution, ledger) {
            problems.push(format!("{:?} never was", execution.key()));
        }
        if execution.exit_code == Some(0) && execution.stdout != format!("{:.<width$}\n", execution.serial) {
            problems.push(format!("{:?} has another's answer", execution.key()));
        }
    }
    let unwritten = entry.history.iter().filter(|execution| is_unwritten(execution, ledger)).count();
    if !is_unknown && entry.executions != (ledger.begun.len() + unwritten) as u64 {
        problems.push(format!("{} executions are counted", entry.executions));
    }
    problems
}

/// The status; panics where there is none yet.
pub(crate) fn status(object: &ScriptRunner) -> &ScriptRunnerStatus {
    object.status.as_ref().expect("a status should be there")
}

/// One line about counts, conditions and nodes.
pub(crate) fn summary(object: &ScriptRunner) -> String {
    let Some(status) = &object.status else { return "no status".to_owned() };
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|it| format!("{}={}/{} ({})", it.type_, it.status, it.reason, it.message))
        .collect();
    let nodes: Vec<_> = status
        .nodes
        .iter()
        .map(|(node, it)| {
            let NodeStatus { state, reason, message, attempts, executions, serial, .. } = it;
            format!("{node}: {state}/{reason} ({message}) attempts {attempts} executions {executions} serial {serial}")
        })
        .collect();
    format!("{}; {}; {}", status.progress, conditions.join(" "), nodes.join("; "))
}

#[test]
fn a_status_that_hides_or_invents_something_is_told() {
    let entry = |keys: &[(u64, u32, u64)], state: &str| {
        let history: Vec<_> = keys
            .iter()
            .map(|(run, attempt, serial)| {
                json!({"run": run, "attempt": attempt, "serial": serial, "exitCode": 0, "stdout": format!("{serial}\n")})
            })
            .collect();
        let entry = json!({"state": state, "executions": 2, "history": history});
        serde_json::from_value::<NodeStatus>(entry).unwrap()
    };
    let ledger =
        Ledger { begun: vec![(1, 1, 1), (1, 1, 2)], ended: vec![(1, 1, 1), (1, 1, 2)], breaches: vec![] };
    let both = [(1, 1, 1), (1, 1, 2)];
    assert!(differences(&entry(&both, "Succeeded"), &ledger, 0).is_empty());
    assert_eq!(differences(&entry(&both[..1], "Succeeded"), &ledger, 0), ["(1, 1, 2) is lost"]);
    assert!(differences(&entry(&both[..1], "Unknown"), &ledger, 0).is_empty());
    let forged = differences(&entry(&[(1, 1, 1), (1, 1, 2), (1, 1, 3)], "Succeeded"), &ledger, 0);
    assert_eq!(forged, ["(1, 1, 3) never was"]);
    let mut other = entry(&both, "Succeeded");
    (other.history[1].stdout, other.executions) = ("1\n".to_owned(), 3);
    let expected = ["(1, 1, 2) has another's answer", "3 executions are counted"];
    assert_eq!(differences(&other, &ledger, 0), expected);
}
