//! The whole runner with a session: what the operator hears of it, and how long it stays.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use rustls::version::TLS13;
use scriptrunner_api::session::ToRunner;
use serde_json::json;

use crate::{
    door::{Answer, Authority, Door, NAME},
    pod::{Pod, is_alive},
};

fn pod(door: &Door, script: &str) -> Pod {
    Pod::new(script).shell().session(door.address, &door.authority)
}

/// Answers that do not fit into a termination message.
const LARGE: &str = "i=0; while [ $i -lt 600 ]; do echo 0123456789; i=$((i+1)); done";

#[test]
fn acknowledgement_of_the_last_snapshot_lets_the_runner_go() {
    let door = Door::open();
    let mut running =
        pod(&door, "echo begun > begun; while [ ! -e go ]; do sleep 0.01; done; echo answer").start();
    let visit = door.visit();
    assert_eq!(visit.token, "a.b.c");
    let first = visit.snapshot();
    assert_eq!((first.record.state.as_str(), first.record.run, first.history.len()), ("Running", 7, 0));
    assert_eq!(first.record.boot, visit.hello.boot);
    running.wait_for_file("begun");
    fs::write(running.path("work/go"), "").unwrap();
    let last = visit.last_snapshot();
    assert_eq!((last.record.state.as_str(), last.history[0].stdout.as_str()), ("Succeeded", "answer\n"));
    visit.ack(&first.record);
    visit.ping();
    assert!(running.is_running());
    visit.ack(&last.record);
    visit.wait_for_goodbye();
    let ended = running.wait();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!((ended.record.seq, &ended.record.boot), (last.record.seq, &last.record.boot));
    assert_eq!(ended.history[0].stdout, "answer\n");
}

#[test]
fn runner_that_is_not_acknowledged_leaves_after_its_time() {
    let door = Door::open();
    let running = pod(&door, "exit 3").flag("--linger-seconds", 2).start();
    let visit = door.visit();
    visit.last_snapshot();
    let begun = Instant::now();
    let ended = running.wait();
    ended.assert_end("Failed", "ScriptFailed", 1);
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
}

#[test]
fn nobody_is_waited_for_who_does_not_answer_if_the_message_holds_everything() {
    let authority = Authority::new();
    let running = Pod::new("sleep 0.5; echo answer").shell().session(Door::nowhere(), &authority).start();
    running.wait_for_log("no session with the operator: cannot connect");
    running.wait().assert_end("Succeeded", "", 0);
}

#[test]
fn first_connection_is_waited_for_a_moment() {
    let door = Door::open();
    door.answer([Answer::Stall]);
    let begun = Instant::now();
    pod(&door, "echo answer").start().wait().assert_end("Succeeded", "", 0);
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn answer_that_the_message_cannot_hold_waits_for_an_operator() {
    let authority = Authority::new();
    let address = Door::nowhere();
    let running =
        Pod::new(LARGE).shell().flag("--stdout-limit-bytes", 65_536).session(address, &authority).start();
    running.wait_for_log("1 executions, 0 failed");
    running.wait_for_log("no session with the operator");
    let tls = authority.server(NAME, &TLS13);
    let door = Door::open_with(address, authority, tls);
    let visit = door.visit();
    let last = visit.last_snapshot();
    assert_eq!(last.history[0].stdout, "0123456789\n".repeat(600));
    visit.ack(&last.record);
    let ended = running.wait();
    ended.assert_end("Succeeded", "", 0);
    assert!(ended.only().stdout.len() < 4096);
}

#[test]
fn large_answers_come_whole_in_parts() {
    let door = Door::open();
    let script = r#"i=0; while [ $i -lt 3000 ]; do echo "$SCRIPTRUNNER_SERIAL 0123456789"; i=$((i+1)); done"#;
    let running = pod(&door, script)
        .repeat("4", json!({"count": 4, "periodSeconds": 1}))
        .flag("--stdout-limit-bytes", 65_536)
        .start();
    let visit = door.visit();
    let last = visit.last_snapshot();
    assert_eq!(last.record.executions, 4);
    for (serial, execution) in (1..).zip(&last.history) {
        assert!(execution.stdout == format!("{serial} 0123456789\n").repeat(3000), "{serial}");
    }
    assert_eq!(last.history.len(), 4);
    visit.ack(&last.record);
    running.wait().assert_end("Succeeded", "", 0);
}

#[test]
fn refusal_ends_the_wait_at_once() {
    let door = Door::open();
    let refused = ToRunner::Refused { reason: "its outcome is stored".to_owned() };
    door.answer([Answer::Refuse(refused.clone())]);
    let running = pod(&door, LARGE).flag("--stdout-limit-bytes", 65_536).start();
    running.wait().assert_end("Succeeded", "", 0);
    assert_eq!(door.knocks().len(), 1);
    // Also in the middle of the wait.
    let running = pod(&door, LARGE).flag("--stdout-limit-bytes", 65_536).start();
    let visit = door.visit();
    visit.last_snapshot();
    visit.say(&refused);
    let ended = running.wait();
    ended.assert_end("Succeeded", "", 0);
    assert!(String::from_utf8_lossy(&ended.stderr).contains("refuses a session: its outcome is stored"));
}

#[test]
fn operator_can_stop_the_script() {
    let door = Door::open();
    let running = pod(&door, "echo begun; sleep 1000 & echo $! > pid; echo > started; wait").start();
    let visit = door.visit();
    running.wait_for_file("started");
    visit.say(&ToRunner::Stop { reason: "the object is gone".to_owned() });
    let last = visit.last_snapshot();
    assert_eq!((last.record.state.as_str(), last.record.reason.as_str()), ("Stopped", "Interrupted"));
    visit.ack(&last.record);
    let ended = running.wait();
    ended.assert_end("Stopped", "Interrupted", 6);
    assert_eq!((ended.only().signal, ended.only().stdout.as_str()), (Some(15), "begun\n"));
    assert!(!is_alive(&ended.file("pid")));
}

#[test]
fn operator_can_stop_a_repetition_that_waits() {
    let door = Door::open();
    let running = pod(&door, "echo whole").repeat("endless", json!({"periodSeconds": 1000})).start();
    let visit = door.visit();
    visit.snapshot_where(|snapshot| snapshot.history.len() == 1);
    visit.say(&ToRunner::Stop { reason: "the object is gone".to_owned() });
    visit.ack(&visit.last_snapshot().record);
    running.wait().assert_end("Stopped", "Interrupted", 6);
}

#[test]
fn operator_can_end_a_repetition_after_its_execution() {
    for (remaining, repeat) in [
        ("endless", json!({"periodSeconds": 1})),
        ("9", json!({"count": 9, "periodSeconds": 1})),
        // It waits for its next execution.
        ("endless", json!({"periodSeconds": 1000})),
    ] {
        let door = Door::open();
        let script = "echo > started; sleep 2; echo whole";
        let running = pod(&door, script).repeat(remaining, repeat.clone()).start();
        let visit = door.visit();
        if repeat["periodSeconds"] == 1000 {
            visit.snapshot_where(|snapshot| snapshot.history.len() == 1);
        } else {
            running.wait_for_file("started");
        }
        visit.say(&ToRunner::HandOver { reason: "paused".to_owned() });
        let last = visit.last_snapshot();
        assert!(last.record.handed_over && last.record.executions == 1, "{last:?}");
        visit.ack(&last.record);
        let ended = running.wait();
        ended.assert_end("Running", "Paused", 0);
        assert_eq!((ended.only().exit_code, ended.only().stdout.as_str()), (Some(0), "whole\n"));
    }
}

#[test]
fn sigterm_leaves_two_seconds_for_the_acknowledgement() {
    let door = Door::open();
    let running = pod(&door, "echo answer").start();
    let visit = door.visit();
    visit.last_snapshot();
    let begun = Instant::now();
    running.signal(Signal::TERM);
    running.wait().assert_end("Succeeded", "", 0);
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    // It may still come.
    let running = pod(&door, "echo > started; exec sleep 1000").start();
    let visit = door.visit();
    running.wait_for_file("started");
    running.signal(Signal::TERM);
    visit.ack(&visit.last_snapshot().record);
    running.wait().assert_end("Stopped", "Interrupted", 6);
}

#[test]
fn acknowledged_repetition_is_not_handed_over() {
    let door = Door::open();
    let running = pod(&door, "echo whole")
        .repeat("endless", json!({"periodSeconds": 1}))
        .flag("--handover-seconds", 3)
        .start();
    let visit = door.visit();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(7) {
        let snapshot = visit.snapshot();
        assert_eq!(snapshot.record.state, "Running");
        assert!(!snapshot.record.handed_over);
        visit.ack(&snapshot.record);
    }
    // From here on nothing is acknowledged.
    let quiet = Instant::now();
    let last = visit.last_snapshot();
    assert!(quiet.elapsed() >= Duration::from_secs(2), "{:?}", quiet.elapsed());
    assert!(last.record.handed_over);
    visit.ack(&last.record);
    let ended = running.wait();
    ended.assert_end("Running", "NoSession", 0);
    assert!(ended.record.executions >= 8, "{:?}", ended.record);
    let message = &ended.record.message;
    assert!(message.starts_with("no session with the operator for "), "{message}");
    assert!(message.ends_with(" seconds; the repetition goes on in the next pod"), "{message}");
}

#[test]
fn repetition_without_news_is_not_handed_over() {
    let door = Door::open();
    let mut running = pod(&door, "echo whole")
        .repeat("endless", json!({"periodSeconds": 1000}))
        .flag("--handover-seconds", 2)
        .start();
    let visit = door.visit();
    let snapshot = visit.snapshot_where(|snapshot| snapshot.history.len() == 1);
    visit.ack(&snapshot.record);
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        visit.ping();
    }
    assert!(running.is_running());
    running.signal(Signal::TERM);
    visit.ack(&visit.last_snapshot().record);
    running.wait().assert_end("Stopped", "Interrupted", 6);
}

#[test]
fn short_execution_costs_one_frame() {
    let door = Door::open();
    let running =
        pod(&door, "echo $SCRIPTRUNNER_SERIAL").repeat("4", json!({"count": 4, "periodSeconds": 2})).start();
    let visit = door.visit();
    let mut snapshots = vec![visit.snapshot()];
    while snapshots.last().is_some_and(|newest| newest.record.state == "Running") {
        let newest = snapshots.last().unwrap();
        visit.ack(&newest.record);
        snapshots.push(visit.snapshot());
    }
    visit.ack(&snapshots.last().unwrap().record);
    running.wait().assert_end("Succeeded", "", 0);
    let told: Vec<Vec<u64>> = snapshots
        .iter()
        .map(|snapshot| snapshot.history.iter().map(|execution| execution.serial).collect())
        .filter(|serials: &Vec<u64>| !serials.is_empty())
        .collect();
    assert_eq!(told, [[1], [2], [3], [4]]);
    // The first snapshot may have come before any ending, and one more if the machine was busy. Each beginning alone would
    // make seven.
    assert!(snapshots.len() <= 6, "{}", snapshots.len());
}

#[test]
fn half_open_connection_does_not_disturb_the_script() {
    let door = Door::open();
    let running = pod(&door, "echo whole")
        .repeat("5", json!({"count": 5, "periodSeconds": 1}))
        .flag("--linger-seconds", 1)
        .start();
    let visit = door.visit();
    visit.snapshot_where(|snapshot| snapshot.history.len() == 1);
    visit.freeze();
    let ended = running.wait();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.history.len(), 5);
}

#[test]
fn what_was_not_acknowledged_comes_again_with_a_fresh_token() {
    let door = Door::open();
    let running = pod(&door, "echo whole").repeat("endless", json!({"periodSeconds": 1})).start();
    let visit = door.visit();
    let stored = visit.snapshot_where(|snapshot| snapshot.history.len() == 1);
    visit.ack(&stored.record);
    visit.snapshot_where(|snapshot| snapshot.record.executions == 3);
    fs::write(running.path("token"), "d.e.f\n").unwrap();
    visit.drop_connection();
    let visit = door.visit();
    assert_eq!((visit.token.as_str(), &visit.hello.boot), ("d.e.f", &stored.record.boot));
    let again = visit.snapshot();
    let serials: Vec<u64> = again.history.iter().map(|execution| execution.serial).collect();
    assert_eq!(serials.first(), Some(&2), "{serials:?}");
    running.signal(Signal::TERM);
    visit.ack(&visit.last_snapshot().record);
    running.wait().assert_end("Stopped", "Interrupted", 6);
}

#[test]
fn new_authority_is_trusted_at_the_next_connection() {
    let door = Door::open();
    let running = pod(&door, "exec sleep 1000").start();
    let visit = door.visit();
    let next = Authority::new();
    visit.say(&ToRunner::NewCa { authorities: vec![next.base64.clone()] });
    visit.ping();
    door.show(next.server(NAME, &TLS13));
    visit.drop_connection();
    let visit = door.visit();
    running.signal(Signal::TERM);
    visit.ack(&visit.last_snapshot().record);
    running.wait().assert_end("Stopped", "Interrupted", 6);
}

#[test]
fn runner_goes_on_without_a_session_that_cannot_be() {
    let door = Door::open();
    for (flag, value, words) in [
        ("--session-authority", "AA==", "there is no session with the operator: authority number 1 is not a"),
        ("--session-name", "", "there is no session with the operator: \"\" is not the name of a server"),
        ("--session-address", "door:8443", "there is no session with the operator: \"door:8443\" is not an"),
        ("--token-file", "/nonexistent", "no session with the operator: cannot read the token"),
    ] {
        let ended = pod(&door, "sleep 0.2; echo answer").flag(flag, value).run();
        ended.assert_end("Succeeded", "", 0);
        let log = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(log.contains(words), "{log}");
    }
    assert!(door.has_no_visit());
}

#[test]
fn environment_of_the_script_decides_nothing() {
    let door = Door::open();
    let nowhere = format!("http://{}", Door::nowhere());
    let mut pod = pod(&door, "echo $https_proxy $SSL_CERT_FILE");
    for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        pod = pod.env(name, &nowhere);
    }
    let running = pod.env("SSL_CERT_FILE", "/nonexistent").env("SSLKEYLOGFILE", "keys").start();
    let visit = door.visit();
    let last = visit.last_snapshot();
    assert_eq!(last.history[0].stdout, format!("{nowhere} /nonexistent\n"));
    visit.ack(&last.record);
    let ended = running.wait();
    ended.assert_end("Succeeded", "", 0);
    assert!(!ended.dir.path().join("work/keys").exists());
}
