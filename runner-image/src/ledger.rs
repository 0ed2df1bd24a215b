//! What this runner has done so far, and what became of the node: the content of the termination message. Pure.

use std::{collections::VecDeque, time::Duration};

use scriptrunner_api::{
    labels::PROTOCOL,
    reason::NodeReason,
    snapshot::{MAX_RECORD_TEXT_BYTES, Record, Snapshot},
    text::harmless_head,
    v1alpha1::{Execution, NodeState, StopOn},
};

use crate::outcome;

/// Why the runner ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was executed that was to be.
    Completed,
    /// The repetition goes on in the next pod, after so long without an acknowledgement.
    HandedOver(Duration),
    /// The operator paused the repetition, which goes on in another pod.
    Paused,
    /// The runner was told to stop before everything was executed.
    Stopped,
    /// This was a second start.
    Restarted,
    /// A dependency could not be installed; with the installer's last words.
    InstallFailed(String),
    /// The inputs are not the pinned ones.
    InputTampered(String),
    /// The runner could not do its work.
    RunnerFailed(String),
    /// The operator speaks another version of the contract.
    ProtocolUnknown(u32),
}

impl End {
    /// The exit code; for people, the message says more.
    pub(crate) fn exit_code(&self, has_failed: bool) -> u8 {
        match self {
            Self::Completed => u8::from(has_failed),
            Self::HandedOver(_) | Self::Paused => 0,
            Self::RunnerFailed(_) => 1,
            Self::ProtocolUnknown(_) => 2,
            Self::InstallFailed(_) => 3,
            Self::InputTampered(_) => 4,
            Self::Restarted => 5,
            Self::Stopped => 6,
        }
    }
}

/// An execution that has ended.
struct Entry {
    execution: Execution,
    /// The first snapshot that contains it.
    seq: u64,
}

/// Counts and newest executions of this runner.
pub(crate) struct Ledger {
    record: Record,
    history: VecDeque<Entry>,
    history_limit: usize,
    newest_failure: Option<Execution>,
}

impl Ledger {
    pub(crate) fn new(boot: String, run: u64, attempt: u32, history_limit: usize) -> Self {
        let record = Record::new(boot, run, attempt);
        Self { record, history: VecDeque::new(), history_limit, newest_failure: None }
    }

    /// Begins a new part in the same process: what is counted per runner goes on, everything else begins anew.
    pub(crate) fn next(&self, run: u64, attempt: u32, history_limit: usize) -> Self {
        let next = Self::new(self.record.boot.clone(), run, attempt, history_limit);
        let Record { seq, executions, failures, .. } = self.record;
        Self { record: Record { seq, executions, failures, ..next.record }, ..next }
    }

    /// An execution begins: from now on it counts, even if nobody lives to see its end.
    pub(crate) fn begin(&mut self, serial: u64) {
        self.record.executions += 1;
        self.record.serial = serial;
        self.record.exit_code = None;
        self.record.signal = None;
    }

    /// The execution that began last has ended.
    pub(crate) fn finish(&mut self, execution: Execution) {
        self.record.exit_code = execution.exit_code;
        self.record.signal = execution.signal;
        if execution.failed() {
            self.record.failures += 1;
            self.newest_failure = Some(execution.clone());
        }
        self.history.push_back(Entry { execution, seq: self.record.seq + 1 });
        while self.history.len() > self.history_limit {
            self.history.pop_front();
        }
    }

    /// The runner ends. Returns whether the node's part counts as failed.
    pub(crate) fn end(&mut self, end: &End, stop_on: StopOn) -> bool {
        let (state, reason, message) = match end {
            End::Completed => self.verdict(stop_on),
            End::HandedOver(silence) => (
                NodeState::Running,
                Some(NodeReason::NoSession),
                format!(
                    "no session with the operator for {} seconds; the repetition goes on in the next pod",
                    silence.as_secs()
                ),
            ),
            End::Paused => (
                NodeState::Running,
                Some(NodeReason::Paused),
                "the operator paused the repetition; it goes on in another pod".to_owned(),
            ),
            End::Stopped => (NodeState::Stopped, Some(NodeReason::Interrupted), self.stopped()),
            End::Restarted => (
                NodeState::Unknown,
                Some(NodeReason::Restarted),
                "the kubelet started the pod a second time; nothing was executed this time".to_owned(),
            ),
            End::InstallFailed(text) => {
                (NodeState::Failed, Some(NodeReason::DependencyInstallFailed), text.clone())
            }
            End::InputTampered(text) => (NodeState::Failed, Some(NodeReason::InputTampered), text.clone()),
            End::RunnerFailed(text) => (NodeState::Failed, Some(NodeReason::RunnerFailed), text.clone()),
            End::ProtocolUnknown(found) => (
                NodeState::Failed,
                Some(NodeReason::RunnerFailed),
                format!(
                    "the operator speaks protocol {found}, this runner speaks {PROTOCOL}; use a runner image of the operator's version"
                ),
            ),
        };
        self.record.state = state.as_str().to_owned();
        self.record.reason = reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default();
        self.record.message = harmless_head(&message, MAX_RECORD_TEXT_BYTES);
        self.record.handed_over = matches!(end, End::HandedOver(_) | End::Paused);
        state == NodeState::Failed
    }

    /// The snapshot to be published now; each has the next number.
    pub(crate) fn publish(&mut self) -> Snapshot {
        self.record.seq += 1;
        let history = self.history.iter().map(|entry| entry.execution.clone()).collect();
        Snapshot { record: self.record.clone(), history }
    }

    /// The run that this is about.
    pub(crate) fn run(&self) -> u64 {
        self.record.run
    }

    /// The executions that the snapshot of that number, and those before it, do not contain.
    pub(crate) fn newer_than(&self, seq: u64) -> impl Iterator<Item = &Execution> {
        self.history.iter().filter(move |entry| entry.seq > seq).map(|entry| &entry.execution)
    }

    fn newest(&self) -> Option<&Execution> {
        self.history.back().map(|entry| &entry.execution)
    }

    /// One line for the log.
    pub(crate) fn summary(&self) -> String {
        let Record { state, reason, message, executions, failures, .. } = &self.record;
        let words = [state, reason, message].map(String::as_str);
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        format!("{executions} executions, {failures} failed: {}", words.join(", "))
    }

    /// Any failed execution is a failure, unless what was waited for was a success and it came. Without a failure the newest
    /// execution says whether the node was skipped.
    fn verdict(&self, stop_on: StopOn) -> (NodeState, Option<NodeReason>, String) {
        let newest_succeeded = self.newest().is_some_and(Execution::succeeded);
        let told = |state, execution: &Execution| {
            (state, NodeReason::parse(&execution.reason), outcome::sentence(execution))
        };
        match (&self.newest_failure, self.newest()) {
            (Some(failure), _) if !(stop_on == StopOn::Success && newest_succeeded) => {
                told(NodeState::Failed, failure)
            }
            (_, Some(newest)) if newest.skipped() => told(NodeState::Skipped, newest),
            (_, Some(_) | None) => (NodeState::Succeeded, None, String::new()),
        }
    }

    fn stopped(&self) -> String {
        match self.newest() {
            Some(newest) if newest.reason == NodeReason::Interrupted.as_str() => outcome::sentence(newest),
            Some(newest) => format!("the pod was told to end after execution {}", newest.serial),
            None => "the pod was told to end before the first execution".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An exit code that counts as success.
    const SUCCEEDS: i32 = 102;
    /// An exit code that skips the node.
    const SKIPS: i32 = 104;

    fn ledger_of(endings: &[i32], history_limit: usize) -> Ledger {
        let mut ledger = Ledger::new("00000000".to_owned(), 1, 1, history_limit);
        for (serial, &code) in (1..).zip(endings) {
            let reason = match code {
                0 => "",
                SUCCEEDS => NodeReason::ExitCodeSucceeds.as_str(),
                SKIPS => NodeReason::ExitCodeSkips.as_str(),
                _ => NodeReason::ScriptFailed.as_str(),
            };
            ledger.begin(serial);
            ledger.finish(Execution {
                run: 1,
                attempt: 1,
                serial,
                exit_code: Some(code),
                reason: reason.to_owned(),
                ..Execution::default()
            });
        }
        ledger
    }

    #[test]
    fn any_failure_fails_unless_success_was_waited_for() {
        for (endings, stop_on, state) in [
            (&[0, 0][..], StopOn::Never, "Succeeded"),
            (&[0, 1, 0], StopOn::Never, "Failed"),
            (&[0, 0, 1], StopOn::Failure, "Failed"),
            (&[1, 1, 0], StopOn::Success, "Succeeded"),
            (&[1, 1], StopOn::Success, "Failed"),
            (&[SUCCEEDS], StopOn::Never, "Succeeded"),
            (&[1, SUCCEEDS], StopOn::Success, "Succeeded"),
            (&[SKIPS], StopOn::Never, "Skipped"),
            (&[0, SKIPS], StopOn::Never, "Skipped"),
            (&[SKIPS, 0], StopOn::Never, "Succeeded"),
            (&[SKIPS, SUCCEEDS], StopOn::Success, "Succeeded"),
            (&[1, SKIPS], StopOn::Never, "Failed"),
            (&[1, SKIPS], StopOn::Success, "Failed"),
            (&[SKIPS, 1], StopOn::Failure, "Failed"),
        ] {
            let mut ledger = ledger_of(endings, 5);
            assert_eq!(ledger.end(&End::Completed, stop_on), state == "Failed", "{endings:?} {stop_on:?}");
            assert_eq!(ledger.publish().record.state, state, "{endings:?} {stop_on:?}");
        }
    }

    #[test]
    fn skipped_part_says_why_and_counts_no_failure() {
        let mut ledger = ledger_of(&[SUCCEEDS, SKIPS], 5);
        let has_failed = ledger.end(&End::Completed, StopOn::Never);
        assert_eq!(End::Completed.exit_code(has_failed), 0);
        let record = ledger.publish().record;
        assert_eq!((record.state.as_str(), record.reason.as_str()), ("Skipped", "ExitCodeSkips"));
        assert_eq!(record.message, "execution 2 exited with code 104, which exitCodes.skipped has");
        assert_eq!((record.executions, record.failures, record.exit_code), (2, 0, Some(SKIPS)));
    }

    #[test]
    fn failure_keeps_its_reason_after_it_left_the_history() {
        let mut ledger = ledger_of(&[7, 0, 0, 0], 2);
        ledger.end(&End::Completed, StopOn::Never);
        let Snapshot { record, history } = ledger.publish();
        assert_eq!(
            (record.reason.as_str(), record.message.as_str()),
            ("ScriptFailed", "execution 1 exited with code 7")
        );
        assert_eq!(history.iter().map(|execution| execution.serial).collect::<Vec<_>>(), [3, 4]);
        assert_eq!((record.executions, record.failures, record.serial), (4, 1, 4));
    }

    #[test]
    fn begun_execution_counts_and_hides_the_ending_before() {
        let mut ledger = ledger_of(&[3], 5);
        assert_eq!(ledger.publish().record.exit_code, Some(3));
        ledger.begin(2);
        let Snapshot { record, history } = ledger.publish();
        assert_eq!((record.executions, record.serial, record.exit_code, history.len()), (2, 2, None, 1));
        assert_eq!((record.seq, record.state.as_str()), (2, "Running"));
    }

    #[test]
    fn executions_know_which_snapshot_told_of_them_first() {
        let mut ledger = ledger_of(&[], 5);
        let serials = |ledger: &Ledger, seq| {
            ledger.newer_than(seq).map(|execution| execution.serial).collect::<Vec<_>>()
        };
        for serial in 1..=3 {
            ledger.begin(serial);
            ledger.publish();
            ledger.finish(Execution { serial, exit_code: Some(0), ..Execution::default() });
            assert_eq!(ledger.publish().record.seq, 2 * serial);
        }
        assert_eq!(serials(&ledger, 0), [1, 2, 3]);
        assert_eq!(serials(&ledger, 2), [2, 3]);
        assert_eq!(serials(&ledger, 3), [2, 3]);
        assert_eq!(serials(&ledger, 6), [0; 0]);
    }

    #[test]
    fn next_part_goes_on_with_what_is_counted_per_runner() {
        let mut ledger = ledger_of(&[0, 1], 5);
        ledger.end(&End::Completed, StopOn::Never);
        let before = ledger.publish().record;
        let mut next = ledger.next(2, 3, 1);
        let Snapshot { record, history } = next.publish();
        assert_eq!((record.boot, record.seq), (before.boot, before.seq + 1));
        assert_eq!((record.run, record.attempt, record.state.as_str()), (2, 3, "Running"));
        assert_eq!((record.executions, record.failures, record.serial), (2, 1, 0));
        assert_eq!((record.exit_code, record.message.as_str(), history.len()), (None, "", 0));
        // A failure of the part before is not one of this part.
        assert!(!next.end(&End::Completed, StopOn::Never));
    }

    #[test]
    fn every_end_has_its_exit_code() {
        let text = String::new;
        for (end, code) in [
            (End::Completed, 0),
            (End::HandedOver(Duration::ZERO), 0),
            (End::Paused, 0),
            (End::RunnerFailed(text()), 1),
            (End::ProtocolUnknown(2), 2),
            (End::InstallFailed(text()), 3),
            (End::InputTampered(text()), 4),
            (End::Restarted, 5),
            (End::Stopped, 6),
        ] {
            assert_eq!(end.exit_code(false), code, "{end:?}");
        }
        assert_eq!(End::Completed.exit_code(true), 1);
    }
}
