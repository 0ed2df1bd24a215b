//! Runs that are asked for again without an edit, on all nodes or some, and edits that wait for that.

use std::collections::BTreeMap;

use scriptrunner_api::v1alpha1::ScriptRunner;
use serde_json::{Value, json};

use crate::{
    answer::{entry, newest, run_number, state, status, summary},
    node::change,
    stage::beside_others,
};

/// The time of the rerun with this number: what counts is only that it is later than those before.
fn at(number: u8) -> String {
    format!("2026-01-01T00:00:{number:02}Z")
}

/// The time of the latest rerun, as the status has it.
fn rerun_at(object: &ScriptRunner) -> Option<String> {
    let run = object.status.as_ref()?.run.as_ref()?;
    run.rerun_at.as_ref().map(|time| time.0.to_string())
}

/// State, run, and the run that an entry is held for, of each node.
fn standing(object: &ScriptRunner, nodes: &[String; 3]) -> [(String, u64, u64); 3] {
    nodes.each_ref().map(|node| {
        let known = entry(object, node);
        (known.state.clone(), known.run, known.held_for)
    })
}

fn is(state: &str, run: u64, held_for: u64) -> (String, u64, u64) {
    (state.to_owned(), run, held_for)
}

#[tokio::test]
async fn a_rerun_runs_what_is_in_its_scope_and_the_others_keep_their_answers() {
    beside_others("reruns::scope", &[], async |stage| {
        let journal = stage.journal().await;
        let nodes = [1, 2, 3].map(|number| stage.node(number));
        let [first, second, third] = &nodes;
        let script = format!(
            "echo run $SCRIPTRUNNER_RUN\n[ \"$SCRIPTRUNNER_NODE $SCRIPTRUNNER_RUN\" != \"{first} 1\" ]\n"
        );
        // Its creation takes the time as its own, and all nodes whatever the scope.
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": script,
            "rerun": {"at": at(10), "scope": "Failed"}});
        let subject = stage.submit("subject", spec).await;
        let object = subject.until_failed().await;
        assert_eq!(standing(&object, &nodes), [is("Failed", 1, 0), is("Succeeded", 1, 0), is("Succeeded", 1, 0)]);
        assert_eq!((run_number(&object), rerun_at(&object)), (1, Some(at(10))));

        subject.edit(json!({"spec": {"rerun": {"at": at(20), "scope": "Failed"}}})).await;
        let object = subject.until_complete().await;
        let expected = [is("Succeeded", 2, 0), is("Succeeded", 1, 2), is("Succeeded", 1, 2)];
        assert_eq!(standing(&object, &nodes), expected, "{}", summary(&object));
        let told = status(&object);
        assert_eq!((told.desired, told.succeeded, told.progress.as_str()), (3, 3, "3/3"));
        let run = told.run.as_ref().unwrap();
        assert_eq!((run.number, run.trigger.as_str(), rerun_at(&object)), (2, "Rerun", Some(at(20))));
        assert_eq!((told.recent_runs[0].desired, told.recent_runs[0].failed), (3, 1));
        let answers = nodes.each_ref().map(|node| newest(&object, node).stdout.as_str());
        assert_eq!(answers, ["run 2\n", "run 1\n", "run 1\n"]);

        // Earlier, the same, and none at all: nothing happens.
        for rerun in [json!({"at": at(5), "scope": "All"}), json!({"at": at(20), "scope": "All"}), Value::Null] {
            subject.edit(json!({"spec": {"rerun": rerun}})).await;
            let later = subject.until_observed().await;
            assert_eq!((run_number(&later), rerun_at(&later)), (2, Some(at(20))), "{rerun}");
            assert_eq!(status(&later).nodes, told.nodes, "{rerun}");
        }

        subject.edit(json!({"spec": {"rerun": {"at": at(21), "nodeNames": [second, "no.such.node"]}}})).await;
        let object = subject.until_complete().await;
        let expected = [is("Succeeded", 2, 3), is("Succeeded", 3, 0), is("Succeeded", 1, 3)];
        assert_eq!(standing(&object, &nodes), expected, "{}", summary(&object));
        assert_eq!((status(&object).desired, status(&object).succeeded), (3, 3));

        // An edit of what runs is a run of its own, and takes the time that comes with it.
        let both = json!({"spec": {"args": ["edited"], "rerun": {"at": at(30), "scope": "Failed", "nodeNames": null}}});
        subject.edit(both).await;
        let object = subject.until_complete().await;
        assert_eq!(standing(&object, &nodes), [1; 3].map(|_| is("Succeeded", 4, 0)), "{}", summary(&object));
        assert_eq!(status(&object).run.as_ref().unwrap().trigger, "SpecChanged");
        assert_eq!(rerun_at(&object), Some(at(30)));
        let pods = BTreeMap::from([(first.clone(), 3), (second.clone(), 3), (third.clone(), 2)]);
        assert_eq!((journal.pods_per_node(), journal.shared_nodes()), (pods, Vec::new()));
    })
    .await;
}

#[tokio::test]
async fn nodes_that_had_not_ended_are_in_every_scope_but_for_those_not_named() {
    beside_others("reruns::unfinished", &[], async |stage| {
        let nodes = [1, 2, 3].map(|number| stage.node(number));
        let [first, second, third] = &nodes;
        // In the first run one is done and two go on for ever.
        let script = format!(
            "echo run $SCRIPTRUNNER_RUN\n[ \"$SCRIPTRUNNER_RUN\" != 1 ] || [ \"$SCRIPTRUNNER_NODE\" = {first} ] || exec sleep 1000\n"
        );
        let spec = json!({"nodeLabelSelector": {}, "interpreter": ["bash"], "script": script});
        let subject = stage.submit("subject", spec).await;
        let has_begun = |object: &ScriptRunner| {
            [("Succeeded", first), ("Running", second), ("Running", third)]
                .iter()
                .all(|(expected, node)| state(object, node).0 == *expected)
        };
        subject.until("one done and two at work", has_begun).await;
        let rerun = json!({"at": at(1), "scope": "Failed", "nodeNames": [second]});
        subject.edit(json!({"spec": {"rerun": rerun}})).await;
        let object = subject.until_complete().await;
        let expected = [is("Succeeded", 1, 2), is("Succeeded", 2, 0), is("Skipped", 2, 0)];
        assert_eq!(standing(&object, &nodes), expected, "{}", summary(&object));
        assert_eq!(state(&object, third), ("Skipped", "OutOfScope"));
        assert_eq!(newest(&object, second).stdout, "run 2\n");
        assert_eq!((status(&object).succeeded, status(&object).skipped, status(&object).desired), (2, 1, 3));
        stage.until_pods(0).await;
    })
    .await;
}

#[tokio::test]
async fn an_edit_waits_for_the_rerun_and_late_nodes_run_what_the_others_did() {
    beside_others("reruns::on_rerun", &[], async |stage| {
        let journal = stage.journal().await;
        let (first, late) = (stage.node(1), stage.node(2));
        let key = format!("e2e/{}", stage.namespace);
        let label = |value: Value| json!({"metadata": {"labels": {key.as_str(): value}}});
        change(&stage, &first, label("yes".into())).await;
        let spec = json!({"nodeLabelSelector": {"matchLabels": {key.as_str(): "yes"}},
            "interpreter": ["bash"], "script": "echo old", "updatePolicy": "OnRerun"});
        let subject = stage.submit("subject", spec).await;
        subject.until_complete().await;

        subject.edit(json!({"spec": {"script": "echo new"}})).await;
        let object = subject.until_complete().await;
        assert_eq!((run_number(&object), journal.pods()), (1, 1), "it waits");
        change(&stage, &late, label("yes".into())).await;
        let is_done = |object: &ScriptRunner| state(object, &late).0 == "Succeeded";
        let object = subject.until("the late node done", is_done).await;
        let outputs = |object: &ScriptRunner| [&first, &late].map(|node| newest(object, node).stdout.clone());
        assert_eq!((run_number(&object), outputs(&object)), (1, ["old\n"; 2].map(str::to_owned)));

        subject.edit(json!({"spec": {"rerun": {"at": at(1)}}})).await;
        let object = subject.until_complete().await;
        assert_eq!((run_number(&object), outputs(&object)), (2, ["new\n"; 2].map(str::to_owned)));

        // What waits begins when edits no longer wait.
        subject.edit(json!({"spec": {"script": "echo newest"}})).await;
        assert_eq!(run_number(&subject.until_observed().await), 2);
        subject.edit(json!({"spec": {"updatePolicy": "Rerun"}})).await;
        let object = subject.until_complete().await;
        for node in [&first, &late] {
            change(&stage, node, label(Value::Null)).await;
        }
        assert_eq!((run_number(&object), outputs(&object)), (3, ["newest\n"; 2].map(str::to_owned)));
        assert_eq!((journal.pods(), journal.shared_nodes()), (6, Vec::new()));
        stage.until_config_maps(1).await;
    })
    .await;
}
