//! A runner made of plain data: it executes, counts, and says where it stands.

use scriptrunner_api::{
    session::RunOrder,
    snapshot::{Record, Snapshot},
    v1alpha1::Execution,
};

/// Executions that a runner keeps.
pub(super) const KEPT: usize = 5;

fn blank() -> Record {
    Record { seq: 1, ..Record::new(String::new(), 0, 0) }
}

#[derive(Clone, Debug)]
pub(super) struct ToyRunner {
    pub(super) record: Record,
    pub(super) history: Vec<Execution>,
    first_serial: u64,
    /// What was counted when the part began that it works on.
    before: (u64, u64),
    /// Exit codes that count as success, and that skip the node, over all its parts.
    exit_codes: [Vec<i32>; 2],
}

impl ToyRunner {
    /// The runner of a pod with these arguments.
    pub(super) fn new(boot: &str, args: &[String]) -> Self {
        let arg = |name: &str| args[args.iter().position(|arg| arg == name).unwrap() + 1].as_str();
        let codes = |name: &str| {
            let codes = args.iter().skip_while(|arg| *arg != name).nth(1);
            codes
                .map(|codes| codes.split(',').map(|code| code.parse().unwrap()).collect())
                .unwrap_or_default()
        };
        let record = Record {
            boot: boot.into(),
            run: arg("--run").parse().unwrap(),
            attempt: arg("--attempt").parse().unwrap(),
            ..blank()
        };
        Self {
            record,
            history: Vec::new(),
            first_serial: arg("--first-serial").parse().unwrap(),
            before: (0, 0),
            exit_codes: ["--success-codes", "--skipped-codes"].map(codes),
        }
    }

    /// Begins the part of another run that came over the session.
    pub(super) fn go_on(&mut self, order: &RunOrder) {
        assert!(self.is_done() && order.run > self.record.run);
        let Record { executions, failures, seq, boot, .. } = self.record.clone();
        let (run, attempt) = (order.run, order.attempt);
        self.record = Record { executions, failures, boot, seq: seq + 1, run, attempt, ..blank() };
        (self.history, self.first_serial, self.before) =
            (Vec::new(), order.first_serial, (executions, failures));
    }

    /// Executions of the part that it works on.
    pub(super) fn executions(&self) -> u64 {
        self.record.executions - self.before.0
    }

    pub(super) fn is_executing(&self) -> bool {
        self.executions() > 0 && self.history.last().is_none_or(|newest| newest.serial < self.record.serial)
    }

    pub(super) fn is_done(&self) -> bool {
        self.record.state != "Running" || self.record.handed_over
    }

    pub(super) fn begin(&mut self) {
        assert!(!self.is_executing() && !self.is_done());
        self.record.serial = self.first_serial + self.executions();
        self.record.executions += 1;
        (self.record.exit_code, self.record.signal) = (None, None);
        self.record.seq += 1;
    }

    /// Ends the execution, with a signal if the code is negative.
    pub(super) fn finish(&mut self, code: i32) {
        assert!(self.is_executing());
        let (exit_code, signal) = if code < 0 { (None, Some(-code)) } else { (Some(code), None) };
        let Record { run, attempt, serial, .. } = self.record;
        let [success, skipped] = &self.exit_codes;
        let reason = match code {
            0 => "",
            code if success.contains(&code) => "ExitCodeSucceeds",
            code if skipped.contains(&code) => "ExitCodeSkips",
            _ => "ScriptFailed",
        };
        self.history.push(Execution {
            run,
            attempt,
            serial,
            exit_code,
            signal,
            reason: reason.into(),
            // Several of these are more than a termination message holds.
            stdout: format!("said by {run}/{attempt}/{serial}\n").repeat(80),
            digest: format!("{serial:016x}"),
            ..Execution::default()
        });
        (self.record.exit_code, self.record.signal) = (exit_code, signal);
        self.record.failures += u64::from(reason == "ScriptFailed");
        self.record.seq += 1;
        let old = self.history.len().saturating_sub(KEPT);
        self.history.drain(..old);
    }

    pub(super) fn end(&mut self, state: &str, reason: &str) {
        self.record.state = state.into();
        self.record.reason = reason.into();
        self.record.handed_over = matches!(reason, "NoSession" | "Paused");
        self.record.seq += 1;
    }

    /// Everything was executed.
    pub(super) fn complete(&mut self) {
        let has_failed = self.record.failures > self.before.1;
        if has_failed {
            self.end("Failed", "ScriptFailed");
        } else if self.history.last().is_some_and(Execution::skipped) {
            self.end("Skipped", "ExitCodeSkips");
        } else {
            self.end("Succeeded", "");
        }
    }

    pub(super) fn execute(&mut self, code: i32) {
        self.begin();
        self.finish(code);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { record: self.record.clone(), history: self.history.clone() }
    }

    /// The termination message.
    pub(super) fn message(&self) -> String {
        self.snapshot().encode(4096)
    }
}
