//! A simulated runner: executes nothing, but says what a runner says.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use scriptrunner_api::{
    digest::{StreamDigest, answer_digest},
    session::RunOrder,
    snapshot::{MAX_MESSAGE_BYTES, Record, Snapshot},
    v1alpha1::{Execution, NodeState},
};
use scriptrunner_runner::session::SessionEvent;
use tokio::{
    sync::{mpsc, watch},
    time::sleep_until,
};

use crate::{
    ledger::Ended,
    orders::Orders,
    theatre::{Theatre, share},
};

/// How many different answers there are.
const ANSWERS: u8 = 10;

/// A pod, as its runner knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) node_uid: String,
    pub(crate) object_uid: String,
    pub(crate) args: Vec<String>,
}

/// How a runner ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) exit_code: i32,
    /// The termination message.
    pub(crate) message: String,
}

/// A runner's end of its session; without one nothing is ever heard.
pub(crate) struct Line {
    outbox: watch::Sender<Option<Arc<Snapshot>>>,
    heard: mpsc::Receiver<SessionEvent>,
}

impl Line {
    /// Of what is sent and what is heard.
    pub(crate) fn new(
        outbox: watch::Sender<Option<Arc<Snapshot>>>,
        heard: mpsc::Receiver<SessionEvent>,
    ) -> Self {
        Self { outbox, heard }
    }

    fn is_open(&self) -> bool {
        !self.heard.is_closed()
    }

    async fn hear(&mut self) -> SessionEvent {
        match self.heard.recv().await {
            Some(said) => said,
            None => std::future::pending().await,
        }
    }
}

/// What is to be executed next.
struct Part {
    first_serial: u64,
    /// None is endless.
    remaining: Option<u64>,
}

/// What the operator wants.
enum Wish {
    /// Nothing new.
    None,
    /// The end.
    Stop,
}

/// A runner at work.
pub(crate) struct Runner<'a> {
    theatre: &'a Theatre,
    pod: &'a Pod,
    /// Held until the end: its going is the end of the session.
    line: Line,
    record: Record,
    history: VecDeque<Execution>,
    history_limit: usize,
    linger: Duration,
    begun: Timestamp,
    connected: bool,
    acked: u64,
    unacked: VecDeque<(u64, Instant)>,
    /// The newest run that was sent and not begun.
    order: Option<Box<RunOrder>>,
}

impl<'a> Runner<'a> {
    /// The whole life of a runner whose container was seen running.
    pub(crate) async fn play(theatre: &'a Theatre, pod: &'a Pod, started: Instant) -> anyhow::Result<Ending> {
        let orders = Orders::read(&pod.args)?;
        let mut runner = Self::new(theatre, pod, &orders)?;
        let mut part = Part { first_serial: orders.first_serial, remaining: orders.remaining };
        let mut start = started;
        loop {
            if let Wish::Stop = runner.execute(&part, start).await? {
                return Ok(runner.stop());
            }
            let seq = runner.end(NodeState::Succeeded);
            if let Wish::Stop = runner.linger(seq).await {
                return Ok(runner.stop());
            }
            match runner.order.take() {
                Some(order) => part = runner.take_up(&order),
                None => return Ok(runner.ending(0)),
            }
            start = Instant::now();
        }
    }

    fn new(theatre: &'a Theatre, pod: &'a Pod, orders: &Orders) -> anyhow::Result<Self> {
        let boot = format!("{:08x}", RandomState::new().build_hasher().finish() & 0xffff_ffff);
        let line = theatre.call(pod, orders, &boot)?;
        let record = Record::new(boot, orders.run, orders.attempt);
        Ok(Self {
            theatre,
            pod,
            line,
            record,
            history: VecDeque::new(),
            history_limit: orders.history_limit,
            linger: Duration::from_secs(orders.linger_seconds),
            begun: Timestamp::now(),
            connected: false,
            acked: 0,
            unacked: VecDeque::new(),
            order: None,
        })
    }

    /// Executes as often as told, the first time at `start`.
    async fn execute(&mut self, part: &Part, start: Instant) -> anyhow::Result<Wish> {
        let mut cue = self.theatre.act.cue.clone();
        cue.mark_unchanged();
        let mut next = start;
        let mut done = 0;
        while part.remaining != Some(done) {
            tokio::select! {
                () = sleep_until(next.into()) => {}
                changed = cue.changed(), if part.remaining.is_none() => changed?,
                said = self.line.hear() => match self.take(said) {
                    Wish::Stop => return Ok(Wish::Stop),
                    Wish::None => continue,
                },
            }
            next = Instant::now() + self.theatre.act.period;
            self.begin(part.first_serial + done);
            let end = Instant::now() + self.theatre.duration(&self.pod.node);
            if let Wish::Stop = self.listen_until(end, |_| false).await {
                return Ok(Wish::Stop);
            }
            self.finish();
            done += 1;
        }
        Ok(Wish::None)
    }

    /// Waits until the operator has stored everything, and then for another run, as long as it may.
    async fn linger(&mut self, seq: u64) -> Wish {
        let is_over = |runner: &Self| runner.acked >= seq || !runner.line.is_open() || runner.order.is_some();
        if let Wish::Stop = self.listen_until(Instant::now() + self.linger, is_over).await {
            return Wish::Stop;
        }
        let idle = if self.line.is_open() { self.theatre.act.idle } else { Duration::ZERO };
        self.listen_until(Instant::now() + idle, |runner| runner.order.is_some()).await
    }

    /// Hears what is said until `end`, or until `is_over`, or until it is to stop.
    async fn listen_until(&mut self, end: Instant, is_over: impl Fn(&Self) -> bool) -> Wish {
        while !is_over(self) {
            tokio::select! {
                () = sleep_until(end.into()) => break,
                said = self.line.hear() => if let Wish::Stop = self.take(said) { return Wish::Stop },
            }
        }
        Wish::None
    }

    /// Begins another run: the executions before are the old run's, but their number goes on.
    fn take_up(&mut self, order: &RunOrder) -> Part {
        self.record = Record {
            run: order.run,
            attempt: order.attempt,
            state: NodeState::Running.as_str().to_owned(),
            serial: 0,
            exit_code: None,
            ..self.record.clone()
        };
        self.history.clear();
        self.history_limit = order.history_limit;
        Part { first_serial: order.first_serial, remaining: Some(order.remaining) }
    }

    fn begin(&mut self, serial: u64) {
        self.record.executions += 1;
        self.record.serial = serial;
        self.record.exit_code = None;
        self.begun = Timestamp::now();
        self.publish();
    }

    fn finish(&mut self) {
        let now = Instant::now();
        self.record.exit_code = Some(0);
        self.history.push_back(execution(&self.record, self.begun, &self.pod.node));
        while self.history.len() > self.history_limit {
            self.history.pop_front();
        }
        let seq = self.publish();
        self.unacked.push_back((seq, now));
        let Record { run, attempt, .. } = self.record;
        self.theatre.ledger.ended(&self.pod.object_uid, &self.pod.node, Ended { run, attempt, seq, at: now });
    }

    fn end(&mut self, state: NodeState) -> u64 {
        self.record.state = state.as_str().to_owned();
        self.publish()
    }

    fn stop(mut self) -> Ending {
        self.end(NodeState::Stopped);
        self.ending(6)
    }

    fn ending(&self, exit_code: i32) -> Ending {
        Ending { exit_code, message: self.snapshot().encode(MAX_MESSAGE_BYTES) }
    }

    fn publish(&mut self) -> u64 {
        self.record.seq += 1;
        self.line.outbox.send_replace(Some(Arc::new(self.snapshot())));
        self.record.seq
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { record: self.record.clone(), history: self.history.iter().cloned().collect() }
    }

    /// Takes in what the session said.
    fn take(&mut self, said: SessionEvent) -> Wish {
        let counts = &self.theatre.counts;
        let up = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::Relaxed);
        match said {
            SessionEvent::Connected => {
                self.connected = true;
                up(&counts.connected);
                up(&counts.connects);
            }
            SessionEvent::Disconnected { why } => {
                self.disconnect();
                up(&counts.disconnects);
                counts.note(why);
            }
            SessionEvent::Postponed { reason } => {
                self.disconnect();
                up(&counts.postponed);
                counts.note(reason);
            }
            SessionEvent::Refused { reason } => {
                self.disconnect();
                // The last word to a runner whose answers are stored is one too, and no harm.
                if !self.unacked.is_empty() {
                    up(&counts.refused);
                    counts.note(reason);
                }
            }
            SessionEvent::Acked(ack) => {
                self.acked = self.acked.max(ack.seq);
                while self.unacked.front().is_some_and(|(seq, _)| *seq <= ack.seq) {
                    self.unacked.pop_front().inspect(|(_, at)| self.theatre.ledger.acked(at.elapsed()));
                }
            }
            SessionEvent::Ignored { what } => counts.note(what),
            SessionEvent::Stop { .. } => return Wish::Stop,
            // Nobody pauses a benchmark.
            SessionEvent::HandOver { reason } => counts.note(reason),
            // One that is not newer is a repetition.
            SessionEvent::Run(order) if order.run > self.record.run => self.order = Some(order),
            SessionEvent::Run(_) => {}
        }
        Wish::None
    }

    fn disconnect(&mut self) {
        if std::mem::take(&mut self.connected) {
            self.theatre.counts.connected.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// An execution with one of ten answers.
fn execution(record: &Record, begun: Timestamp, node: &str) -> Execution {
    let answer = share(node) % u32::from(ANSWERS);
    let stdout = format!(
        "kernel 6.1.0-{answer}-amd64, 16 processors, 64 GiB of memory, 3 disks, uptime over a week\n"
    );
    let mut whole = StreamDigest::default();
    whole.update(stdout.as_bytes());
    Execution {
        run: record.run,
        attempt: record.attempt,
        serial: record.serial,
        start_time: Some(Time(begun)),
        duration_millis: u64::try_from(Timestamp::now().duration_since(begun).as_millis()).ok(),
        exit_code: Some(0),
        digest: answer_digest("0", &whole, &StreamDigest::default()),
        stdout_bytes: Some(whole.bytes()),
        stderr_bytes: Some(0),
        stdout,
        ..Execution::default()
    }
}

#[cfg(test)]
mod tests;
