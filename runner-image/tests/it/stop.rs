//! SIGTERM in every phase.

use rustix::process::Signal;
use serde_json::json;

use crate::pod::{Pod, is_alive};

#[test]
fn running_script_is_interrupted_and_its_output_kept() {
    for signal in [Signal::TERM, Signal::INT] {
        let script = "echo begun; sleep 1000 & echo $! > pid; echo > started; wait";
        let running = Pod::new(script).shell().start();
        running.wait_for_file("started");
        running.signal(signal);
        let ended = running.wait();
        ended.assert_end("Stopped", "Interrupted", 6);
        let execution = ended.only();
        assert_eq!((execution.signal, execution.reason.as_str()), (Some(15), "Interrupted"));
        assert_eq!(execution.stdout, "begun\n");
        assert!(!is_alive(&ended.file("pid")));
    }
}

#[test]
fn script_that_ignores_the_stop_is_killed_after_the_grace_period() {
    let script = "trap '' TERM; echo > started; while :; do sleep 0.1; done";
    let running = Pod::new(script).shell().flag("--grace-seconds", 1).start();
    running.wait_for_file("started");
    running.signal(Signal::TERM);
    running.signal(Signal::TERM);
    let ended = running.wait();
    ended.assert_end("Stopped", "Interrupted", 6);
    assert_eq!(ended.only().signal, Some(9));
}

#[test]
fn stop_before_the_first_execution_executes_nothing() {
    let repeat = json!({"count": 3, "periodSeconds": 1, "initialDelaySeconds": 1000});
    let running = Pod::new("open('ran', 'w')").repeat("3", repeat).start();
    running.wait_for_snapshot("the first message", |snapshot| snapshot.record.seq == 1);
    running.signal(Signal::TERM);
    let ended = running.wait();
    ended.assert_end("Stopped", "Interrupted", 6);
    assert_eq!((ended.record.executions, ended.history.len()), (0, 0));
}

#[test]
fn stop_between_executions_keeps_the_whole_ones() {
    for remaining in ["5", "endless"] {
        let running = Pod::new("print('whole')").repeat(remaining, json!({"periodSeconds": 1000})).start();
        running.wait_for_snapshot("the first result", |snapshot| snapshot.history.len() == 1);
        running.signal(Signal::TERM);
        let ended = running.wait();
        ended.assert_end("Stopped", "Interrupted", 6);
        assert_eq!((ended.record.executions, ended.record.failures), (1, 0));
        assert!(ended.only().succeeded());
    }
}

#[test]
fn installer_is_stopped() {
    let pod = Pod::new("open('ran', 'w')").spec("pip", json!(["anything"])).env("WORK", "x");
    let uv = format!("#!/bin/sh\necho $$ > {}\nexec sleep 1000\n", pod.path("work/started").display());
    crate::install::write_program(&pod.path("bin/uv"), &uv);
    let running = pod.start();
    running.wait_for_file("started");
    running.signal(Signal::TERM);
    let ended = running.wait();
    ended.assert_end("Stopped", "Interrupted", 6);
    assert_eq!(ended.record.executions, 0);
    assert!(!is_alive(&ended.file("started")));
    assert!(!ended.dir.path().join("work/ran").exists());
}
