//! Two scripts at work on one node, of an object that reports an interruption and of one that goes on after it.

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use scriptrunner_api::digest::sha256_hex;
use serde_json::{Value, json};

use crate::{
    answer::{entry, newest, state, status, summary},
    ledger::Ledger,
    processes,
    stage::Stage,
    submitted::Submitted,
};

/// What the script does after it has written down its execution: the first one on its node waits to be interrupted and ends at
/// once when it is, every later one answers.
const ONCE_INTERRUPTED: &str =
    "echo half\n[ \"$(wc -l < \"$ledger\")\" -gt 1 ] || exec sleep 1000\necho whole\n";

/// An object with a script at work on one node.
pub(crate) struct AtWork {
    pub(crate) submitted: Submitted,
    pub(crate) ledger: Ledger,
    name: &'static str,
    script: String,
}

impl AtWork {
    /// Creates it, without waiting for anything.
    pub(crate) async fn submit(
        stage: &Stage,
        node: &str,
        name: &'static str,
        lines: &str,
        fields: &Value,
    ) -> Self {
        let ledger = Ledger::of(stage, name);
        let mut spec = ledger.spec(lines, fields);
        spec["nodeNames"] = json!([node]);
        let script = spec["script"].as_str().unwrap().to_owned();
        let submitted = stage.submit(name, spec).await;
        Self { submitted, ledger, name, script }
    }

    /// Its pod, once its first execution has begun and Kubernetes says so too.
    pub(crate) async fn until_at_work(&self, stage: &Stage, node: &str) -> Pod {
        self.ledger.until(node, 1).await;
        self.submitted.until("Running", |object| state(object, node).0 == "Running").await;
        stage.until_running(self.name, 1).await.remove(0)
    }

    /// Deletes its pod as a person does.
    pub(crate) async fn delete_pod(&self, stage: &Stage) {
        for pod in stage.until_running(self.name, 1).await {
            stage.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default()).await.unwrap();
        }
    }

    /// Pid of its runner on the machine.
    pub(crate) async fn runner(&self, stage: &Stage) -> u32 {
        let digest = sha256_hex(self.script.as_bytes());
        processes::find_one(&stage.cluster, "scriptrunner-runner", &digest).await
    }
}

/// Both at work.
pub(crate) struct Pair {
    pub(crate) node: String,
    pub(crate) report: AtWork,
    pub(crate) retry: AtWork,
    pub(crate) pods: [Pod; 2],
}

impl Pair {
    /// Both at work, each in its first execution, which waits to be interrupted.
    pub(crate) async fn at_work(stage: &Stage, node: &str, fields: &Value) -> Self {
        Self::doing(stage, node, ONCE_INTERRUPTED, fields).await
    }

    /// Both at work, each in its first execution.
    pub(crate) async fn doing(stage: &Stage, node: &str, lines: &str, fields: &Value) -> Self {
        let with_policy = |policy: &str| {
            let mut fields = fields.clone();
            fields["interruptionPolicy"] = policy.into();
            fields
        };
        let report = AtWork::submit(stage, node, "report", lines, &with_policy("Report")).await;
        let retry = AtWork::submit(stage, node, "retry", lines, &with_policy("Retry")).await;
        let pods = [report.until_at_work(stage, node).await, retry.until_at_work(stage, node).await];
        Self { node: node.to_owned(), report, retry, pods }
    }

    /// The cause is told as it is, never as a failure of the script, and only who asked for it is run once more.
    pub(crate) async fn assert_told(&self, expected: &[(&str, &str)]) {
        self.assert_reported(expected).await;
        self.assert_tried_again().await;
    }

    /// The one that reports ended in one of these states, with this reason, and is not run again.
    pub(crate) async fn assert_reported(&self, expected: &[(&str, &str)]) {
        let node = &self.node;
        let object = self.report.submitted.until_failed().await;
        assert!(expected.contains(&state(&object, node)), "{}", summary(&object));
        let known = entry(&object, node);
        assert_eq!(
            (known.executions, known.attempts, known.interruptions),
            (1, 1, 0),
            "{}",
            summary(&object)
        );
        assert_eq!(self.report.ledger.executions(node), [(1, 1, 1)], "what was interrupted is not run again");
    }

    /// The other one went on in another pod, once.
    pub(crate) async fn assert_tried_again(&self) {
        let node = &self.node;
        let object = self.retry.submitted.until_complete().await;
        let known = entry(&object, node);
        assert_eq!(newest(&object, node).stdout, "half\nwhole\n");
        assert_eq!(
            (known.executions, known.interruptions, known.retries, known.exit_code),
            (2, 1, 0, Some(0)),
            "{}",
            summary(&object)
        );
        assert_eq!((status(&object).succeeded, status(&object).desired), (1, 1));
        let serials: Vec<u64> =
            self.retry.ledger.executions(node).iter().map(|(_, _, serial)| *serial).collect();
        assert_eq!(serials, [1, 2], "once more, and no more");
    }
}
