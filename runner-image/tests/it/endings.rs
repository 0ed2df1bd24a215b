//! How a script can end, and what then stands in the message.

use scriptrunner_api::digest::{StreamDigest, answer_digest};
use serde_json::json;

use crate::pod::Pod;

fn digest_of(text: &[u8]) -> StreamDigest {
    let mut digest = StreamDigest::default();
    digest.update(text);
    digest
}

#[test]
fn success_keeps_both_streams_and_passes_them_on() {
    let ended = Pod::new("import sys\nprint('out')\nprint('err', file=sys.stderr)\n").run();
    ended.assert_end("Succeeded", "", 0);
    let execution = ended.only();
    assert_eq!((execution.stdout.as_str(), execution.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!((execution.stdout_bytes, execution.stderr_bytes), (Some(4), Some(4)));
    assert_eq!(execution.key(), (7, 2, 1));
    assert_eq!((execution.exit_code, ended.record.exit_code), (Some(0), Some(0)));
    assert_eq!(execution.digest, answer_digest("0", &digest_of(b"out\n"), &digest_of(b"err\n")));
    assert!(execution.start_time.is_some() && execution.duration_millis.is_some());
    assert_eq!(ended.stdout, b"out\n");
    assert!(String::from_utf8_lossy(&ended.stderr).starts_with("err\nscriptrunner: "));
}

#[test]
fn exit_code_is_a_failure() {
    let ended = Pod::new("import sys\nprint('before')\nsys.exit(7)").run();
    ended.assert_end("Failed", "ScriptFailed", 1);
    let execution = ended.only();
    assert_eq!((execution.exit_code, execution.signal), (Some(7), None));
    assert_eq!((execution.reason.as_str(), execution.stdout.as_str()), ("ScriptFailed", "before\n"));
    assert_eq!((ended.record.executions, ended.record.failures, ended.record.serial), (1, 1, 1));
    assert_eq!(ended.record.message, "execution 1 exited with code 7");
}

#[test]
fn exit_codes_can_count_as_success_or_skip_the_node() {
    for (code, state, reason, message, ends_with) in [
        (0, "Succeeded", "", "", 0),
        (2, "Succeeded", "ExitCodeSucceeds", "", 0),
        (4, "Skipped", "ExitCodeSkips", "execution 1 exited with code 4, which exitCodes.skipped has", 0),
        (5, "Failed", "ScriptFailed", "execution 1 exited with code 5", 1),
    ] {
        let pod = Pod::new(format!("print('said')\nraise SystemExit({code})"));
        let ended = pod.flag("--success-codes", "2,3").flag("--skipped-codes", 4).run();
        // What counts as success is told by the state alone.
        ended.assert_end(state, if state == "Succeeded" { "" } else { reason }, ends_with);
        assert_eq!(ended.record.message, message);
        let execution = ended.only();
        assert_eq!((execution.exit_code, execution.reason.as_str()), (Some(code), reason));
        assert_eq!(execution.stdout, "said\n");
        assert_eq!((ended.record.executions, ended.record.failures), (1, u64::from(ends_with == 1)));
    }
}

#[test]
fn deadline_and_signal_are_failures_whatever_exit_codes_mean() {
    let deaf = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(2))\nprint('up', flush=True)\ntime.sleep(1000)\n";
    let pod = Pod::new(deaf).flag("--success-codes", "2,15");
    let ended = pod.flag("--execution-deadline-seconds", 2).run();
    ended.assert_end("Failed", "ExecutionDeadlineExceeded", 1);
    assert_eq!(ended.only().exit_code, Some(2));
    let ended = Pod::new("kill -15 $$").shell().flag("--success-codes", "2,15").run();
    ended.assert_end("Failed", "ScriptFailed", 1);
}

#[test]
fn signals_are_told_apart_from_exit_codes() {
    // 35 is a real-time signal, which has no name.
    for signal in ["9", "6", "35"] {
        let ended = Pod::new(format!("kill -{signal} $$")).shell().run();
        ended.assert_end("Failed", "ScriptFailed", 1);
        assert_eq!((ended.only().exit_code, ended.only().signal), (None, signal.parse().ok()));
        assert_eq!(ended.record.signal, signal.parse().ok());
    }
}

#[test]
fn missing_interpreter_is_named() {
    for (spec, script) in [
        (json!(["no-such-program", "-x"]), "print(1)"),
        (json!(["/no/such-program"]), "print(1)"),
        (json!(null), "#!/no/such-program -x\n"),
        (json!(["/etc/passwd"]), "print(1)"),
    ] {
        let ended = Pod::new(script).spec("interpreter", spec).run();
        ended.assert_end("Failed", "InterpreterNotStarted", 1);
        let execution = ended.only();
        assert_eq!((execution.exit_code, execution.signal), (None, None));
        assert_eq!(execution.reason, "InterpreterNotStarted");
        assert!(execution.stderr.contains("cannot start interpreter"), "{execution:?}");
        assert!(ended.record.message.contains("did not start"), "{ended:?}");
    }
}

#[test]
fn shebang_chooses_the_interpreter_and_gives_it_one_argument() {
    let script =
        "#! /usr/bin/env -S python3 -u -W ignore\r\nimport sys\r\nprint(sys.warnoptions, sys.argv[1:])\r\n";
    let ended = Pod::new(script).spec("args", json!(["a b"])).run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout, "['ignore'] ['a b']\n");
}

#[test]
fn explicit_interpreter_wins_over_the_shebang() {
    let ended = Pod::new("#!/no/such-program\necho $0 is sh").shell().run();
    assert!(ended.only().stdout.ends_with("/script is sh\n"), "{ended:?}");
}

#[test]
fn wrong_usage_is_told_apart() {
    let ended = Pod::new("print(1)").flag("--protocol", 2).run();
    ended.assert_end("Failed", "RunnerFailed", 2);
    assert_eq!(ended.record.executions, 0);
    let output = Pod::new("print(1)").flag("--remaining", "0").command().status().unwrap();
    assert_eq!(output.code(), Some(2));
}

#[test]
fn unwritable_state_is_the_runners_failure() {
    let pod = Pod::new("print(1)");
    let ended = pod.flag("--state-dir", "/proc/nowhere").run();
    ended.assert_end("Failed", "RunnerFailed", 1);
    assert!(ended.record.message.contains("must be writable"), "{ended:?}");
}

#[test]
fn unwritable_message_does_not_keep_the_script_from_running() {
    let pod = Pod::new("open('ran', 'w')").flag("--termination-log", "/proc/nowhere");
    assert_eq!(pod.command().status().unwrap().code(), Some(0));
    assert!(pod.path("work/ran").exists());
}
