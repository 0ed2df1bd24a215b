//! Nodes that hang: they hold no slot for ever, and what they say when they are back still counts.

use scriptrunner_api::v1alpha1::ScriptRunner;
use serde_json::json;

use crate::{
    answer::{entry, newest, run_number, state, status, summary},
    ledger::Ledger,
    node::while_disturbed,
    operator,
    stage::{PRIVILEGED, alone},
};

#[tokio::test]
async fn hung_nodes_do_not_hold_the_others_and_their_late_answers_count() {
    alone("hung::slots", PRIVILEGED, async |stage| {
        let journal = stage.journal().await;
        let sound = operator::node(&stage.client).await;
        let names = stage.cluster.node_names();
        let [frozen, cut] = &names.iter().filter(|node| **node != sound).collect::<Vec<_>>()[..] else {
            panic!("three nodes are needed: {names:?}")
        };
        let ledger = Ledger::of(&stage, "subject");
        let lines = format!("echo begun\n{}echo late\n", Ledger::AWAIT_SIGN);
        let fields = json!({"nodeNames": [frozen, cut], "parallelism": 2, "interruptionPolicy": "Retry",
            "executionDeadlineSeconds": 15, "podStartDeadlineSeconds": 30});
        let subject = stage.submit("subject", ledger.spec(&lines, &fields)).await;
        for node in [frozen, cut] {
            ledger.until(node, 1).await;
        }
        // The time of a container's start is known only once its kubelet has told it.
        stage.until_running("subject", 2).await;
        while_disturbed(&stage, &[frozen, cut], async || {
            stage.cluster.freeze(frozen).unwrap();
            stage.cluster.cut(cut).unwrap();
            // One ends where nobody sees it, and the one that comes next at once.
            ledger.give_sign(cut);
            ledger.give_sign(&sound);
            subject.edit(json!({"spec": {"nodeNames": names}})).await;
            let waits = |object: &ScriptRunner| {
                object.status.as_ref().is_some_and(|status| (status.active, status.pending) == (2, 1))
            };
            subject.until("one that waits for a slot", waits).await;
            let goes_on = |object: &ScriptRunner| state(object, &sound).0 == "Succeeded";
            let object = subject.until("the third node done", goes_on).await;
            let given_up: Vec<_> = [frozen, cut].into_iter().map(|node| state(&object, node)).collect();
            assert!(given_up.contains(&("Unknown", "Hung")), "{}", summary(&object));
            let object = subject.until_failed().await;
            assert_eq!([frozen, cut].map(|node| state(&object, node)), [("Unknown", "Hung"); 2]);
            assert_eq!((status(&object).succeeded, status(&object).unknown), (1, 2));
        })
        .await;
        // What was frozen finds itself beyond its deadline, and its pod deleted.
        let late = [("Failed", "ExecutionDeadlineExceeded"), ("Stopped", "Hung")];
        let has_answered = |object: &ScriptRunner| {
            late.contains(&state(object, frozen)) && state(object, cut) == ("Succeeded", "")
        };
        let object = subject.until("both late answers", has_answered).await;
        assert_eq!(newest(&object, frozen).stdout, "begun\n");
        assert_eq!(newest(&object, cut).stdout, "begun\nlate\n");
        assert_eq!((status(&object).succeeded, status(&object).failed, status(&object).unknown), (2, 1, 0));
        for node in &names {
            let known = entry(&object, node);
            assert_eq!(
                (known.executions, known.attempts, known.interruptions),
                (1, 1, 0),
                "{node}: {known:?}"
            );
            assert_eq!(ledger.executions(node), [(1, 1, 1)], "{node}");
        }
        assert_eq!((run_number(&object), journal.pods()), (1, 3));
    })
    .await;
}
