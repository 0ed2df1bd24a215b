//! The deadline of one execution.

use crate::pod::{Pod, is_alive};

#[test]
fn hanging_script_is_terminated_and_its_output_kept() {
    let script = "import time\nprint('begun')\ntime.sleep(1000)";
    let ended = Pod::new(script).flag("--execution-deadline-seconds", 1).run();
    ended.assert_end("Failed", "ExecutionDeadlineExceeded", 1);
    let execution = ended.only();
    assert_eq!((execution.signal, execution.exit_code), (Some(15), None));
    assert_eq!(
        (execution.reason.as_str(), execution.stdout.as_str()),
        ("ExecutionDeadlineExceeded", "begun\n")
    );
    assert!(execution.duration_millis.unwrap() >= 1000);
    assert_eq!(ended.record.failures, 1);
}

#[test]
fn script_that_ignores_sigterm_is_killed_with_its_children() {
    let script = "trap 'echo ignored' TERM\nsh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 0.1; done' &\n\
                  while :; do wait; done";
    let pod = Pod::new(script).shell().flag("--execution-deadline-seconds", 1).flag("--grace-seconds", 1);
    let ended = pod.run();
    ended.assert_end("Failed", "ExecutionDeadlineExceeded", 1);
    assert_eq!((ended.only().signal, ended.only().stdout.as_str()), (Some(9), "ignored\n"));
    assert!(!is_alive(&ended.file("pid")));
}

#[test]
fn script_that_tidies_up_in_time_still_missed_its_deadline() {
    let script = "trap 'echo tidy; exit 0' TERM\nwhile :; do sleep 0.05; done";
    let ended = Pod::new(script).shell().flag("--execution-deadline-seconds", 1).run();
    ended.assert_end("Failed", "ExecutionDeadlineExceeded", 1);
    assert_eq!((ended.only().exit_code, ended.only().stdout.as_str()), (Some(0), "tidy\n"));
}

#[test]
fn stopped_script_is_ended_too() {
    let ended = Pod::new("kill -STOP $$").shell().flag("--execution-deadline-seconds", 1).run();
    ended.assert_end("Failed", "ExecutionDeadlineExceeded", 1);
    assert_eq!(ended.only().signal, Some(15));
}
