//! Repetition in one pod: pacing, bounds, early ends, hand-over, and what is known of a runner that is killed.

use std::{fs, time::Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::pod::{Ended, Pod};

fn starts(ended: &Ended) -> Vec<f64> {
    ended.file("starts").lines().map(|line| line.parse().unwrap()).collect()
}

const NOTE_START: &str = "import os, sys, time\nopen('starts', 'a').write(f'{time.monotonic()}\\n')\nserial = int(os.environ['SCRIPTRUNNER_SERIAL'])\n";

#[test]
fn executions_start_a_period_apart_and_the_newest_are_kept() {
    let pod = Pod::new(format!("{NOTE_START}print(serial)\n"))
        .repeat("4", json!({"count": 9, "periodSeconds": 1}))
        .flag("--history-limit", 2)
        .flag("--first-serial", 6);
    let ended = pod.run();
    ended.assert_end("Succeeded", "", 0);
    let starts = starts(&ended);
    assert_eq!(starts.len(), 4);
    // Start-up times of the interpreter vary, their sum does not grow.
    assert!(starts[3] - starts[0] > 2.5, "{starts:?}");
    let kept: Vec<_> =
        ended.history.iter().map(|execution| (execution.serial, execution.stdout.as_str())).collect();
    assert_eq!(kept, [(8, "8\n"), (9, "9\n")]);
    assert_eq!((ended.record.executions, ended.record.serial), (4, 9));
}

#[test]
fn overdue_executions_never_overlap_and_never_burst() {
    let script =
        format!("{NOTE_START}os.mkdir('lock')\ntime.sleep(2.2 if serial == 1 else 0)\nos.rmdir('lock')\n");
    let ended = Pod::new(script).repeat("3", json!({"count": 3, "periodSeconds": 1})).run();
    ended.assert_end("Succeeded", "", 0);
    let starts = starts(&ended);
    assert!(starts[1] - starts[0] >= 2.2, "{starts:?}");
    assert!(starts[2] - starts[1] > 0.7, "{starts:?}");
}

#[test]
fn initial_delay_is_for_the_first_execution_of_the_run() {
    let repeat = json!({"count": 1, "periodSeconds": 100, "initialDelaySeconds": 2});
    let begun = Instant::now();
    Pod::new("print(1)").repeat("1", repeat.clone()).run().assert_end("Succeeded", "", 0);
    assert!(begun.elapsed().as_secs() >= 2);
    let later = Pod::new("print(1)").repeat("1", repeat).flag("--first-serial", 2).start();
    later.wait_for_snapshot("the execution", |snapshot| snapshot.record.serial == 2);
    later.wait().assert_end("Succeeded", "", 0);
}

#[test]
fn period_is_kept_over_pods() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = Instant::now();
    let pod = Pod::new("print(1)")
        .repeat("1", json!({"periodSeconds": 100}))
        .flag("--first-serial", 2)
        .flag("--last-start", now - 97);
    pod.run().assert_end("Succeeded", "", 0);
    assert!(begun.elapsed().as_millis() >= 2000, "{:?}", begun.elapsed());
}

#[test]
fn first_failure_or_success_ends_the_repetition_if_told_so() {
    for (stop_on, code, executions, state) in [
        ("Failure", "serial == 2", 2, "Failed"),
        ("Success", "serial != 2", 2, "Succeeded"),
        ("Never", "serial == 2", 3, "Failed"),
    ] {
        let pod = Pod::new(format!("{NOTE_START}sys.exit(3 if {code} else 0)"))
            .repeat("3", json!({"count": 3, "periodSeconds": 1, "stopOn": stop_on}));
        let ended = pod.run();
        assert_eq!((ended.record.executions, ended.record.state.as_str()), (executions, state), "{stop_on}");
        assert_eq!(ended.code, Some(i32::from(state == "Failed")), "{stop_on}");
        assert_eq!(ended.record.failures, 1, "{stop_on}");
    }
}

#[test]
fn repetition_goes_on_after_a_skip_and_the_newest_says_what_it_is() {
    // Exit codes by serial.
    for (stop_on, codes, executions, state) in [
        ("Never", "[4, 0]", 2, "Succeeded"),
        ("Never", "[2, 4]", 2, "Skipped"),
        ("Never", "[5, 4]", 2, "Failed"),
        ("Failure", "[4, 5, 0]", 2, "Failed"),
        ("Success", "[4, 2, 0]", 2, "Succeeded"),
    ] {
        let pod = Pod::new(format!("{NOTE_START}sys.exit({codes}[serial - 1])"))
            .repeat("endless", json!({"periodSeconds": 1, "stopOn": stop_on}));
        let pod = if stop_on == "Never" { pod.flag("--remaining", 2) } else { pod };
        let ended = pod.flag("--success-codes", 2).flag("--skipped-codes", 4).run();
        let found = (ended.record.executions, ended.record.state.as_str());
        assert_eq!(found, (executions, state), "{stop_on} {codes}");
        assert_eq!(ended.code, Some(i32::from(state == "Failed")), "{stop_on} {codes}");
        assert_eq!(ended.record.failures, u64::from(state == "Failed"), "{stop_on} {codes}");
    }
}

#[test]
fn endless_repetition_is_handed_over_between_executions() {
    let script = format!("{NOTE_START}time.sleep(1.5)\nprint('whole')\nsys.exit(4)");
    let pod = Pod::new(script)
        .repeat("endless", json!({"periodSeconds": 1}))
        .flag("--first-serial", 5)
        .flag("--handover-seconds", 2);
    let ended = pod.run();
    ended.assert_end("Running", "NoSession", 0);
    assert!(ended.record.handed_over);
    let last = ended.history.last().unwrap();
    assert_eq!((last.stdout.as_str(), last.exit_code), ("whole\n", Some(4)));
    assert_eq!(ended.record.executions, starts(&ended).len() as u64);
    assert_eq!(ended.record.serial, 4 + ended.record.executions);
    assert_eq!(ended.record.failures, ended.record.executions);
}

#[test]
fn hand_over_does_not_wait_for_the_next_start() {
    let pod = Pod::new("print(1)")
        .repeat("endless", json!({"periodSeconds": 100_000}))
        .flag("--handover-seconds", 1);
    let ended = pod.run();
    ended.assert_end("Running", "NoSession", 0);
    assert_eq!(ended.record.executions, 1);
}

#[test]
fn counted_repetition_is_not_handed_over() {
    let pod = Pod::new("print(1)")
        .repeat("2", json!({"count": 2, "periodSeconds": 1}))
        .flag("--handover-seconds", 0);
    let ended = pod.run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.record.executions, 2);
}

#[test]
fn message_of_a_killed_runner_tells_that_an_execution_began() {
    let script = format!(
        "{NOTE_START}print(serial)\nif serial == 2:\n    open('second', 'w')\n    time.sleep(1000)\n"
    );
    let running = Pod::new(script).repeat("endless", json!({"periodSeconds": 1})).start();
    running.wait_for_file("second");
    let pid = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid().as_raw_pid()))
        .unwrap_or_default();
    running.signal(Signal::KILL);
    let ended = running.wait();
    // Without a pod nobody ends the script in the runner's place.
    if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    assert_eq!(
        (ended.record.state.as_str(), ended.record.executions, ended.record.serial),
        ("Running", 2, 2)
    );
    assert_eq!((ended.history.len(), ended.record.exit_code), (1, None));
}
