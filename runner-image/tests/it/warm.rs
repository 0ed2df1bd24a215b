//! Runs that come over the session to a runner that has finished its own.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use scriptrunner_api::{
    digest::sha256_hex,
    session::{RunOrder, ToRunner},
};
use serde_json::json;

use crate::{
    door::{Door, Visit},
    pod::{Pod, Running},
};

fn order(run: u64, script: &str) -> RunOrder {
    RunOrder {
        run,
        attempt: 1,
        first_serial: 1,
        remaining: 1,
        spec: json!({"scriptSha256": sha256_hex(script.as_bytes()), "interpreter": ["sh"], "args": ["new"]})
            .to_string(),
        script: script.to_owned(),
        history_limit: 3,
        stdout_limit_bytes: 1000,
        stderr_limit_bytes: 1000,
        grace_seconds: 5,
        execution_deadline_seconds: None,
    }
}

fn say(visit: &Visit, order: RunOrder) {
    visit.say(&ToRunner::Run(Box::new(order)));
}

/// A runner that has done its own run, 7, and waits for an order.
fn idle(door: &Door, script: &str, idle_seconds: u32) -> (Running, Visit) {
    let pod = Pod::new(script).shell().session(door.address, &door.authority);
    let running = pod.flag("--idle-seconds", idle_seconds).start();
    let visit = door.visit();
    let last = visit.last_snapshot();
    assert_eq!((last.record.run, last.record.attempt), (7, 2));
    visit.ack(&last.record);
    (running, visit)
}

#[test]
fn order_runs_in_the_same_process_with_its_own_script_and_counts() {
    let door = Door::open();
    let (mut running, visit) = idle(&door, "echo first; exit 1", 1000);
    let script = "echo $1 $SCRIPTRUNNER_RUN $SCRIPTRUNNER_ATTEMPT $SCRIPTRUNNER_SERIAL; sleep 0.1";
    let repeated = RunOrder { first_serial: 4, remaining: 2, ..order(9, script) };
    say(&visit, repeated.clone());
    let last = visit.last_snapshot();
    assert_eq!((last.record.state.as_str(), last.record.run, last.record.attempt), ("Succeeded", 9, 1));
    // Counted since the runner started, over all its runs.
    assert_eq!((last.record.executions, last.record.failures, last.record.serial), (3, 1, 5));
    assert_eq!(last.record.boot, visit.hello.boot);
    let outputs: Vec<&str> = last.history.iter().map(|execution| execution.stdout.as_str()).collect();
    assert_eq!(outputs, ["new 9 1 4\n", "new 9 1 5\n"]);
    visit.ack(&last.record);
    // The same again, or an older one, is no order.
    say(&visit, repeated);
    say(&visit, order(8, "exit 1"));
    visit.ping();
    assert!(running.is_running());
    say(&visit, order(10, "echo $1 third"));
    let newest = visit.last_snapshot();
    assert!(newest.record.seq > last.record.seq);
    assert_eq!((newest.record.run, newest.history[0].stdout.as_str()), (10, "new third\n"));
    visit.ack(&newest.record);
    running.signal(Signal::TERM);
    let ended = running.wait();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!((ended.record.run, ended.record.seq, ended.only().serial), (10, newest.record.seq, 1));
}

#[test]
fn skipped_runner_stays_and_its_exit_codes_hold_for_the_next_order() {
    let door = Door::open();
    let pod = Pod::new("exit 4").shell().session(door.address, &door.authority);
    let pod = pod.flag("--success-codes", "2,3").flag("--skipped-codes", 4);
    let running = pod.flag("--idle-seconds", 1000).start();
    let visit = door.visit();
    let told = |script: &str, run: u64, state: &str, reason: &str| {
        if run > 7 {
            say(&visit, order(run, script));
        }
        let last = visit.last_snapshot();
        let record = &last.record;
        assert_eq!((record.run, record.state.as_str(), record.failures), (run, state, 0));
        assert_eq!(last.history[0].reason, reason);
        visit.ack(record);
    };
    told("exit 4", 7, "Skipped", "ExitCodeSkips");
    told("exit 3", 8, "Succeeded", "ExitCodeSucceeds");
    told("exit 4", 9, "Skipped", "ExitCodeSkips");
    running.signal(Signal::TERM);
    running.wait().assert_end("Skipped", "ExitCodeSkips", 0);
}

#[test]
fn idle_runner_leaves_when_its_time_is_over() {
    let door = Door::open();
    let begun = Instant::now();
    let (running, visit) = idle(&door, "exit 1", 2);
    visit.wait_for_goodbye();
    running.wait().assert_end("Failed", "ScriptFailed", 1);
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[test]
fn idle_runner_is_stopped_with_the_code_of_its_last_run() {
    let door = Door::open();
    let (running, visit) = idle(&door, "exit 1", 1000);
    visit.say(&ToRunner::Stop { reason: "the object is gone".to_owned() });
    running.wait().assert_end("Failed", "ScriptFailed", 1);
    let (running, visit) = idle(&door, "exit 0", 1000);
    visit.say(&ToRunner::Refused { reason: "the pod is not needed".to_owned() });
    running.wait().assert_end("Succeeded", "", 0);
}

#[test]
fn runner_that_is_not_stored_or_not_done_does_not_stay() {
    let door = Door::open();
    let pod = |script: &str| {
        Pod::new(script).shell().session(door.address, &door.authority).flag("--idle-seconds", 1000)
    };
    let running = pod("exit 1").flag("--linger-seconds", 1).start();
    let visit = door.visit();
    visit.last_snapshot();
    running.wait().assert_end("Failed", "ScriptFailed", 1);
    let running = pod("echo > started; exec sleep 1000").start();
    let visit = door.visit();
    running.wait_for_file("started");
    visit.say(&ToRunner::Stop { reason: "paused".to_owned() });
    visit.ack(&visit.last_snapshot().record);
    running.wait().assert_end("Stopped", "Interrupted", 6);
}

#[test]
fn order_that_came_early_is_carried_out_after_the_run_that_was_going_on() {
    let door = Door::open();
    let pod = Pod::new("echo > started; while [ ! -e go ]; do sleep 0.01; done").shell();
    let running = pod.session(door.address, &door.authority).flag("--idle-seconds", 1000).start();
    let visit = door.visit();
    running.wait_for_file("started");
    say(&visit, order(8, "echo early"));
    visit.ping();
    std::fs::write(running.path("work/go"), "").unwrap();
    let first = visit.last_snapshot();
    assert_eq!(first.record.run, 7);
    visit.ack(&first.record);
    let second = visit.last_snapshot();
    assert_eq!((second.record.run, second.history[0].stdout.as_str()), (8, "early\n"));
    visit.ack(&second.record);
    running.signal(Signal::INT);
    running.wait().assert_end("Succeeded", "", 0);
}

#[test]
fn order_that_cannot_be_carried_out_says_why() {
    let door = Door::open();
    let strange = RunOrder { spec: "{}".to_owned(), ..order(8, "echo") };
    let mut installs = order(8, "echo");
    installs.spec = json!({"scriptSha256": "x", "pip": ["six"]}).to_string();
    for (order, words) in [
        (strange, "cannot understand the spec of run 8: missing field `scriptSha256`"),
        (installs, "run 8 needs other dependencies than this pod has"),
    ] {
        let (running, visit) = idle(&door, "exit 0", 1000);
        say(&visit, order);
        let last = visit.last_snapshot();
        assert_eq!((last.record.run, last.record.reason.as_str()), (8, "RunnerFailed"));
        assert!(last.record.message.starts_with(words), "{}", last.record.message);
        visit.ack(&last.record);
        running.wait().assert_end("Failed", "RunnerFailed", 1);
    }
}

#[test]
fn lost_session_is_found_again_while_idle() {
    let door = Door::open();
    let (running, visit) = idle(&door, "echo first", 1000);
    visit.drop_connection();
    let visit = door.visit();
    // Where it stands, without what is stored.
    let settled = visit.snapshot();
    assert_eq!((settled.record.state.as_str(), settled.history.len()), ("Succeeded", 0));
    say(&visit, order(8, "echo second"));
    let last =
        visit.snapshot_where(|snapshot| snapshot.record.run == 8 && snapshot.record.state != "Running");
    visit.ack(&last.record);
    running.signal(Signal::TERM);
    running.wait().assert_end("Succeeded", "", 0);
}
