//! Table tests of every end that a pod can have.

use super::*;
use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::{labels::PROTOCOL, v1alpha1::Execution};

fn pod(container: ContainerFacts) -> PodFacts {
    PodFacts {
        namespace: "ns".into(),
        name: "srn-a".into(),
        uid: "pod".into(),
        id: String::new(),
        resource_version: 1,
        owner_uid: "owner".into(),
        owner_name: "sr".into(),
        node: "n1".into(),
        node_uid: "node".into(),
        node_id: String::new(),
        run: 2,
        attempt: 1,
        failures_before: 0,
        shape: String::new(),
        longest_seconds: None,
        created: Timestamp::from_second(1_800_000_000).ok(),
        started: None,
        presence: Presence::Present,
        deleting: false,
        bound: true,
        by_scheduler: false,
        phase: "Running".into(),
        reason: String::new(),
        message: String::new(),
        disruption: String::new(),
        init_failure: String::new(),
        container,
    }
}

fn message(state: &str, reason: &str, change: impl FnOnce(&mut Snapshot)) -> String {
    let record = Record {
        protocol: PROTOCOL,
        boot: "b".into(),
        run: 2,
        attempt: 1,
        seq: 3,
        state: state.into(),
        reason: reason.into(),
        message: String::new(),
        executions: 1,
        failures: 0,
        serial: 1,
        handed_over: false,
        exit_code: Some(0),
        signal: None,
    };
    let execution = Execution { run: 2, attempt: 1, serial: 1, exit_code: Some(0), ..Execution::default() };
    let mut snapshot = Snapshot { record, history: vec![execution] };
    change(&mut snapshot);
    snapshot.encode(4096)
}

fn terminated(exit_code: i32, reason: &str, message: &str) -> PodFacts {
    pod(ContainerFacts::Terminated {
        exit_code,
        reason: reason.into(),
        message: message.into(),
        finished: None,
    })
}

fn outcome(pod: &PodFacts) -> Outcome {
    match pod_state(pod, Beside::default()) {
        PodState::Ended(outcome) => *outcome,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn expect(pod: &PodFacts, state: NodeState, reason: Option<NodeReason>, lost_executions: u64) {
    let outcome = outcome(pod);
    assert_eq!(
        (outcome.state, outcome.reason, outcome.lost_executions),
        (state, reason, lost_executions),
        "{}",
        outcome.message
    );
}

#[test]
fn a_record_of_success_is_success() {
    let pod = terminated(0, "Completed", &message("Succeeded", "", |_| {}));
    expect(&pod, NodeState::Succeeded, None, 0);
    assert_eq!(outcome(&pod).snapshot.unwrap().history.len(), 1);
}

fn skipping(snapshot: &mut Snapshot) {
    snapshot.record.exit_code = Some(4);
    snapshot.record.message = "execution 1 exited with code 4, which exitCodes.skipped has".into();
    snapshot.history[0].exit_code = Some(4);
    snapshot.history[0].reason = NodeReason::ExitCodeSkips.as_str().into();
}

#[test]
fn a_record_of_a_skip_skips_the_node_and_is_no_failure() {
    let told = message("Skipped", "ExitCodeSkips", skipping);
    let pod = terminated(0, "Completed", &told);
    expect(&pod, NodeState::Skipped, Some(NodeReason::ExitCodeSkips), 0);
    let outcome = outcome(&pod);
    assert!(outcome.message.ends_with("which exitCodes.skipped has"), "{}", outcome.message);
    assert!(outcome.snapshot.unwrap().history[0].skipped());
    // The reason follows from the state, whatever else was said.
    let without = terminated(0, "Completed", &message("Skipped", "", skipping));
    expect(&without, NodeState::Skipped, Some(NodeReason::ExitCodeSkips), 0);
    let deleted = PodFacts { deleting: true, presence: Presence::Gone, ..pod };
    expect(&deleted, NodeState::Skipped, Some(NodeReason::ExitCodeSkips), 0);
}

#[test]
fn a_skip_that_the_session_tells_ends_the_node_at_once_and_a_repetition_never() {
    let live = Snapshot::decode(&message("Skipped", "ExitCodeSkips", skipping)).unwrap();
    assert!(is_final(&live.record));
    for (shape, endless) in [("", false), ("warm", false), ("", true)] {
        let pod = PodFacts { shape: shape.into(), ..pod(ContainerFacts::Running) };
        let state = pod_state(&pod, Beside { live: Some(&live), endless, ..Beside::default() });
        match state {
            PodState::Ended(outcome) => {
                assert!(!endless);
                let found = (outcome.state, outcome.reason, outcome.lost_executions);
                assert_eq!(found, (NodeState::Skipped, Some(NodeReason::ExitCodeSkips), 0));
            }
            other => assert!(endless && other == PodState::Running, "{other:?}"),
        }
    }
}

#[test]
fn a_record_of_failure_keeps_its_reason() {
    for reason in [
        NodeReason::ScriptFailed,
        NodeReason::ExecutionDeadlineExceeded,
        NodeReason::DependencyInstallFailed,
        NodeReason::InputTampered,
    ] {
        let pod = terminated(1, "Error", &message("Failed", reason.as_str(), |_| {}));
        expect(&pod, NodeState::Failed, Some(reason), 0);
    }
    let restarted = terminated(
        5,
        "Error",
        &message("Unknown", "Restarted", |snapshot| {
            snapshot.record.executions = 0;
            snapshot.history.clear();
        }),
    );
    expect(&restarted, NodeState::Unknown, Some(NodeReason::Restarted), 0);
}

#[test]
fn the_exit_code_alone_proves_nothing() {
    expect(&terminated(0, "Completed", ""), NodeState::Unknown, Some(NodeReason::NoMessage), 1);
    expect(&terminated(0, "Completed", "hello"), NodeState::Unknown, Some(NodeReason::NoMessage), 1);
}

#[test]
fn a_message_of_another_pod_is_not_believed() {
    let pod = terminated(0, "Completed", &message("Succeeded", "", |snapshot| snapshot.record.run = 1));
    expect(&pod, NodeState::Unknown, Some(NodeReason::NoMessage), 1);
}

#[test]
fn memory_that_ran_out_is_a_failure_with_and_without_a_record() {
    expect(&terminated(137, "OOMKilled", ""), NodeState::Failed, Some(NodeReason::OOMKilled), 1);
    let running = message("Running", "", |snapshot| {
        snapshot.record.executions = 2;
        snapshot.record.serial = 2;
    });
    expect(&terminated(137, "OOMKilled", &running), NodeState::Failed, Some(NodeReason::OOMKilled), 1);
    let survived = message("Failed", "ScriptFailed", |snapshot| {
        snapshot.record.signal = Some(9);
        snapshot.record.exit_code = None;
    });
    expect(&terminated(1, "OOMKilled", &survived), NodeState::Failed, Some(NodeReason::OOMKilled), 0);
    let other = message("Failed", "ScriptFailed", |_| {});
    expect(&terminated(1, "OOMKilled", &other), NodeState::Failed, Some(NodeReason::ScriptFailed), 0);
}

#[test]
fn an_interrupted_script_is_stopped_and_says_by_what() {
    let stopped = message("Stopped", "Interrupted", |_| {});
    expect(&terminated(6, "Error", &stopped), NodeState::Stopped, Some(NodeReason::Interrupted), 0);
    let deleted = PodFacts { deleting: true, ..terminated(6, "Error", &stopped) };
    expect(&deleted, NodeState::Stopped, Some(NodeReason::PodDeleted), 0);
    let evicted =
        PodFacts { reason: "Evicted".into(), phase: "Failed".into(), ..terminated(6, "Error", &stopped) };
    expect(&evicted, NodeState::Stopped, Some(NodeReason::Evicted), 0);
    let PodState::Ended(superseded) = pod_state(&deleted, Beside { superseded: true, ..Beside::default() })
    else {
        panic!("it ended")
    };
    assert_eq!((superseded.state, superseded.reason), (NodeState::Stopped, Some(NodeReason::Superseded)));
}

/// Reasons of the kubelet and of the condition, whether the pod is deleted, and what is made of them.
const LOSSES: [(&str, &str, bool, NodeReason, &str); 11] = [
    (
        "",
        "EvictionByEvictionAPI",
        true,
        NodeReason::Evicted,
        "the pod was evicted through the eviction API, as a drain does",
    ),
    ("Evicted", "TerminationByKubelet", false, NodeReason::Evicted, "the kubelet evicted the pod"),
    ("Evicted", "", false, NodeReason::Evicted, "the kubelet evicted the pod"),
    ("Terminated", "TerminationByKubelet", false, NodeReason::Evicted, "the kubelet ended the pod"),
    (
        "",
        "DeletionByTaintManager",
        true,
        NodeReason::Evicted,
        "the pod was evicted for a taint of its node that it does not tolerate",
    ),
    (
        "",
        "PreemptionByScheduler",
        true,
        NodeReason::Preempted,
        "the pod was preempted by a more important pod",
    ),
    (
        "Preempting",
        "TerminationByKubelet",
        false,
        NodeReason::Preempted,
        "the pod was preempted by a more important pod",
    ),
    ("Preempting", "", false, NodeReason::Preempted, "the pod was preempted by a more important pod"),
    (
        "",
        "DeletionByPodGC",
        true,
        NodeReason::PodLost,
        "the pod was removed because its node is gone or out of service",
    ),
    ("", "", true, NodeReason::PodDeleted, "the pod was deleted"),
    // A reason that this version does not know.
    ("", "DeletionByGeneral", true, NodeReason::PodDeleted, "the pod was deleted"),
];

fn lost(of: PodFacts, reason: &str, disruption: &str, deleting: bool) -> PodFacts {
    let presence = if deleting { Presence::Gone } else { Presence::Present };
    let phase = if reason.is_empty() { of.phase.clone() } else { "Failed".into() };
    PodFacts { reason: reason.into(), disruption: disruption.into(), deleting, presence, phase, ..of }
}

#[test]
fn who_ended_a_pod_is_told_whoever_saw_the_end() {
    let stopped = message("Stopped", "Interrupted", |snapshot| {
        snapshot.record.message = "the pod was told to end".into();
    });
    let running = message("Running", "", |snapshot| {
        snapshot.record.executions = 2;
        snapshot.record.serial = 2;
    });
    for (reason, disruption, deleting, expected, text) in LOSSES {
        let told = lost(terminated(6, "Error", &stopped), reason, disruption, deleting);
        expect(&told, NodeState::Stopped, Some(expected), 0);
        assert_eq!(outcome(&told).message, format!("{text}; the pod was told to end"));
        for unseen in [
            lost(pod(ContainerFacts::Running), reason, disruption, deleting),
            lost(terminated(137, "Error", ""), reason, disruption, deleting),
            lost(terminated(137, "Error", &running), reason, disruption, deleting),
        ] {
            expect(&unseen, NodeState::Unknown, Some(expected), 1);
            assert!(outcome(&unseen).message.contains(text), "{}", outcome(&unseen).message);
        }
    }
}

#[test]
fn what_the_kubelet_says_of_an_eviction_is_told() {
    let evicted = PodFacts {
        message: "The node was low on resource: memory.".into(),
        ..lost(terminated(137, "Error", ""), "Evicted", "TerminationByKubelet", false)
    };
    assert_eq!(
        outcome(&evicted).message,
        "the kubelet evicted the pod: The node was low on resource: memory."
    );
}

#[test]
fn a_disruption_takes_nothing_from_an_answer_and_nothing_from_a_pod_that_lives() {
    for (reason, disruption, deleting, ..) in LOSSES {
        let answered =
            lost(terminated(0, "Completed", &message("Succeeded", "", |_| {})), reason, disruption, deleting);
        expect(&answered, NodeState::Succeeded, None, 0);
        let memory = lost(terminated(137, "OOMKilled", ""), reason, disruption, deleting);
        expect(&memory, NodeState::Failed, Some(NodeReason::OOMKilled), 1);
    }
    let threatened = PodFacts { disruption: "EvictionByEvictionAPI".into(), ..pod(ContainerFacts::Running) };
    assert_eq!(pod_state(&threatened, Beside::default()), PodState::Running);
    let superseded = Beside { superseded: true, ..Beside::default() };
    let PodState::Ended(outcome) =
        pod_state(&lost(terminated(137, "Error", ""), "", "EvictionByEvictionAPI", true), superseded)
    else {
        panic!("it ended")
    };
    assert_eq!(outcome.reason, Some(NodeReason::Superseded));
}

#[test]
fn a_pod_that_was_disrupted_before_it_started_is_no_refusal() {
    for (reason, disruption, deleting, ..) in LOSSES {
        let unstarted = lost(pod(ContainerFacts::Absent), reason, disruption, deleting);
        let PodState::NeverStarted(never) = pod_state(&unstarted, Beside::default()) else {
            panic!("it never started: {reason} {disruption}")
        };
        assert!(!never.refused, "{reason} {disruption}");
    }
    let orphan = PodFacts {
        phase: "Failed".into(),
        disruption: "DeletionByPodGC".into(),
        ..pod(ContainerFacts::Absent)
    };
    assert!(matches!(
        pod_state(&orphan, Beside::default()),
        PodState::NeverStarted(NeverStarted { refused: false, .. })
    ));
}

#[test]
fn the_condition_counts_only_while_it_holds() {
    let disruption = |status: &str| {
        let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "ns", "name": "srn-a", "uid": "a", "resourceVersion": "1"},
            "spec": {"containers": []},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "reason": "Other"},
                {"type": "DisruptionTarget", "status": status, "reason": "PreemptionByScheduler"}]}});
        let marks = self::pod(ContainerFacts::Absent).marks();
        PodFacts::with_marks(&serde_json::from_value(pod).unwrap(), &marks).unwrap().disruption
    };
    assert_eq!((disruption("True").as_str(), disruption("False").as_str()), ("PreemptionByScheduler", ""));
}

#[test]
fn a_script_that_ended_before_its_pod_was_deleted_keeps_its_end() {
    let pod = PodFacts {
        deleting: true,
        presence: Presence::Gone,
        ..terminated(0, "Completed", &message("Succeeded", "", |_| {}))
    };
    expect(&pod, NodeState::Succeeded, None, 0);
}

#[test]
fn a_runner_killed_at_work_is_unknown_and_its_execution_lost() {
    let running = message("Running", "", |snapshot| {
        snapshot.record.executions = 3;
        snapshot.record.serial = 3;
    });
    expect(&terminated(137, "Error", &running), NodeState::Unknown, Some(NodeReason::RunnerKilled), 1);
    let evicted = PodFacts { reason: "Evicted".into(), ..terminated(137, "Error", &running) };
    expect(&evicted, NodeState::Unknown, Some(NodeReason::Evicted), 1);
}

#[test]
fn a_node_that_went_down_is_told_from_a_failing_script() {
    expect(&terminated(255, "Unknown", ""), NodeState::Unknown, Some(NodeReason::NodeRestarted), 1);
    expect(&terminated(255, "Error", ""), NodeState::Unknown, Some(NodeReason::NoMessage), 1);
}

#[test]
fn a_runner_that_hands_over_goes_on() {
    let outcome = outcome(&terminated(
        0,
        "Completed",
        &message("Running", "NoSession", |snapshot| snapshot.record.handed_over = true),
    ));
    assert!(outcome.handed_over);
    assert_eq!(
        (outcome.state, outcome.reason, outcome.lost_executions),
        (NodeState::Running, Some(NodeReason::NoSession), 0)
    );
}

#[test]
fn a_container_that_could_not_be_started_failed_and_ran_nothing() {
    let pod = terminated(128, "StartError", "exec: no such file");
    expect(&pod, NodeState::Failed, Some(NodeReason::ContainerNotStarted), 0);
}

#[test]
fn pods_that_never_started_can_be_replaced() {
    let refused =
        PodFacts { phase: "Failed".into(), reason: "OutOfmemory".into(), ..pod(ContainerFacts::Absent) };
    assert!(matches!(
        pod_state(&refused, Beside::default()),
        PodState::NeverStarted(NeverStarted { refused: true, .. })
    ));
    let evicted =
        PodFacts { phase: "Failed".into(), reason: "Evicted".into(), ..pod(ContainerFacts::Absent) };
    assert!(matches!(
        pod_state(&evicted, Beside::default()),
        PodState::NeverStarted(NeverStarted { refused: false, .. })
    ));
    let deleted = PodFacts { deleting: true, presence: Presence::Gone, ..pod(ContainerFacts::Absent) };
    assert!(matches!(
        pod_state(&deleted, Beside::default()),
        PodState::NeverStarted(NeverStarted { refused: false, .. })
    ));
    let unbound = PodFacts { bound: false, presence: Presence::Gone, ..pod(ContainerFacts::Absent) };
    assert!(matches!(pod_state(&unbound, Beside::default()), PodState::NeverStarted(_)));
}

#[test]
fn a_pod_forced_away_while_it_may_have_been_starting_is_unknown() {
    let pod = PodFacts {
        presence: Presence::Gone,
        ..pod(ContainerFacts::Waiting { reason: "ContainerCreating".into(), message: String::new() })
    };
    expect(&pod, NodeState::Unknown, Some(NodeReason::PodDeleted), 1);
}

#[test]
fn a_pod_that_vanished_while_running_is_unknown() {
    expect(
        &PodFacts { presence: Presence::Gone, ..pod(ContainerFacts::Running) },
        NodeState::Unknown,
        Some(NodeReason::PodDeleted),
        1,
    );
    let lost = PodFacts { phase: "Failed".into(), reason: "NodeLost".into(), ..pod(ContainerFacts::Running) };
    expect(&lost, NodeState::Unknown, Some(NodeReason::PodLost), 1);
}

#[test]
fn pods_that_live_are_starting_or_running() {
    assert_eq!(pod_state(&pod(ContainerFacts::Running), Beside::default()), PodState::Running);
    let waiting = pod(ContainerFacts::Waiting { reason: "ErrImagePull".into(), message: "no".into() });
    assert_eq!(
        pod_state(&waiting, Beside::default()),
        PodState::Starting { reason: "ErrImagePull".into(), message: "no".into() }
    );
    let unconfirmed = PodFacts { presence: Presence::Unconfirmed, ..pod(ContainerFacts::Running) };
    assert_eq!(pod_state(&unconfirmed, Beside::default()), PodState::Running);
}

#[test]
fn start_failures_are_named_by_what_the_container_waits_for() {
    for (waiting, reason) in [
        ("ImagePullBackOff", NodeReason::ImagePullFailed),
        ("InvalidImageName", NodeReason::ImagePullFailed),
        ("CreateContainerConfigError", NodeReason::ContainerNotStarted),
        ("ContainerCreating", NodeReason::StartDeadlineExceeded),
        ("", NodeReason::StartDeadlineExceeded),
    ] {
        assert_eq!(start_failure(waiting), reason, "{waiting}");
    }
}

#[test]
fn a_runner_that_cannot_be_put_beside_the_image_is_the_nodes_end_unless_somebody_ended_the_pod() {
    let failed = PodFacts {
        phase: "Failed".into(),
        init_failure: "container \"copy-runner\" ended with exit code 1 (Error): no space left".into(),
        ..pod(ContainerFacts::Waiting { reason: "PodInitializing".into(), message: String::new() })
    };
    let PodState::Ended(outcome) = pod_state(&failed, Beside::default()) else { panic!() };
    assert_eq!((outcome.state, outcome.reason), (NodeState::Failed, Some(NodeReason::ContainerNotStarted)));
    assert_eq!(outcome.lost_executions, 0);
    assert!(
        outcome.message.ends_with("ended with exit code 1 (Error): no space left"),
        "{}",
        outcome.message
    );
    for ended in [
        PodFacts { deleting: true, ..failed.clone() },
        PodFacts { reason: "Evicted".into(), ..failed.clone() },
        PodFacts { disruption: "EvictionByEvictionAPI".into(), ..failed.clone() },
    ] {
        let PodState::NeverStarted(never) = pod_state(&ended, Beside::default()) else { panic!() };
        assert!(!never.refused, "{ended:?}");
    }
}

#[test]
fn a_pod_waits_for_what_its_init_container_or_the_scheduler_waits_for() {
    let facts = |status: serde_json::Value| {
        let metadata = serde_json::json!({"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1"});
        let pod = serde_json::json!({"metadata": metadata, "spec": {"containers": []}, "status": status});
        let marks = self::pod(ContainerFacts::Absent).marks();
        PodFacts::with_marks(&serde_json::from_value(pod).unwrap(), &marks).unwrap()
    };
    let of = |name: &str, state: serde_json::Value| serde_json::json!([{"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
    let initializing = of("runner", serde_json::json!({"waiting": {"reason": "PodInitializing"}}));
    let waiting = |status| match facts(status).container {
        ContainerFacts::Waiting { reason, message } => (reason, message),
        other => panic!("{other:?}"),
    };
    let pulling = of(
        "copy-runner",
        serde_json::json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}),
    );
    let (reason, message) = waiting(
        serde_json::json!({"phase": "Pending", "initContainerStatuses": pulling, "containerStatuses": initializing}),
    );
    assert_eq!(start_failure(&reason), NodeReason::ImagePullFailed);
    assert_eq!(message, "container \"copy-runner\": no such image");
    let (reason, message) = waiting(serde_json::json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "claim \"a\" not found"}]}));
    assert_eq!((reason.as_str(), message.as_str()), ("Unschedulable", "claim \"a\" not found"));
    let copied = of("copy-runner", serde_json::json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
    let user = of(
        "runner",
        serde_json::json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"s\" not found"}}),
    );
    let (reason, message) = waiting(
        serde_json::json!({"phase": "Pending", "initContainerStatuses": copied, "containerStatuses": user}),
    );
    assert_eq!(start_failure(&reason), NodeReason::ContainerNotStarted);
    assert_eq!(message, "secret \"s\" not found");
    for (reason, failure) in [
        ("OOMKilled", "container \"copy-runner\" ended with exit code 137 (OOMKilled): "),
        ("ContainerStatusUnknown", ""),
    ] {
        let state = serde_json::json!({"terminated": {"exitCode": 137, "reason": reason}});
        let status =
            serde_json::json!({"phase": "Failed", "initContainerStatuses": of("copy-runner", state)});
        assert_eq!(facts(status).init_failure, failure);
    }
}
