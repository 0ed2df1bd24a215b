//! The session of this runner: a thread of its own, so that nothing in the network can hold up what waits for processes.
//!
//! **Invariant:** the thread starts no process, waits for none and writes nothing to the log; it only leaves here what it
//! learns, and wakes the other.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags};
use scriptrunner_api::{
    session::{Ack, RunOrder},
    snapshot::Snapshot,
};
use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
};

use crate::{
    args::SessionArgs,
    poll,
    session::{self, Door, Outbox, SessionConfig, SessionEvent, Timing, Token},
    signals::{Alarm, Signals},
};

/// Events that may wait for the thread that keeps them; it does nothing else.
const EVENTS: usize = 16;

/// How long saying goodbye may hold up the end of the runner.
const FAREWELL: Duration = Duration::from_millis(200);

/// The way to the operator.
pub(crate) struct Link {
    outbox: watch::Sender<Option<Arc<Snapshot>>>,
    known: Arc<Mutex<Known>>,
}

/// What is known of the operator.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) phase: Phase,
    /// The newest snapshot that is stored; 0 if none is.
    pub(crate) acked: u64,
    /// When it was acknowledged.
    pub(crate) acked_at: Option<Instant>,
    /// The newest order to run again.
    pub(crate) order: Option<Arc<RunOrder>>,
    /// Whether to end after the current execution.
    pub(crate) is_to_hand_over: bool,
}

/// Whether there is a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// There is none, and there will be none.
    Off,
    /// There is none yet; no try has failed.
    Trying,
    /// There is none; a try failed or a session broke.
    Failing,
    /// There is one.
    Up,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Door(#[from] session::Error),
    #[error("cannot start its thread: {0}")]
    StartThread(#[from] io::Error),
}

impl Link {
    /// No session, ever.
    pub(crate) fn none() -> Self {
        Self::in_phase(Phase::Off)
    }

    /// Begins to look for the operator, if the arguments say where it is.
    pub(crate) fn start(args: &SessionArgs, boot: &str, alarm: Alarm) -> Result<Self, Error> {
        let Some(address) = &args.address else { return Ok(Self::none()) };
        let config = SessionConfig {
            door: Door::new(address, &args.name, &args.authorities)?,
            token: Token::File(args.token_file.clone()),
            boot: boot.to_owned(),
            timing: Timing::default(),
        };
        let link = Self::in_phase(Phase::Trying);
        let (outbox, known) = (link.outbox.subscribe(), Arc::clone(&link.known));
        let keeper = Keeper { known, alarm, told: String::new() };
        thread::Builder::new().name("session".to_owned()).spawn(move || hold(config, outbox, keeper))?;
        Ok(link)
    }

    /// Replaces what the operator is to know.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.outbox.send_replace(Some(Arc::new(snapshot)));
    }

    pub(crate) fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says goodbye, if the operator listens.
    pub(crate) fn close(self, signals: &mut Signals) {
        let Self { outbox, known } = self;
        drop(outbox);
        let end = Instant::now() + FAREWELL;
        loop {
            signals.clear();
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() || phase_of(&known) == Phase::Off {
                return;
            }
            let wake = signals.wake_fd();
            poll::wait(&mut [PollFd::new(&wake, PollFlags::IN)], Some(rest));
        }
    }

    fn in_phase(phase: Phase) -> Self {
        let known = Known { phase, acked: 0, acked_at: None, order: None, is_to_hand_over: false };
        Self { outbox: watch::Sender::new(None), known: Arc::new(Mutex::new(known)) }
    }
}

fn phase_of(known: &Mutex<Known>) -> Phase {
    known.lock().unwrap_or_else(PoisonError::into_inner).phase
}

/// The thread.
fn hold(config: SessionConfig, outbox: Outbox, keeper: Keeper) {
    // Signals are for the thread that waits for them. What comes before this line is handled just as well.
    if let Err(error) = SigSet::all().thread_block() {
        keeper.alarm.log(format!("the session's thread cannot block signals: {error}"));
    }
    match Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime.block_on(async {
            let (sender, receiver) = mpsc::channel(EVENTS);
            tokio::join!(session::run(config, outbox, sender), keep(keeper, receiver));
        }),
        Err(error) => keeper.alarm.log(format!("there is no session: {error}")),
    }
}

async fn keep(mut keeper: Keeper, mut events: mpsc::Receiver<SessionEvent>) {
    while let Some(event) = events.recv().await {
        keeper.keep(event);
    }
}

/// Keeps what the session learns.
struct Keeper {
    known: Arc<Mutex<Known>>,
    alarm: Alarm,
    /// What was logged last, so that days without an operator do not fill the log.
    told: String,
}

impl Keeper {
    fn keep(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Connected => {
                self.change(|known| known.phase = Phase::Up);
                self.tell("the session with the operator is up".to_owned());
            }
            SessionEvent::Disconnected { why } => {
                self.change(|known| known.phase = Phase::Failing);
                self.tell(format!("no session with the operator: {why}; trying again"));
            }
            SessionEvent::Postponed { reason } => {
                // A session that was up is as good as a failed try now; one that was not may still come soon.
                self.change(|known| {
                    if known.phase == Phase::Up {
                        known.phase = Phase::Failing;
                    }
                });
                self.tell(format!("the operator asks to come again later: {reason}"));
            }
            SessionEvent::Acked(Ack { boot: _, seq }) => self.change(|known| {
                known.acked = known.acked.max(seq);
                known.acked_at = Some(Instant::now());
            }),
            SessionEvent::Run(order) => self.change(|known| {
                if known.order.as_ref().is_none_or(|older| older.run < order.run) {
                    known.order = Some(Arc::from(order));
                }
            }),
            SessionEvent::Stop { reason } => {
                self.alarm.log(format!("the operator says to stop: {reason}"));
                self.alarm.stop();
            }
            SessionEvent::HandOver { reason } => {
                self.change(|known| known.is_to_hand_over = true);
                self.tell(format!("the operator says to end after the current execution: {reason}"));
            }
            SessionEvent::Ignored { what } => self.tell(format!("ignored what the operator said: {what}")),
            SessionEvent::Refused { reason } => {
                self.change(|known| known.phase = Phase::Off);
                self.tell(format!("the operator refuses a session: {reason}"));
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
        self.alarm.wake();
    }

    fn tell(&mut self, line: String) {
        if line != self.told {
            self.alarm.log(line.clone());
            self.told = line;
        }
    }
}

impl Drop for Keeper {
    /// However the thread ends, nobody waits for it any more.
    fn drop(&mut self) {
        self.change(|known| known.phase = Phase::Off);
    }
}
