//! Tests of plans against a toy cluster: actions are performed on plain data, the status is stored or not, pods are moved
//! by hand. Every scenario can be cut at any action, as a crash would.

mod again;
mod attempts;
mod edits;
mod execution;
mod exit_codes;
mod guard;
mod hostile;
mod hung;
mod images;
mod large;
mod late;
mod pacing;
mod parts;
mod requester;
mod runner;
mod scheduler;
mod sessions;
mod sources;
mod targets;
mod toy;
mod walk;
mod warm;
mod weather;

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use scriptrunner_api::{
    condition::{ConditionType, find, holds},
    labels,
    reason::NodeReason,
    v1alpha1::NodeState,
};

use self::toy::{Toy, failed, stopped, succeeded};
use crate::observed::{ContainerFacts, PodConflict, Presence, TaintFacts};

const HELLO: &str = "{script: x, nodeLabelSelector: {}}";

#[test]
fn three_nodes_run_once_and_leave_no_pod() {
    let mut toy = Toy::new(HELLO, 3);
    toy.settle();
    assert_eq!(toy.states(), ["Starting", "Starting", "Starting"]);
    toy.start_all();
    toy.settle();
    assert_eq!(toy.states(), ["Running", "Running", "Running"]);
    toy.end_all(&succeeded("hi"));
    toy.settle();
    let status = toy.status();
    assert_eq!(toy.states(), ["Succeeded", "Succeeded", "Succeeded"]);
    assert_eq!((status.desired, status.succeeded, status.progress.as_str()), (3, 3, "3/3"));
    assert!(
        holds(&status.conditions, ConditionType::Complete)
            && !holds(&status.conditions, ConditionType::Failed)
    );
    assert!(status.run.as_ref().unwrap().completion_time.is_some() && status.last_successful_time.is_some());
    assert_eq!(status.output_group_count, 1);
    assert_eq!(status.output_groups[0].nodes, "n[1-3]");
    assert_eq!((toy.created, toy.live_pods()), (3, 0));
}

#[test]
fn a_sample_goes_with_the_last_answer_that_showed_it_where_only_digests_are_kept() {
    let mut toy = Toy::new("{script: x, nodeLabelSelector: {}}", 1);
    toy.settle();
    toy.end_all(&succeeded("hi"));
    toy.settle();
    assert_eq!(toy.status().output_groups[0].sample, "hi");
    // The answer of a further execution: the same, and not kept.
    let mut status = toy.status().clone();
    status.nodes.get_mut("n1").unwrap().history[0].stdout.clear();
    toy.store(status);
    toy.settle();
    assert_eq!(toy.status().output_groups[0].sample, "hi", "the size limit takes outputs too");
    toy.edit("{script: x, nodeLabelSelector: {}, output: {keep: DigestOnly}}");
    toy.settle();
    assert_eq!(toy.status().output_groups[0].sample, "");
}

#[test]
fn nothing_happens_once_everything_is_stored() {
    let mut toy = Toy::new(HELLO, 3);
    toy.settle();
    toy.end_all(&succeeded("hi"));
    toy.settle();
    let (writes, created) = (toy.writes, toy.created);
    for _ in 0..5 {
        toy.now = toy.now.checked_add(SignedDuration::from_hours(1)).unwrap();
        toy.settle();
    }
    assert_eq!((toy.writes, toy.created), (writes, created));
}

#[test]
fn a_crash_after_any_action_repeats_nothing_and_loses_nothing() {
    for cut in 0..40 {
        let mut toy = Toy::new(HELLO, 3);
        for step in 0..60 {
            toy.crash_after = (step == cut).then_some(1);
            toy.step();
            if step % 7 == 3 {
                toy.start_all();
            }
            if step % 7 == 5 {
                toy.end_all(&succeeded("hi"));
            }
        }
        assert_eq!(toy.states(), ["Succeeded"; 3], "cut at {cut}");
        assert_eq!(toy.created, 3, "cut at {cut}");
        assert!(toy.status().nodes.values().all(|entry| entry.executions == 1 && entry.history.len() == 1));
    }
}

#[test]
fn a_failed_node_fails_the_run_and_keeps_its_pod_for_a_look() {
    let mut toy = Toy::new(HELLO, 2);
    toy.settle();
    toy.end("n1", &succeeded("hi"));
    toy.end("n2", &failed(3, "boom"));
    toy.settle();
    let status = toy.status();
    let entry = &status.nodes["n2"];
    assert_eq!(
        (entry.state.as_str(), entry.reason.as_str(), entry.exit_code),
        ("Failed", "ScriptFailed", Some(3))
    );
    assert_eq!((entry.executions, entry.failures), (1, 1));
    assert!(holds(&status.conditions, ConditionType::Failed));
    assert_eq!(find(&status.conditions, ConditionType::Failed).unwrap().reason, "NodesFailed");
    assert_eq!(toy.live_pods(), 1);
}

#[test]
fn a_node_that_joins_later_is_run_and_the_verdict_waits_for_it() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    toy.end_all(&succeeded("hi"));
    toy.settle();
    toy.add_node("n9");
    toy.settle();
    let status = toy.status();
    assert_eq!((status.desired, status.active, status.succeeded), (2, 1, 1));
    assert!(holds(&status.conditions, ConditionType::Complete), "a late node leaves the verdict");
    assert!(holds(&status.conditions, ConditionType::Progressing));
    toy.end("n9", &failed(1, ""));
    toy.settle();
    assert!(
        holds(&toy.status().conditions, ConditionType::Failed)
            && !holds(&toy.status().conditions, ConditionType::Complete)
    );
    assert_eq!(toy.created, 2);
}

#[test]
fn a_node_that_leaves_keeps_its_outcome_and_one_that_never_started_goes() {
    let mut toy =
        Toy::new("{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 9}", 2);
    toy.settle();
    toy.end("n1", &succeeded("hi"));
    Arc::make_mut(&mut toy.observed.nodes).remove("n2");
    Arc::make_mut(&mut toy.observed.nodes).remove("n1");
    toy.settle();
    let status = toy.status();
    assert_eq!(status.nodes.keys().collect::<Vec<_>>(), ["n1"]);
    assert!(status.nodes["n1"].gone_time.is_some());
    assert_eq!((status.desired, status.succeeded), (1, 1));
}

#[test]
fn a_node_that_goes_while_its_pod_runs_is_unknown() {
    let mut toy = Toy::new(HELLO, 2);
    toy.settle();
    toy.start_all();
    toy.settle();
    Arc::make_mut(&mut toy.observed.nodes).remove("n2");
    toy.settle();
    let entry = &toy.status().nodes["n2"];
    assert_eq!((entry.state.as_str(), entry.reason.as_str()), ("Unknown", "NodeGone"));
    assert!(entry.gone_time.is_some());
}

#[test]
fn a_node_made_again_under_the_same_name_is_another_node() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    toy.end_all(&succeeded("hi"));
    toy.settle();
    toy.replace_node("n1", "another");
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Starting".to_owned()], 2));
}

#[test]
fn an_edit_of_the_script_is_a_run_and_waits_for_the_older_pod() {
    let mut toy = Toy::new(HELLO, 2);
    toy.settle();
    toy.start_all();
    toy.settle();
    toy.edit("{script: y, nodeLabelSelector: {}}");
    toy.settle();
    let status = toy.status();
    assert_eq!(status.run.as_ref().unwrap().number, 2);
    assert_eq!((status.recent_runs[0].number, toy.created), (1, 2), "nothing starts beside an older pod");
    assert!(toy.observed.pods.iter().all(|pod| pod.deleting), "and the older pods are told to end");
    assert_eq!(status.pending, 2);
    toy.end_all(&stopped("half"));
    toy.settle();
    let status = toy.status();
    assert_eq!(toy.created, 4);
    assert_eq!(status.nodes["n1"].executions, 1, "what the older pod did is counted");
    assert_eq!(status.nodes["n1"].history[0].stdout, "half");
    toy.end_all(&succeeded("y"));
    toy.settle();
    assert_eq!((toy.states(), toy.status().nodes["n1"].executions), (vec!["Succeeded".to_owned(); 2], 2));
}

#[test]
fn an_edit_of_where_and_how_fast_runs_nothing_again() {
    let mut toy = Toy::new(HELLO, 2);
    toy.settle();
    toy.end_all(&succeeded("hi"));
    toy.settle();
    toy.edit("{script: x, nodeNames: [n1, n2, n3], historyLimit: 2, executionDeadlineSeconds: 5}");
    toy.settle();
    assert_eq!((toy.created, toy.status().run.as_ref().unwrap().number), (2, 1));
    assert_eq!(toy.status().nodes["n3"].reason, "NodeNotFound");
    assert_eq!(toy.status().accepted_generation, Some(2));
    toy.add_node("n3");
    toy.settle();
    assert_eq!(toy.created, 3, "the node that appears is run");
}

#[test]
fn parallelism_bounds_the_busy_nodes() {
    let mut toy =
        Toy::new("{script: x, nodeLabelSelector: {}, parallelism: '40%', executionDeadlineSeconds: 9}", 5);
    for _ in 0..10 {
        toy.settle();
        assert!(toy.observed.pods.iter().filter(|pod| !pod.has_ended()).count() <= 2);
        toy.end_some(&succeeded("hi"), 1);
    }
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Succeeded".to_owned(); 5], 5));
}

#[test]
fn taints_leave_nodes_out_until_they_go() {
    let mut toy = Toy::new(HELLO, 2);
    let taint = TaintFacts { key: "gpu".into(), value: "yes".into(), effect: "NoSchedule".into() };
    toy.node("n2").taints = vec![taint];
    toy.settle();
    let entry = toy.status().nodes["n2"].clone();
    assert_eq!((entry.state.as_str(), entry.reason.as_str()), ("Skipped", "Tainted"));
    assert!(entry.message.contains("gpu=yes:NoSchedule"), "{}", entry.message);
    toy.end("n1", &succeeded("hi"));
    toy.settle();
    assert!(holds(&toy.status().conditions, ConditionType::Complete));
    toy.node("n2").taints.clear();
    toy.settle();
    assert_eq!(toy.created, 2);
}

#[test]
fn a_cordoned_node_is_run_and_an_unready_one_is_waited_for() {
    let mut toy = Toy::new(HELLO, 2);
    toy.node("n1").taints = vec![TaintFacts {
        key: "node.kubernetes.io/unschedulable".into(),
        value: String::new(),
        effect: "NoSchedule".into(),
    }];
    toy.node("n2").ready = false;
    toy.settle();
    assert_eq!(toy.states(), ["Starting", "Pending"]);
    assert_eq!(toy.status().nodes["n2"].reason, "NodeNotReady");
    toy.wait_seconds(601);
    toy.settle();
    assert_eq!(
        (toy.states()[1].as_str(), toy.status().nodes["n2"].reason.as_str()),
        ("Unknown", "Unreachable")
    );
    toy.node("n2").ready = true;
    toy.settle();
    assert_eq!(toy.states()[1], "Starting", "a node that never started is run once it is Ready");
}

#[test]
fn windows_nodes_are_left_out() {
    let mut toy = Toy::new(HELLO, 1);
    toy.node("n1").os = "windows".into();
    toy.settle();
    assert_eq!(toy.status().nodes["n1"].reason, "UnsupportedOS");
    assert_eq!(find(&toy.status().conditions, ConditionType::Complete).unwrap().reason, "AllNodesSkipped");
    assert_eq!(toy.created, 0);
}

#[test]
fn an_image_that_cannot_be_pulled_ends_at_the_start_deadline() {
    let mut toy = Toy::new("{script: x, nodeLabelSelector: {}, podStartDeadlineSeconds: 30}", 1);
    toy.settle();
    toy.pod("n1").container =
        ContainerFacts::Waiting { reason: "ImagePullBackOff".into(), message: "no such image".into() };
    toy.settle();
    assert!(toy.status().nodes["n1"].message.contains("ImagePullBackOff"));
    toy.wait_seconds(31);
    toy.settle();
    let entry = &toy.status().nodes["n1"];
    assert_eq!((entry.state.as_str(), entry.reason.as_str()), ("Failed", "ImagePullFailed"));
    assert!(toy.pod("n1").deleting, "a pod that was given up must not start later");
}

#[test]
fn a_refused_pod_is_replaced_once_through_the_scheduler() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    for (attempt, placed) in [(1, false), (2, true)] {
        let pod = toy.pod("n1");
        assert_eq!((pod.attempt, pod.by_scheduler), (attempt, placed));
        (pod.phase, pod.reason) = ("Failed".into(), "OutOfcpu".into());
        toy.settle();
    }
    let entry = &toy.status().nodes["n1"];
    assert_eq!((entry.state.as_str(), entry.reason.as_str(), toy.created), ("Failed", "PodRefused", 2));
    assert_eq!(entry.executions, 0);
}

#[test]
fn a_pod_lost_before_it_started_is_replaced_and_a_running_one_is_not() {
    let mut toy = Toy::new(HELLO, 2);
    toy.settle();
    let pod = toy.pod("n1");
    (pod.deleting, pod.presence) = (true, Presence::Gone);
    toy.start("n2");
    toy.settle();
    toy.pod("n2").presence = Presence::Gone;
    toy.settle();
    assert_eq!(toy.status().nodes["n1"].reason, "Replaced");
    toy.wait_seconds(3);
    toy.settle();
    assert_eq!((toy.status().nodes["n1"].attempts, toy.created), (2, 3));
    let lost = &toy.status().nodes["n2"];
    assert_eq!((lost.state.as_str(), lost.reason.as_str(), lost.executions), ("Unknown", "PodDeleted", 1));
}

#[test]
fn a_pod_that_the_status_names_and_nobody_knows_is_lost() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    toy.observed.pods.clear();
    toy.settle();
    let entry = &toy.status().nodes["n1"];
    assert_eq!((entry.state.as_str(), entry.reason.as_str(), toy.created), ("Unknown", "PodLost", 1));
}

#[test]
fn an_unconfirmed_pod_is_neither_lost_nor_replaced() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    toy.start_all();
    toy.pod("n1").presence = Presence::Unconfirmed;
    toy.settle();
    assert_eq!((toy.states(), toy.created), (vec!["Running".to_owned()], 1));
}

#[test]
fn an_endless_repetition_goes_on_in_the_next_pod() {
    let mut toy = Toy::new("{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 1}}", 1);
    toy.settle();
    for round in 1..=3u64 {
        assert_eq!(toy.first_serial("n1"), 10 * (round - 1) + 1);
        toy.wait_seconds(600);
        toy.end("n1", &toy::handed_over(10));
        toy.settle();
        let entry = &toy.status().nodes["n1"];
        assert!(entry.node_state().is_active());
        assert_eq!((entry.executions, entry.serial, toy.created as u64), (10 * round, 10 * round, round + 1));
    }
    assert_eq!((toy.live_pods(), toy.status().active), (1, 1));
}

#[test]
fn an_endless_repetition_that_breaks_at_once_does_not_spin() {
    let mut toy = Toy::new("{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 1}}", 1);
    toy.settle();
    toy.end("n1", &failed(1, "x"));
    toy.settle();
    assert_eq!(toy.created, 1);
    assert_eq!((toy.status().active, toy.status().failing), (1, 1));
    toy.wait_seconds(61);
    toy.settle();
    assert_eq!((toy.created, toy.first_serial("n1")), (2, 2));
}

#[test]
fn an_edit_to_an_endless_repetition_does_not_prolong_the_run_before() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    toy.edit("{script: x, nodeLabelSelector: {}, mode: Privileged, repeat: {periodSeconds: 1}}");
    toy.settle();
    toy.end("n1", &failed(1, "x"));
    toy.settle();
    assert_eq!(toy.states(), ["Failed"]);
}

#[test]
fn a_privileged_mode_waits_for_its_namespace() {
    let spec = "{script: x, nodeLabelSelector: {}, mode: Privileged, parallelism: '100%', executionDeadlineSeconds: 9}";
    let mut toy = Toy::new(spec, 1);
    toy.settle();
    let accepted = find(&toy.status().conditions, ConditionType::Accepted).unwrap().clone();
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "NamespaceNotPrivileged"));
    assert!(accepted.message.contains("scriptrunner.io/privileged=allowed"), "{}", accepted.message);
    assert_eq!(
        (toy.created, toy.status().observed_generation, toy.status().accepted_generation),
        (0, Some(1), None)
    );
    toy.observed.namespace_privileged = true;
    toy.settle();
    assert_eq!((toy.created, toy.status().accepted_generation), (1, Some(1)));
    assert!(toy.observed.pods[0].name.starts_with("srp-"));
}

#[test]
fn what_cannot_fit_is_refused_before_any_pod_and_says_what_is_too_large() {
    for (nodes, other_bytes, reason, word) in
        [(1, 1_040_000, "SpecInvalid", "shorten"), (9_000, 1_000, "TooManyNodes", "9000 nodes")]
    {
        let mut toy = Toy::new(HELLO, nodes);
        toy.observed.object.other_bytes = other_bytes;
        toy.settle();
        let accepted = find(&toy.status().conditions, ConditionType::Accepted).unwrap();
        assert_eq!((accepted.status.as_str(), accepted.reason.as_str(), toy.created), ("False", reason, 0));
        assert!(accepted.message.contains(word), "{}", accepted.message);
    }
}

#[test]
fn an_edit_that_is_not_accepted_lets_running_pods_end_and_starts_none() {
    let mut toy =
        Toy::new("{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 9}", 2);
    toy.settle();
    toy.edit(
        "{script: x, nodeLabelSelector: {}, mode: Privileged, parallelism: 1, executionDeadlineSeconds: 9}",
    );
    toy.settle();
    toy.end("n1", &succeeded("hi"));
    toy.settle();
    assert_eq!((toy.created, toy.status().succeeded, toy.status().pending), (1, 1, 1));
    assert_eq!(toy.status().observed_generation, Some(2));
}

#[test]
fn no_matching_node_is_a_condition_and_no_verdict() {
    let mut toy = Toy::new("{script: x, nodeLabelSelector: {matchLabels: {a: b}}}", 2);
    toy.settle();
    let status = toy.status();
    assert_eq!(find(&status.conditions, ConditionType::Progressing).unwrap().reason, "NoMatchingNodes");
    assert!(
        !holds(&status.conditions, ConditionType::Complete)
            && !holds(&status.conditions, ConditionType::Failed)
    );
}

#[test]
fn a_run_makes_its_config_map_first_and_is_stored_before_its_pods() {
    let mut toy = Toy::new(HELLO, 1);
    toy.step();
    assert_eq!((toy.observed.config_maps.len(), toy.created), (1, 0));
    toy.step();
    assert_eq!(toy.status().run.as_ref().unwrap().number, 1);
    toy.step();
    assert_eq!(toy.created, 1);
}

#[test]
fn a_lost_config_map_is_made_again_while_pods_are_to_come() {
    let mut toy =
        Toy::new("{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 9}", 2);
    toy.settle();
    toy.observed.config_maps.clear();
    toy.end("n1", &succeeded("hi"));
    toy.settle();
    assert_eq!((toy.observed.config_maps.len(), toy.created), (1, 2));
}

#[test]
fn a_config_map_whose_name_is_taken_is_a_condition_and_is_tried_again() {
    let mut toy = Toy::new(HELLO, 1);
    toy.observed.config_map_conflict = Some("ConfigMap \"x\" is not ours".into());
    toy.step();
    let accepted = find(&toy.status().conditions, ConditionType::Accepted).unwrap().clone();
    assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "InputChanged"));
    assert_eq!(toy.observed.config_maps.len(), 1, "it is tried again");
    toy.observed.config_map_conflict = None;
    toy.settle();
    assert_eq!(toy.created, 1);
}

#[test]
fn the_config_map_of_an_older_run_goes_when_its_pods_are_gone() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    toy.edit("{script: y, nodeLabelSelector: {}}");
    toy.settle();
    assert_eq!(toy.observed.config_maps.len(), 2);
    toy.end_all(&stopped(""));
    toy.settle();
    toy.end_all(&succeeded("y"));
    toy.settle();
    assert_eq!(toy.observed.config_maps.len(), 1);
}

#[test]
fn deletion_deletes_every_pod_and_starts_none() {
    let mut toy = Toy::new(HELLO, 2);
    toy.settle();
    toy.observed.object.deleting = true;
    toy.add_node("n3");
    toy.settle();
    assert_eq!((toy.created, toy.observed.pods.iter().filter(|pod| pod.deleting).count()), (2, 2));
}

#[test]
fn a_status_from_a_backup_is_honoured_and_runs_nothing_again() {
    let mut toy = Toy::new(HELLO, 2);
    toy.settle();
    toy.end_all(&succeeded("hi"));
    toy.settle();
    toy.observed.object.uid = "restored".into();
    toy.observed.pods.clear();
    toy.observed.config_maps.clear();
    toy.settle();
    assert_eq!((toy.created, toy.states()), (2, vec!["Succeeded".to_owned(); 2]));
    assert_eq!(toy.status().object_uid.as_deref(), Some("restored"));
}

#[test]
fn entries_that_were_cut_out_of_the_status_are_not_run_again() {
    let mut toy = Toy::new(HELLO, 3);
    toy.settle();
    toy.end_all(&succeeded("hi"));
    toy.settle();
    let mut cut = toy.status().clone();
    cut.nodes.remove("n2");
    toy.store(cut);
    toy.settle();
    let entry = &toy.status().nodes["n2"];
    assert_eq!((entry.state.as_str(), entry.reason.as_str(), toy.created), ("Unknown", "StatusLost", 3));
}

#[test]
fn a_run_number_is_above_that_of_every_pod_there_is() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    for pod in &mut toy.observed.pods {
        Arc::make_mut(pod).run = 7;
    }
    toy.observed.previous = None;
    toy.settle();
    assert_eq!(toy.status().run.as_ref().unwrap().number, 8);
}

#[test]
fn a_taken_pod_name_costs_only_its_own_node_and_only_until_the_deadline() {
    let spec = "{script: x, nodeLabelSelector: {}, parallelism: 1, executionDeadlineSeconds: 9, podStartDeadlineSeconds: 30}";
    let mut toy = Toy::new(spec, 2);
    toy.step();
    let pod = crate::names::pod_name(scriptrunner_api::v1alpha1::Mode::Normal, "uid", "uid-of-n1", 1, 1);
    toy.observed
        .pod_conflicts
        .insert("n1".into(), PodConflict { pod, message: "taken".into(), since: toy.now });
    toy.step();
    toy.step();
    assert_eq!(
        (toy.states(), toy.status().nodes["n1"].reason.as_str()),
        (vec!["Pending".to_owned(), "Starting".to_owned()], "NameConflict")
    );
    toy.end("n2", &succeeded("hi"));
    toy.wait_seconds(31);
    toy.step();
    assert_eq!(
        (toy.states()[0].as_str(), toy.status().nodes["n1"].reason.as_str()),
        ("Failed", "NameConflict")
    );
    toy.edit("{script: y, nodeLabelSelector: {}}");
    toy.settle();
    assert_eq!(
        toy.states(),
        ["Starting", "Starting"],
        "the conflict of an older run's pod says nothing of the next"
    );
}

#[test]
fn pods_of_a_namesake_hold_the_node() {
    let mut toy = Toy::new(HELLO, 2);
    toy.observed.occupied_nodes.insert("n1".into());
    toy.settle();
    assert_eq!(toy.states(), ["Pending", "Starting"]);
    toy.observed.occupied_nodes.clear();
    toy.settle();
    assert_eq!(toy.states(), ["Starting", "Starting"]);
}

#[test]
fn a_pod_that_does_not_start_names_what_its_volumes_need() {
    let volumes = "volumes: [{name: a, configMap: {name: settings}}, {name: b, secret: {secretName: key}}, {name: c, secret: {secretName: may-miss, optional: true}}, {name: d, persistentVolumeClaim: {claimName: data}}, {name: e, emptyDir: {}}, {name: f, secret: {secretName: elsewhere}}], volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}, {name: c, mountPath: /c}, {name: d, mountPath: /d}, {name: e, mountPath: /e}]";
    let told = |template: &str| {
        let mut toy = Toy::new(
            &format!(
                "{{script: x, nodeLabelSelector: {{}}, podStartDeadlineSeconds: 30, podTemplate: {{{template}}}}}"
            ),
            1,
        );
        toy.settle();
        toy.wait_seconds(31);
        toy.settle();
        toy.status().nodes["n1"].message.clone()
    };
    let message = told(volumes);
    assert!(message.contains("ConfigMap \"settings\", Secret \"key\", claim \"data\": look"), "{message}");
    assert!(!message.contains("elsewhere"), "nothing waits for what is not mounted: {message}");
    assert!(!told("").contains("volumes"));
}

#[test]
fn an_answer_after_the_wait_was_given_up_counts() {
    let mut toy = Toy::new("{script: x, nodeLabelSelector: {}, podStartDeadlineSeconds: 30}", 1);
    toy.settle();
    toy.wait_seconds(31);
    toy.settle();
    assert_eq!(toy.status().nodes["n1"].reason, "StartDeadlineExceeded");
    toy.end("n1", &succeeded("late"));
    toy.settle();
    let entry = &toy.status().nodes["n1"];
    assert_eq!((entry.state.as_str(), entry.executions), ("Succeeded", 1));
}

#[test]
fn every_counter_sums_up_to_desired_at_every_write() {
    let mut toy =
        Toy::new("{script: x, nodeLabelSelector: {}, parallelism: 2, executionDeadlineSeconds: 9}", 6);
    toy.node("n6").os = "windows".into();
    for round in 0..12 {
        toy.step();
        toy.end_some(if round % 2 == 0 { succeeded("a") } else { failed(2, "b") }.as_str(), 1);
        let Some(status) = &toy.observed.previous else { continue };
        let sum = status.pending
            + status.active
            + status.succeeded
            + status.failed
            + status.skipped
            + status.unknown;
        assert_eq!(sum, status.desired);
    }
}

#[test]
fn marks_name_the_owner_the_run_and_the_node() {
    let mut toy = Toy::new(HELLO, 1);
    toy.settle();
    let pod = &toy.pods_made[0];
    let pod_labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!(pod_labels[labels::UID], "uid");
    assert_eq!(pod_labels[labels::NODE_UID], "uid-of-n1");
    assert_eq!(pod.metadata.annotations.as_ref().unwrap()[labels::NODE], "n1");
    assert_eq!(NodeState::parse("Starting"), NodeState::Starting);
    assert_eq!(NodeReason::parse("Replaced"), Some(NodeReason::Replaced));
}
