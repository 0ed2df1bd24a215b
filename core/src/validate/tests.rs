//! Table tests of what is accepted and what is refused with which words.

use std::collections::BTreeSet;

use scriptrunner_api::v1alpha1::{
    InterruptionPolicy, LabelSelector, NewNodePolicy, NotReadyNodePolicy, UnschedulableNodePolicy,
};

use super::*;

mod pods;

fn spec(yaml: &str) -> ScriptRunnerSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn plain_spec_gets_every_default() {
    let run = validate(&spec("{script: x, nodeLabelSelector: {}}"), &Sources::default()).unwrap();
    assert_eq!(
        run.limits,
        Limits {
            execution_deadline_seconds: None,
            grace_seconds: 10,
            start_deadline_seconds: 600,
            idle_seconds: 0,
            history: 5,
            stdout_bytes: 4096,
            stderr_bytes: 4096,
            truncation: OutputTruncation::Tail,
            install_seconds: 600,
        }
    );
    assert_eq!((run.parallelism, run.max_failures), (None, None));
    assert_eq!(
        run.attempts,
        Attempts {
            backoff_limit: 0,
            exit_codes: ValidExitCodes::default(),
            interruption: InterruptionPolicy::Report,
            active_deadline_seconds: None,
        }
    );
    assert_eq!((run.rerun, run.updates), (None, UpdatePolicy::Rerun));
    assert_eq!((run.ttl_seconds, run.cleanup), (None, PodCleanupPolicy::OnSuccess));
    assert_eq!(
        run.targets,
        Targets {
            matching: Matching::Selector(LabelSelector::default()),
            excluded: BTreeSet::new(),
            sample: None,
            tolerations: Vec::new(),
            unschedulable: UnschedulableNodePolicy::Run,
            not_ready: NotReadyNodePolicy::Wait,
            new_nodes: NewNodePolicy::Run,
        }
    );
}

#[test]
fn each_contradiction_is_named() {
    for (yaml, word) in [
        ("{script: '', nodeLabelSelector: {}}", "script is empty"),
        ("{script: x}", "exactly one of nodeLabelSelector and nodeNames"),
        (
            "{script: x, nodeLabelSelector: {}, nodeNames: [a]}",
            "exactly one of nodeLabelSelector and nodeNames",
        ),
        ("{script: x, nodeNames: []}", "nodeNames is empty"),
        ("{script: x, nodeLabelSelector: {matchExpressions: [{key: a, operator: In}]}}", "need values"),
        (
            "{script: x, nodeLabelSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}",
            "take none",
        ),
        ("{script: x, nodeNames: [a], historyLimit: 0}", "historyLimit is 0"),
        ("{script: x, nodeNames: [a], repeat: {periodSeconds: 1, count: 0}}", "repeat.count"),
        ("{script: x, nodeNames: [a], parallelism: 1}", "executionDeadlineSeconds"),
        (
            "{script: x, nodeNames: [a], parallelism: 1, executionDeadlineSeconds: 1, repeat: {periodSeconds: 1}}",
            "endless",
        ),
        ("{script: x, nodeNames: [a], parallelism: 0, executionDeadlineSeconds: 1}", "parallelism is 0"),
        ("{script: x, nodeNames: [a], parallelism: '0%', executionDeadlineSeconds: 1}", "0%"),
        ("{script: x, nodeNames: [a], parallelism: '101%', executionDeadlineSeconds: 1}", "101%"),
        ("{script: x, nodeNames: [a], maxFailures: 0}", "maxFailures needs executionDeadlineSeconds"),
        (
            "{script: x, nodeNames: [a], maxFailures: 0, executionDeadlineSeconds: 1, repeat: {periodSeconds: 1}}",
            "maxFailures cannot be combined with an endless repeat",
        ),
        (
            "{script: x, nodeNames: [a], maxFailures: -1, executionDeadlineSeconds: 1}",
            "maxFailures is -1, it must be from 0 to 1000000",
        ),
        ("{script: x, nodeNames: [a], maxFailures: 1000001, executionDeadlineSeconds: 1}", "1000001"),
        (
            "{script: x, nodeNames: [a], maxFailures: '0%', executionDeadlineSeconds: 1}",
            "maxFailures is \"0%\"",
        ),
        ("{script: x, nodeNames: [a], maxFailures: some, executionDeadlineSeconds: 1}", "1% to 100%"),
        ("{script: x, nodeNames: [a], mode: Privileged}", "must state parallelism"),
        (
            "{script: x, nodeNames: [a], mode: Privileged, runAs: Root, parallelism: 1, executionDeadlineSeconds: 1}",
            "runAs",
        ),
        ("{script: x, nodeNames: [a], runnerIdleSeconds: 86401}", "runnerIdleSeconds is 86401"),
        (
            "{script: x, nodeNames: [a], mode: Privileged, runnerIdleSeconds: 1, parallelism: 1, executionDeadlineSeconds: 1}",
            "runnerIdleSeconds is for mode Normal",
        ),
        ("{script: x, nodeNames: [a], hostFileSystem: {}}", "PrivilegedWithHostFS"),
        ("{script: x, nodeNames: [a], env: [{name: SCRIPTRUNNER_X}]}", "SCRIPTRUNNER_X"),
        ("{script: x, nodeNames: [a], dependencies: {pip: ['-r x']}}", "-r x"),
        ("{script: x, nodeNames: [a], interpreter: []}", "interpreter is empty"),
        (
            "{script: x, nodeNames: [a], mode: Privileged, repeat: {periodSeconds: 1}, env: [{name: A, valueFrom: {configMapKeyRef: {name: c, key: k}}}]}",
            "ConfigMap",
        ),
        ("{script: x, nodeLabelSelector: {}, nodeSample: 0}", "nodeSample is 0"),
        ("{script: x, nodeLabelSelector: {}, nodeSample: -3}", "nodeSample is -3"),
        ("{script: x, nodeLabelSelector: {}, nodeSample: 1000001}", "1000001"),
        ("{script: x, nodeLabelSelector: {}, nodeSample: '0%'}", "nodeSample is \"0%\""),
        ("{script: x, nodeLabelSelector: {}, nodeSample: half}", "1% to 100%"),
        ("{script: x, nodeLabelSelector: {}, tolerations: [{}]}", "needs operator: Exists"),
        ("{script: x, nodeLabelSelector: {}, tolerations: [{key: '', value: a}]}", "needs operator: Exists"),
        (
            "{script: x, nodeLabelSelector: {}, tolerations: [{key: a, operator: Exists, value: b}]}",
            "takes no value",
        ),
        (
            "{script: x, nodeLabelSelector: {}, tolerations: [{key: a, tolerationSeconds: 1}]}",
            "NoExecute only",
        ),
        (
            "{script: x, nodeLabelSelector: {}, unschedulableNodePolicy: Skip, tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]}",
            "set unschedulableNodePolicy: Run",
        ),
    ] {
        assert_refused(yaml, word);
    }
}

fn assert_refused(yaml: &str, word: &str) {
    let refusal = validate(&spec(yaml), &Sources::default()).expect_err(yaml);
    assert_eq!(refusal.reason, ConditionReason::SpecInvalid);
    assert!(refusal.message.contains(word), "{yaml}: {}", refusal.message);
}

#[test]
fn each_contradiction_of_what_is_tried_again_is_named() {
    for (yaml, word) in [
        ("{script: x, nodeNames: [a], backoffLimit: 101}", "backoffLimit is 101"),
        (
            "{script: x, nodeNames: [a], backoffLimit: 1, repeat: {periodSeconds: 1, count: 2}}",
            "backoffLimit cannot be combined with repeat",
        ),
        ("{script: x, nodeNames: [a], exitCodes: {retry: [1]}}", "exitCodes.retry needs backoffLimit"),
        (
            "{script: x, nodeNames: [a], exitCodes: {skipped: [1]}, repeat: {periodSeconds: 1, count: 2}}",
            "exitCodes.skipped cannot be combined with repeat",
        ),
        ("{script: x, nodeNames: [a], exitCodes: {success: [0]}}", "exitCodes.success has [0]"),
        (
            "{script: x, nodeNames: [a], exitCodes: {success: [3], skipped: [3]}}",
            "exit code 3 stands in exitCodes.success and in exitCodes.skipped",
        ),
        (
            "{script: x, nodeNames: [a], backoffLimit: 1, exitCodes: {skipped: [4], retry: [4]}}",
            "exit code 4 stands in exitCodes.skipped and in exitCodes.retry",
        ),
        ("{script: x, nodeNames: [a], activeDeadlineSeconds: 0}", "activeDeadlineSeconds is 0"),
        (
            "{script: x, nodeNames: [a], activeDeadlineSeconds: 1, repeat: {periodSeconds: 1}}",
            "activeDeadlineSeconds cannot be combined with an endless repeat",
        ),
        (
            "{script: x, nodeNames: [a], interruptionPolicy: Report, repeat: {periodSeconds: 1}}",
            "interruptionPolicy: Report cannot be combined with an endless repeat",
        ),
        (
            "{script: x, nodeNames: [a], rerun: {at: '2026-01-01T00:00:00Z', nodeNames: []}}",
            "rerun.nodeNames is empty",
        ),
        (
            "{script: x, nodeNames: [a], ttlSecondsAfterFinished: 31536001}",
            "ttlSecondsAfterFinished is 31536001",
        ),
        (
            "{script: x, nodeNames: [a], ttlSecondsAfterFinished: 1, repeat: {periodSeconds: 1}}",
            "ttlSecondsAfterFinished cannot be combined with an endless repeat",
        ),
    ] {
        assert_refused(yaml, word);
    }
}

#[test]
fn a_repetition_goes_on_after_an_interruption_unless_told_otherwise() {
    for (more, policy) in [
        ("repeat: {periodSeconds: 1}", InterruptionPolicy::Retry),
        ("repeat: {periodSeconds: 1, count: 3}", InterruptionPolicy::Retry),
        ("repeat: {periodSeconds: 1, count: 3}, interruptionPolicy: Report", InterruptionPolicy::Report),
        ("interruptionPolicy: Retry", InterruptionPolicy::Retry),
    ] {
        let run =
            validate(&spec(&format!("{{script: x, nodeNames: [a], {more}}}")), &Sources::default()).unwrap();
        assert_eq!(run.attempts.interruption, policy, "{more}");
    }
}

#[test]
fn what_a_run_is_pinned_to_is_believed_only_whole() {
    let run = validate(&spec("{script: x, nodeNames: [a], args: [b]}"), &Sources::default()).unwrap();
    let json = run.pinned.canonical_json();
    let read = Pinned::read(&json, "x", None, &run.spec_hash).unwrap();
    let other = validate(
        &spec("{script: y, nodeNames: [a], parallelism: 1, executionDeadlineSeconds: 9}"),
        &Sources::default(),
    )
    .unwrap();
    let held = other.pinned_to(&read);
    assert_eq!((&held.spec_hash, &held.inputs, &held.pinned), (&run.spec_hash, &run.inputs, &run.pinned));
    assert_eq!(held.parallelism, other.parallelism);
    for (json, script) in
        [(json.as_str(), "y"), ("{", "x"), ("{}", "x"), (&other.pinned.canonical_json(), "y")]
    {
        assert_eq!(Pinned::read(json, script, None, &run.spec_hash), None, "{json} {script}");
    }
}

#[test]
fn script_of_64_kib_passes_and_one_byte_more_does_not() {
    let mut spec: ScriptRunnerSpec = serde_saphyr::from_str("{script: x, nodeNames: [a]}").unwrap();
    spec.script = Some("x".repeat(65_536));
    assert!(validate(&spec, &Sources::default()).is_ok());
    spec.script = Some("é".repeat(32_769));
    assert!(validate(&spec, &Sources::default()).unwrap_err().message.contains("65538 bytes"));
}

#[test]
fn counts_of_nodes_round_percentages_up() {
    assert_eq!(NodeCount::Percent(10).nodes(11), 2);
    assert_eq!(NodeCount::Percent(1).nodes(3), 1);
    assert_eq!(NodeCount::Percent(100).nodes(7), 7);
    assert_eq!(NodeCount::Percent(50).nodes(0), 1);
    assert_eq!(NodeCount::Nodes(3).nodes(100), 3);
}
