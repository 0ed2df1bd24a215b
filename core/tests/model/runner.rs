//! The runner of a pod: it executes, counts, and writes its message, as runner-image does.

use k8s_openapi::api::core::v1::Pod;
use scriptrunner_api::{
    snapshot::{Record, Snapshot},
    v1alpha1::Execution,
};

use crate::random::{mixed, number_of};

/// Executions after which a runner that repeats endlessly ends to hand over.
const MOST_ENDLESS: u64 = 3;

/// How a runner ended its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    Failed,
    Skipped,
    HandedOver,
    /// It was told to end, and said so.
    Stopped,
    /// It was started a second time and did nothing.
    Restarted,
    /// It was killed.
    Killed,
    /// It was killed for want of memory.
    Starved,
}

/// How one execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Exit(i32),
    Signal(i32),
    /// Its time was over.
    Late,
    /// It was told to end.
    Stopped,
}

/// A runner.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    pub(crate) record: Record,
    history: Vec<Execution>,
    pub(crate) first_serial: u64,
    /// Executions to make; none is endless.
    pub(crate) remaining: Option<u64>,
    kept: usize,
    deadline: bool,
    success_codes: Vec<i32>,
    skipped_codes: Vec<i32>,
    script: String,
    stop_on: String,
    node_uid: String,
    /// How it ended, once it did.
    pub(crate) end: Option<End>,
    /// What stands in the file of its termination message.
    pub(crate) message: String,
}

impl Runner {
    /// The runner of a pod that begins with this script.
    pub(crate) fn start(pod: &Pod, script: &str, stop_on: &str) -> Self {
        let args = pod.spec.as_ref().unwrap().containers[0].args.clone().unwrap();
        let arg = |name: &str| {
            let position = args.iter().position(|arg| arg == name)?;
            Some(args[position + 1].clone())
        };
        let number = |name: &str| arg(name).unwrap().parse::<u64>().unwrap();
        let codes = |name: &str| -> Vec<i32> {
            arg(name)
                .map(|codes| codes.split(',').map(|code| code.parse().unwrap()).collect())
                .unwrap_or_default()
        };
        let uid = pod.metadata.uid.clone().unwrap();
        let labels = pod.metadata.labels.as_ref().unwrap();
        let attempt = u32::try_from(number("--attempt")).unwrap();
        let mut runner = Self {
            record: Record { seq: 1, ..Record::new(format!("boot of {uid}"), number("--run"), attempt) },
            history: Vec::new(),
            first_serial: number("--first-serial"),
            remaining: arg("--remaining").unwrap().parse().ok(),
            kept: usize::try_from(number("--history-limit")).unwrap(),
            deadline: arg("--execution-deadline-seconds").is_some(),
            success_codes: codes("--success-codes"),
            skipped_codes: codes("--skipped-codes"),
            script: script.to_owned(),
            stop_on: stop_on.to_owned(),
            node_uid: labels["scriptrunner.io/node-uid"].clone(),
            end: None,
            message: String::new(),
        };
        runner.write();
        runner
    }

    pub(crate) fn is_executing(&self) -> bool {
        self.record.executions > 0
            && self.history.last().is_none_or(|newest| newest.serial < self.record.serial)
    }

    /// The next thing that it does by itself; the serial of an execution that began by it.
    pub(crate) fn work(&mut self) -> Option<u64> {
        if self.end.is_some() {
            return None;
        }
        if self.is_executing() {
            self.finish(self.outcome());
            return None;
        }
        let is_done = self.remaining.is_some_and(|remaining| self.record.executions >= remaining);
        let is_enough = match (self.stop_on.as_str(), self.history.last()) {
            ("Failure", Some(newest)) => newest.failed(),
            ("Success", Some(newest)) => !newest.failed(),
            _ => false,
        };
        if self.is_skipped() {
            self.conclude(End::Skipped, "Skipped", "ExitCodeSkips");
        } else if is_done || is_enough {
            if self.record.failures == 0 {
                self.conclude(End::Succeeded, "Succeeded", "");
            } else {
                let reason = self.history.last().map(|newest| newest.reason.clone()).unwrap_or_default();
                let reason =
                    if reason == "ExecutionDeadlineExceeded" { reason } else { "ScriptFailed".to_owned() };
                self.conclude(End::Failed, "Failed", &reason);
            }
        } else if self.remaining.is_none() && self.record.executions >= MOST_ENDLESS {
            self.record.handed_over = true;
            self.conclude(End::HandedOver, "Running", "NoSession");
        } else {
            self.begin();
            return Some(self.record.serial);
        }
        None
    }

    fn begin(&mut self) {
        self.record.serial = self.first_serial + self.record.executions;
        self.record.executions += 1;
        (self.record.exit_code, self.record.signal) = (None, None);
        self.write();
    }

    /// What the script does on this node: it follows from nothing but script, node and serial.
    fn outcome(&self) -> Code {
        let number = mixed(number_of(&self.script) ^ number_of(&self.node_uid) ^ self.record.serial)
            ^ mixed(u64::from(self.record.attempt));
        let codes: &[Code] = match self.script.split(' ').next() {
            Some("bad") => &[Code::Exit(1), Code::Exit(2), Code::Signal(9)],
            Some("mixed") => {
                &[Code::Exit(0), Code::Exit(0), Code::Exit(1), Code::Exit(2), Code::Exit(3), Code::Late]
            }
            Some(_) | None => &[Code::Exit(0)],
        };
        let count = u64::try_from(codes.len()).unwrap();
        codes[usize::try_from((number >> 7) % count).unwrap()]
    }

    fn is_skipped(&self) -> bool {
        let code = self.history.last().and_then(|newest| newest.exit_code);
        code.is_some_and(|code| self.skipped_codes.contains(&code))
    }

    fn finish(&mut self, code: Code) {
        let (exit_code, signal, reason) = match code {
            Code::Exit(0) => (Some(0), None, ""),
            Code::Exit(code) if self.success_codes.contains(&code) => (Some(code), None, "ExitCodeSucceeds"),
            Code::Exit(code) if self.skipped_codes.contains(&code) => (Some(code), None, "ExitCodeSkips"),
            Code::Late if self.deadline => (None, Some(15), "ExecutionDeadlineExceeded"),
            Code::Exit(code) => (Some(code), None, "ScriptFailed"),
            Code::Signal(signal) => (None, Some(signal), "ScriptFailed"),
            Code::Late => (Some(1), None, "ScriptFailed"),
            Code::Stopped => (None, Some(15), "Interrupted"),
        };
        let Record { run, attempt, serial, .. } = self.record;
        let is_loud = self.script.ends_with("loud");
        let execution = Execution {
            run,
            attempt,
            serial,
            exit_code,
            signal,
            reason: reason.to_owned(),
            stdout: format!("{run}/{attempt}/{serial} ").repeat(if is_loud { 150 } else { 2 }),
            digest: format!("{:016x}", number_of(&self.script) ^ serial),
            ..Execution::default()
        };
        let is_failure = !matches!(reason, "" | "ExitCodeSucceeds" | "ExitCodeSkips");
        self.history.push(execution);
        (self.record.exit_code, self.record.signal) = (exit_code, signal);
        self.record.failures += u64::from(is_failure);
        let old = self.history.len().saturating_sub(self.kept);
        self.history.drain(..old);
        self.write();
    }

    fn conclude(&mut self, end: End, state: &str, reason: &str) {
        self.end = Some(end);
        self.record.state = state.to_owned();
        self.record.reason = reason.to_owned();
        self.write();
    }

    /// SIGTERM.
    pub(crate) fn stop(&mut self) {
        if self.end.is_none() {
            if self.is_executing() {
                self.finish(Code::Stopped);
            }
            self.conclude(End::Stopped, "Stopped", "Interrupted");
        }
    }

    /// SIGKILL: the file keeps what was written last.
    pub(crate) fn die(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// The kubelet starts it a second time: it finds its marker.
    pub(crate) fn restart(&mut self) {
        let Record { run, attempt, .. } = self.record;
        self.record = Record::new(format!("{} again", self.record.boot), run, attempt);
        self.history.clear();
        self.conclude(End::Restarted, "Unknown", "Restarted");
    }

    fn write(&mut self) {
        self.record.seq += 1;
        self.message = Snapshot { record: self.record.clone(), history: self.history.clone() }.encode(4096);
    }

    /// Exit code of the container.
    pub(crate) fn exit_code(&self) -> i32 {
        match self.end {
            Some(End::Succeeded | End::Skipped | End::HandedOver) => 0,
            Some(End::Failed) | None => 1,
            Some(End::Restarted) => 5,
            Some(End::Stopped) => 6,
            Some(End::Killed | End::Starved) => 137,
        }
    }
}
