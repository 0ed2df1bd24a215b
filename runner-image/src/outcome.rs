//! What one execution was: ending, cause and captured streams become an entry of the history. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use scriptrunner_api::{
    digest::{StreamDigest, answer_digest},
    reason::NodeReason,
    text::{head, make_harmless},
    v1alpha1::Execution,
};

use serde_json::Value;

use crate::{
    args::ExitCodes,
    process::{CutBy, Ending, Finished},
    result_file,
};

/// Longest text about an interpreter that could not be started, in bytes.
const MAX_START_ERROR_BYTES: usize = 1024;

/// Which execution it was and when it began.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) run: u64,
    pub(crate) attempt: u32,
    pub(crate) serial: u64,
    pub(crate) start_time: Time,
}

/// The entry of an execution that came to an end, whatever its end.
pub(crate) fn of_finished(begun: Begun, finished: Finished, exit_codes: &ExitCodes) -> Execution {
    let Finished { ending, cut_by, duration, stdout, stderr } = finished;
    let (exit_code, signal, ending) = match ending {
        Ending::Code(code) => (Some(code), None, code.to_string()),
        Ending::Signal(signal) => (None, Some(signal), format!("signal {signal}")),
    };
    let reason = match (cut_by, exit_code) {
        (Some(CutBy::Deadline), _) => Some(NodeReason::ExecutionDeadlineExceeded),
        (Some(CutBy::Stop), _) => Some(NodeReason::Interrupted),
        (None, Some(code)) => of_exit_code(code, exit_codes),
        (None, None) => Some(NodeReason::ScriptFailed),
    };
    Execution {
        duration_millis: Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        exit_code,
        signal,
        reason: reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        digest: answer_digest(&ending, &stdout.whole, &stderr.whole),
        stdout_bytes: Some(stdout.whole.bytes()),
        stderr_bytes: Some(stderr.whole.bytes()),
        stdout: stdout.text,
        stderr: stderr.text,
        ..of_begun(begun)
    }
}

/// The entry with the result that the script left. One that is none says so where nothing else is to be said, and changes
/// neither ending nor digest.
pub(crate) fn with_result(
    execution: Execution,
    result: Result<Option<Value>, result_file::Error>,
) -> Execution {
    match result {
        Ok(result) => Execution { result, ..execution },
        Err(_) if execution.reason.is_empty() => {
            Execution { reason: NodeReason::ResultInvalid.as_str().to_owned(), ..execution }
        }
        Err(_) => execution,
    }
}

/// What an exit code says of an execution that nobody cut short; none is success.
fn of_exit_code(code: i32, exit_codes: &ExitCodes) -> Option<NodeReason> {
    let has = |codes: &[u8]| codes.iter().any(|listed| i32::from(*listed) == code);
    if code == 0 {
        None
    } else if has(&exit_codes.success) {
        Some(NodeReason::ExitCodeSucceeds)
    } else if has(&exit_codes.skipped) {
        Some(NodeReason::ExitCodeSkips)
    } else {
        Some(NodeReason::ScriptFailed)
    }
}

/// The entry of an execution whose interpreter could not be started; the sentence about it stands for stderr.
pub(crate) fn of_not_started(begun: Begun, sentence: &str) -> Execution {
    let sentence = make_harmless(sentence.as_bytes());
    let mut whole = StreamDigest::default();
    whole.update(sentence.as_bytes());
    let reason = NodeReason::InterpreterNotStarted.as_str();
    Execution {
        reason: reason.to_owned(),
        digest: answer_digest(reason, &StreamDigest::default(), &whole),
        stderr: head(&sentence, MAX_START_ERROR_BYTES).to_owned(),
        ..of_begun(begun)
    }
}

fn of_begun(begun: Begun) -> Execution {
    let Begun { run, attempt, serial, start_time } = begun;
    Execution { run, attempt, serial, start_time: Some(start_time), ..Execution::default() }
}

/// How the execution ended, in a sentence.
pub(crate) fn sentence(execution: &Execution) -> String {
    let serial = execution.serial;
    let ending = match (execution.exit_code, execution.signal) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("did not start: {}", execution.stderr),
    };
    match NodeReason::parse(&execution.reason) {
        Some(NodeReason::ExecutionDeadlineExceeded) => {
            format!("execution {serial} ran longer than executionDeadlineSeconds and {ending}")
        }
        Some(NodeReason::Interrupted) => {
            format!("the pod was told to end while execution {serial} ran, which {ending}")
        }
        Some(NodeReason::ExitCodeSkips) => {
            format!("execution {serial} {ending}, which exitCodes.skipped has")
        }
        _ => format!("execution {serial} {ending}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::capture::{Capture, Kept};

    fn begun() -> Begun {
        Begun { run: 1, attempt: 1, serial: 3, start_time: Time(Timestamp::UNIX_EPOCH) }
    }

    fn finished(ending: Ending, cut_by: Option<CutBy>) -> Execution {
        let stream = || {
            let mut capture = Capture::new(64, Kept::Tail);
            capture.push(b"text");
            capture.finish()
        };
        let duration = Duration::from_millis(1500);
        let finished = Finished { ending, cut_by, duration, stdout: stream(), stderr: stream() };
        of_finished(begun(), finished, &ExitCodes { success: vec![2, 5], skipped: vec![4] })
    }

    #[test]
    fn reason_says_what_exit_code_and_signal_do_not() {
        for (ending, cut_by, reason) in [
            (Ending::Code(0), None, ""),
            (Ending::Code(3), None, "ScriptFailed"),
            (Ending::Signal(35), None, "ScriptFailed"),
            (Ending::Signal(15), Some(CutBy::Deadline), "ExecutionDeadlineExceeded"),
            (Ending::Code(0), Some(CutBy::Deadline), "ExecutionDeadlineExceeded"),
            (Ending::Code(0), Some(CutBy::Stop), "Interrupted"),
            (Ending::Code(2), Some(CutBy::Deadline), "ExecutionDeadlineExceeded"),
            (Ending::Code(4), Some(CutBy::Stop), "Interrupted"),
        ] {
            let execution = finished(ending, cut_by);
            assert_eq!(execution.reason, reason, "{ending:?}");
            assert_eq!(execution.succeeded(), reason.is_empty(), "{ending:?}");
            assert_eq!(execution.failed(), !reason.is_empty(), "{ending:?}");
        }
    }

    #[test]
    fn exit_codes_mean_what_the_pod_was_told() {
        for (code, reason, (succeeded, skipped)) in [
            (0, "", (true, false)),
            (1, "ScriptFailed", (false, false)),
            (2, "ExitCodeSucceeds", (true, false)),
            (4, "ExitCodeSkips", (false, true)),
            (5, "ExitCodeSucceeds", (true, false)),
        ] {
            let execution = finished(Ending::Code(code), None);
            assert_eq!((execution.exit_code, execution.reason.as_str()), (Some(code), reason));
            assert_eq!((execution.succeeded(), execution.skipped()), (succeeded, skipped), "{code}");
        }
        // A signal is not the exit code of its number.
        assert_eq!(finished(Ending::Signal(2), None).reason, "ScriptFailed");
        let skipped = finished(Ending::Code(4), None);
        assert_eq!(sentence(&skipped), "execution 3 exited with code 4, which exitCodes.skipped has");
    }

    #[test]
    fn answers_keep_text_size_and_digest() {
        let execution = finished(Ending::Code(0), None);
        assert_eq!((execution.stdout.as_str(), execution.stdout_bytes), ("text", Some(4)));
        assert_eq!(execution.duration_millis, Some(1500));
        assert_eq!(execution.digest, finished(Ending::Code(0), None).digest);
        assert_ne!(execution.digest, finished(Ending::Code(1), None).digest);
        assert_ne!(execution.digest, finished(Ending::Signal(1), None).digest);
    }

    #[test]
    fn result_changes_no_answer_and_a_bad_one_no_ending() {
        let (good, bad) = (finished(Ending::Code(0), None), finished(Ending::Code(1), None));
        let with = with_result(good.clone(), Ok(Some(serde_json::json!({"a": 1}))));
        assert_eq!((&with.digest, with.reason.as_str(), with.result.is_some()), (&good.digest, "", true));
        assert_eq!(with_result(good.clone(), Ok(None)), good);
        let error = || Err(result_file::Error::Kind("folder"));
        let without = with_result(good.clone(), error());
        assert_eq!((without.reason.as_str(), without.succeeded()), ("ResultInvalid", true));
        assert_eq!(without.digest, good.digest);
        assert_eq!(with_result(bad.clone(), error()), bad);
    }

    #[test]
    fn execution_that_did_not_start_has_neither_code_nor_signal() {
        let execution = of_not_started(begun(), "no \u{1b} here");
        assert_eq!((execution.exit_code, execution.signal), (None, None));
        assert_eq!(execution.stderr, "no \u{241b} here");
        assert!(!execution.succeeded());
        assert_eq!(sentence(&execution), "execution 3 did not start: no \u{241b} here");
    }
}
