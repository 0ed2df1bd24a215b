//! The sequence: check the inputs, leave the marker, do this pod's part of the run, stay until its answer is stored, and do
//! what the operator orders next; every step is reported.

mod dependencies;
mod linger;
mod part;
mod unacknowledged;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Instant,
};

use rustix::event::{PollFd, PollFlags};
use scriptrunner_api::{labels, session::RunOrder, snapshot::Snapshot, v1alpha1::StopOn};

use self::{dependencies::Installed, part::Part, unacknowledged::Unacknowledged};
use crate::{
    args::{Environment, RunArgs},
    inputs::{self, Inputs},
    ledger::{End, Ledger},
    link::{Link, Phase},
    log,
    marker::{self, Start},
    poll, process,
    signals::Signals,
    termination,
};

/// Does the pod's part of a run, and the parts that the operator orders after it; returns the last one's exit code.
pub(crate) fn run(args: RunArgs, environment: Environment, signals: Signals) -> u8 {
    let boot = boot();
    let link = Link::start(&args.session, &boot, signals.alarm()).unwrap_or_else(|error| {
        log::line(&format!("there is no session with the operator: {error}"));
        Link::none()
    });
    let ledger = Ledger::new(boot, args.run, args.attempt, args.history_limit);
    let mut runner = Runner {
        started: Instant::now(),
        args,
        environment,
        signals,
        link,
        ledger,
        unacknowledged: Unacknowledged::default(),
        installed: None,
    };
    runner.report();
    process::adopt_orphans();
    let inputs = runner.first_inputs();
    let mut ended = runner.perform(&Part::of_pod(&runner.args), inputs);
    while let Some(order) = runner.next_order(&ended) {
        let part = Part::ordered(&order, &runner.args);
        runner.ledger = runner.ledger.next(part.run, part.attempt, part.history_limit);
        runner.report();
        ended = runner.perform(&part, part::inputs_of(&order));
    }
    runner.link.close(&mut runner.signals);
    ended.code
}

/// Random per start, so that a second start is told from the first.
fn boot() -> String {
    format!("{:08x}", RandomState::new().build_hasher().finish() & 0xffff_ffff)
}

struct Runner {
    /// All durations are counted from here.
    started: Instant,
    args: RunArgs,
    /// The environment that the runner was started with.
    environment: Environment,
    signals: Signals,
    link: Link,
    ledger: Ledger,
    unacknowledged: Unacknowledged,
    installed: Option<Installed>,
}

/// How a part ended.
struct Ended {
    code: u8,
    /// Whether everything was executed, and its answers are stored.
    is_settled: bool,
}

impl Runner {
    /// The inputs of the pod; read once, and once only.
    fn first_inputs(&self) -> Result<Inputs, End> {
        let args = &self.args;
        if args.protocol != labels::PROTOCOL {
            return Err(End::ProtocolUnknown(args.protocol));
        }
        let inputs =
            inputs::read(&args.input_dir, &args.spec_sha256, &args.script_sha256).map_err(|error| {
                if error.is_tampering() {
                    End::InputTampered(error.to_string())
                } else {
                    End::RunnerFailed(error.to_string())
                }
            })?;
        match marker::make(&args.state_dir) {
            Ok(Start::First) => Ok(inputs),
            Ok(Start::Repeated) => Err(End::Restarted),
            Err(error) => Err(End::RunnerFailed(error.to_string())),
        }
    }

    /// Does one part to its end, and stays until its answer is stored.
    fn perform(&mut self, part: &Part, inputs: Result<Inputs, End>) -> Ended {
        let mut stop_on = StopOn::Never;
        let end = match inputs.and_then(|inputs| self.prepare(part, inputs)) {
            Ok(plan) => {
                stop_on = plan.stop_on();
                self.repeat(part, &plan)
            }
            Err(end) => end,
        };
        let has_failed = self.ledger.end(&end, stop_on);
        let last = self.report();
        log::line(&self.ledger.summary());
        let is_stored = self.linger(&last);
        Ended { code: end.exit_code(has_failed), is_settled: end == End::Completed && is_stored }
    }

    /// Publishes the state: in the termination message, and over the session.
    fn report(&mut self) -> Snapshot {
        let snapshot = self.record();
        self.link.publish(snapshot.clone());
        snapshot
    }

    /// Publishes the state in the termination message. A failure is told and tried again with the next state: the script
    /// comes first.
    fn record(&mut self) -> Snapshot {
        self.note_acknowledgements();
        let snapshot = self.ledger.publish();
        if let Err(error) = termination::write(&self.args.termination_log, &snapshot) {
            log::line(&error.to_string());
        }
        self.unacknowledged.publish(snapshot.record.seq, self.started.elapsed());
        snapshot
    }

    /// To be called before anything newer is published, which would seem to wait since before its time.
    fn note_acknowledgements(&mut self) {
        let known = self.link.known();
        if let Some(at) = known.acked_at {
            self.unacknowledged.ack(known.acked, at.saturating_duration_since(self.started));
        }
    }

    /// Stays until the last snapshot is stored, or for as long as that can be hoped for. Says whether it is.
    fn linger(&mut self, last: &Snapshot) -> bool {
        let began = Instant::now();
        let mut terminated = None;
        loop {
            self.signals.clear();
            process::reap_all();
            let known = self.link.known();
            if known.acked >= last.record.seq {
                return true;
            }
            let now = began.elapsed();
            if self.signals.is_terminated() {
                terminated.get_or_insert(now);
            }
            let is_whole =
                known.phase == Phase::Off || termination::holds(last, self.ledger.newer_than(known.acked));
            let end = linger::leave_at(known.phase, is_whole, self.args.session.linger, terminated);
            if now >= end {
                if known.phase != Phase::Off {
                    log::line("the operator has not stored the answer; it stands in the termination message");
                }
                return false;
            }
            let wake = self.signals.wake_fd();
            poll::wait(&mut [PollFd::new(&wake, PollFlags::IN)], Some(end.saturating_sub(now)));
        }
    }

    /// Waits for an order to run again. None if the runner is to end.
    fn next_order(&mut self, ended: &Ended) -> Option<Arc<RunOrder>> {
        if !ended.is_settled {
            return None;
        }
        let end = Instant::now() + self.args.session.idle;
        loop {
            self.signals.clear();
            process::reap_all();
            let known = self.link.known();
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() || self.signals.stop_requested() || known.phase == Phase::Off {
                return None;
            }
            // An order that is not newer was carried out already.
            if let Some(order) = known.order.filter(|order| order.run > self.ledger.run()) {
                return Some(order);
            }
            let wake = self.signals.wake_fd();
            poll::wait(&mut [PollFd::new(&wake, PollFlags::IN)], Some(rest));
        }
    }
}
