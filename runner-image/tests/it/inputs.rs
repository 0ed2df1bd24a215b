//! Only the pinned bytes are run, and only once.

use std::fs;

use scriptrunner_api::digest::sha256_hex;
use serde_json::json;

use crate::pod::{Ended, Pod};

#[track_caller]
fn assert_tampered(pod: Pod) {
    let ended = pod.run();
    ended.assert_end("Failed", "InputTampered", 4);
    assert_nothing_executed(&ended);
}

#[track_caller]
fn assert_nothing_executed(ended: &Ended) {
    assert_eq!((ended.record.executions, ended.history.len()), (0, 0), "{ended:?}");
    assert!(!ended.dir.path().join("work/ran").exists());
}

const SCRIPT: &str = "open('ran', 'w')";

#[test]
fn changed_script_is_not_run() {
    let pod = Pod::new(SCRIPT);
    fs::write(pod.path("input/script"), "open('ran', 'w') ").unwrap();
    assert_tampered(pod);
}

#[test]
fn changed_spec_is_not_run() {
    assert_tampered(Pod::new(SCRIPT).flag("--spec-sha256", "0".repeat(64)));
}

#[test]
fn script_of_another_spec_is_not_run() {
    assert_tampered(Pod::new(SCRIPT).spec("scriptSha256", json!(sha256_hex(b"another"))));
}

#[test]
fn missing_script_is_not_replaced_by_anything() {
    let pod = Pod::new(SCRIPT);
    fs::remove_file(pod.path("input/script")).unwrap();
    assert_tampered(pod);
}

#[test]
fn certificates_that_are_missing_or_changed_are_not_trusted() {
    let pod = || Pod::new(SCRIPT).spec("trustedCASHA256", json!(sha256_hex(b"certificates")));
    assert_tampered(pod());
    let changed = pod();
    fs::write(changed.path("input/trusted-ca.pem"), "certificates ").unwrap();
    assert_tampered(changed);
    let whole = pod();
    fs::write(whole.path("input/trusted-ca.pem"), "certificates").unwrap();
    whole.run().assert_end("Succeeded", "", 0);
}

#[test]
fn script_that_changes_after_the_check_is_run_as_it_was() {
    let script = "import sys\nopen('../input/script', 'w').write('exit(9)')\nprint('first')\n";
    let ended = Pod::new(script).repeat("2", json!({"count": 2, "periodSeconds": 1})).run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.history[1].stdout, "first\n");
}

#[test]
fn spec_that_cannot_be_understood_is_the_runners_failure() {
    let ended = Pod::new(SCRIPT).spec("repeat", json!({"periodSeconds": "often"})).run();
    ended.assert_end("Failed", "RunnerFailed", 1);
    assert_nothing_executed(&ended);
}

#[test]
fn second_start_executes_nothing() {
    let pod = Pod::new("open('ran', 'a').write('x')");
    assert_eq!(pod.command().status().unwrap().code(), Some(0));
    let first = fs::read_to_string(pod.path("termination-log")).unwrap();
    fs::remove_file(pod.path("termination-log")).unwrap();
    let ended = pod.run();
    ended.assert_end("Unknown", "Restarted", 5);
    assert_eq!((ended.record.executions, ended.file("ran").as_str()), (0, "x"));
    assert!(!first.contains(&ended.record.boot), "both starts have the same boot");
}
