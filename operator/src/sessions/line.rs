//! One connection as the rest of the operator sees it: who speaks, and what is still to be said. What is to be said waits
//! in places, not in a queue: the newest of each kind counts, so a runner that does not read costs no more than one that
//! does.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::session::{Ack, RunOrder, ToRunner};
use tokio::sync::Notify;

use super::{identity::Speaker, refusal::Refusal};

/// Why a session ends from this side.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// A newer connection speaks for the pod.
    Replaced,
    /// Nothing was heard for too long.
    Silent,
    /// With a last frame.
    Refused(Refusal),
}

impl End {
    /// For the metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Silent => "silent",
            Self::Refused(refusal) => refusal.word,
        }
    }

    /// The last frame. Nothing is said to somebody who was replaced: most often he is not there any more.
    pub(super) fn frame(&self) -> Option<&ToRunner> {
        match self {
            Self::Replaced | Self::Silent => None,
            Self::Refused(refusal) => Some(&refusal.frame),
        }
    }
}

/// A run to be sent. Thousands wait at the same time, so they share what is large.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Without its texts.
    pub(super) numbers: RunOrder,
    /// The pinned document.
    pub(super) spec: Arc<str>,
    /// The script.
    pub(super) script: Arc<str>,
}

impl Order {
    fn message(self) -> String {
        let Self { numbers, spec, script } = self;
        let order =
            RunOrder { spec: spec.as_ref().to_owned(), script: script.as_ref().to_owned(), ..numbers };
        ToRunner::Run(Box::new(order)).encode()
    }
}

/// What is to be done next on a connection.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Next {
    /// Say this.
    Say(String),
    /// Ask whether somebody is there.
    Ping,
    /// Say goodbye.
    End(End),
}

#[derive(Default)]
struct Places {
    ack: Option<Ack>,
    /// The newest acknowledgement that was handed out.
    said: Option<Ack>,
    authorities: Option<Arc<Vec<String>>>,
    stop: Option<String>,
    /// Why to hand over, until it is said.
    hand_over: Option<String>,
    /// Whether that was said.
    handed_over: bool,
    order: Option<Order>,
    /// The newest run that was handed out.
    ordered: u64,
    ping: bool,
    end: Option<End>,
}

/// One connection.
pub(super) struct Line {
    id: u64,
    speaker: Arc<Speaker>,
    /// When it ends because of its token.
    token_ends: Timestamp,
    began: Instant,
    /// Milliseconds after `began` at which something whole was last heard.
    heard: AtomicU64,
    /// How often its pod was seen to have ended.
    overtime: AtomicU32,
    places: Mutex<Places>,
    filled: Notify,
}

impl Line {
    pub(super) fn new(id: u64, speaker: Arc<Speaker>, now: Timestamp) -> Self {
        Self {
            id,
            token_ends: token_ends(&speaker, id, now),
            speaker,
            began: Instant::now(),
            heard: AtomicU64::new(0),
            overtime: AtomicU32::new(0),
            places: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// No two connections of this process have the same.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Who speaks.
    pub(super) fn speaker(&self) -> &Arc<Speaker> {
        &self.speaker
    }

    /// When it ends because of its token.
    pub(super) fn token_ends(&self) -> Timestamp {
        self.token_ends
    }

    /// Something whole was heard now.
    pub(super) fn hear(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(millis, Ordering::Relaxed);
    }

    /// How long nothing was heard.
    pub(super) fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }

    /// Its pod is seen to have ended: how often that was so, now included.
    pub(super) fn outlives_its_pod(&self) -> u32 {
        self.overtime.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Everything up to this snapshot is stored. Said once.
    pub(super) fn ack(&self, ack: &Ack) {
        if is_newer(ack, self.places().said.as_ref()) {
            self.ack_again(ack);
        }
    }

    /// The same, also if it was said before: the runner asked.
    pub(super) fn ack_again(&self, ack: &Ack) {
        self.fill(|places| {
            if is_newer(ack, places.ack.as_ref()) {
                places.ack = Some(ack.clone());
            }
        });
    }

    /// Trust these authorities.
    pub(super) fn trust(&self, authorities: Arc<Vec<String>>) {
        self.fill(|places| places.authorities = Some(authorities));
    }

    /// End now.
    pub(super) fn stop(&self, reason: &str) {
        self.fill(|places| places.stop = Some(reason.to_owned()));
    }

    /// End after the current execution. Said once on a connection.
    pub(super) fn hand_over(&self, reason: &str) {
        self.fill(|places| {
            if !places.handed_over {
                places.hand_over = Some(reason.to_owned());
            }
        });
    }

    /// Run again. Said once on a connection: as long as that lasts nothing is lost.
    pub(super) fn order(&self, order: Order) {
        self.fill(|places| {
            if places.ordered < order.numbers.run {
                places.order = Some(order);
            }
        });
    }

    /// Ask whether somebody is there.
    pub(super) fn ping(&self) {
        self.fill(|places| places.ping = true);
    }

    /// Say goodbye, after everything else is said. The first reason counts.
    pub(super) fn end(&self, end: End) {
        self.fill(|places| {
            places.end.get_or_insert(end);
        });
    }

    fn fill(&self, change: impl FnOnce(&mut Places)) {
        change(&mut self.places());
        self.filled.notify_one();
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to be done. Nothing is lost if the waiting is given up.
    pub(super) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut places = self.places();
        if let Some(ack) = places.ack.take() {
            places.said = Some(ack.clone());
            return Some(Next::Say(ToRunner::Ack(ack).encode()));
        }
        if let Some(authorities) = places.authorities.take() {
            let authorities = authorities.as_ref().clone();
            return Some(Next::Say(ToRunner::NewCa { authorities }.encode()));
        }
        if let Some(reason) = places.stop.take() {
            return Some(Next::Say(ToRunner::Stop { reason }.encode()));
        }
        if let Some(reason) = places.hand_over.take() {
            places.handed_over = true;
            return Some(Next::Say(ToRunner::HandOver { reason }.encode()));
        }
        if let Some(order) = places.order.take() {
            places.ordered = order.numbers.run;
            drop(places);
            return Some(Next::Say(order.message()));
        }
        if std::mem::take(&mut places.ping) {
            return Some(Next::Ping);
        }
        places.end.take().map(Next::End)
    }
}

/// The pods of a run are made in the same moment, and so are their tokens. Their sessions end spread over the time in which
/// there is a fresh token already, so that not all runners come again at once.
fn token_ends(speaker: &Speaker, id: u64, now: Timestamp) -> Timestamp {
    let Speaker { renewed, expires, .. } = speaker;
    if now >= *renewed {
        return *expires;
    }
    // Consecutive numbers are spread evenly.
    let share = i32::try_from(id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54).unwrap_or_default();
    renewed.saturating_add(expires.duration_since(*renewed) * share / 1024).unwrap_or(*expires)
}

fn is_newer(ack: &Ack, known: Option<&Ack>) -> bool {
    known.is_none_or(|known| known.boot != ack.boot || known.seq < ack.seq)
}

/// An order of a run, as tests give it.
#[cfg(test)]
pub(super) fn order_of(run: u64) -> Order {
    let numbers = RunOrder {
        run,
        attempt: 1,
        first_serial: 1,
        remaining: 1,
        spec: String::new(),
        script: String::new(),
        history_limit: 5,
        stdout_limit_bytes: 1,
        stderr_limit_bytes: 1,
        grace_seconds: 1,
        execution_deadline_seconds: None,
    };
    Order { numbers, spec: "{}".into(), script: "true".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaker() -> Arc<Speaker> {
        Arc::new(crate::sessions::tests::speaker("pod"))
    }

    fn ack(boot: &str, seq: u64) -> Ack {
        Ack { boot: boot.to_owned(), seq }
    }

    fn said(line: &Line) -> Option<ToRunner> {
        match line.take()? {
            Next::Say(message) => Some(ToRunner::decode(&message).unwrap()),
            other @ (Next::Ping | Next::End(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_many_acknowledgements_the_newest_is_said_and_said_once() {
        let line = Line::new(1, speaker(), Timestamp::MIN);
        for seq in [3, 9, 4] {
            line.ack(&ack("a", seq));
        }
        assert_eq!(said(&line), Some(ToRunner::Ack(ack("a", 9))));
        line.ack(&ack("a", 9));
        line.ack(&ack("a", 8));
        assert_eq!(line.take(), None);
        line.ack_again(&ack("a", 9));
        assert_eq!(said(&line), Some(ToRunner::Ack(ack("a", 9))), "the runner has not heard it");
        line.ack(&ack("b", 1));
        assert_eq!(said(&line), Some(ToRunner::Ack(ack("b", 1))));
    }

    #[test]
    fn what_is_to_be_said_does_not_pile_up_and_the_end_comes_last() {
        let line = Line::new(1, speaker(), Timestamp::MIN);
        line.end(End::Silent);
        line.end(End::Replaced);
        for run in 1..100 {
            line.order(order_of(run));
            line.stop("twice");
            line.hand_over("once");
            line.ping();
            line.trust(Arc::new(vec![run.to_string()]));
            line.ack(&ack("a", run));
        }
        assert_eq!(said(&line), Some(ToRunner::Ack(ack("a", 99))));
        assert_eq!(said(&line), Some(ToRunner::NewCa { authorities: vec!["99".to_owned()] }));
        assert_eq!(said(&line), Some(ToRunner::Stop { reason: "twice".to_owned() }));
        assert_eq!(said(&line), Some(ToRunner::HandOver { reason: "once".to_owned() }));
        let order = RunOrder { spec: "{}".to_owned(), script: "true".to_owned(), ..order_of(99).numbers };
        assert_eq!(said(&line), Some(ToRunner::Run(Box::new(order))));
        assert_eq!(line.take(), Some(Next::Ping));
        assert_eq!(line.take(), Some(Next::End(End::Silent)), "the first reason counts");
        line.hand_over("again");
        assert_eq!(line.take(), None);
    }

    #[test]
    fn sessions_with_tokens_of_the_same_moment_end_one_by_one() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let speaker =
            Speaker { renewed: second(3_240), expires: second(3_600), ..speaker().as_ref().clone() };
        let mut ends: Vec<_> =
            (1..=5_000).map(|id| token_ends(&speaker, id, second(10)).as_second()).collect();
        ends.sort_unstable();
        assert!(ends[0] >= 3_240 && ends[4_999] < 3_600);
        let most = ends.chunk_by(|a, b| a == b).map(<[i64]>::len).max();
        assert!(most < Some(30), "{most:?} in one second");
        assert_eq!(
            token_ends(&speaker, 1, second(3_240)),
            second(3_600),
            "who comes again with the same token stays"
        );
    }

    #[tokio::test]
    async fn waiting_ends_when_something_is_to_be_said() {
        let line = Arc::new(Line::new(1, speaker(), Timestamp::MIN));
        let waiting = tokio::spawn({
            let line = Arc::clone(&line);
            async move { line.next().await }
        });
        line.ping();
        assert_eq!(waiting.await.unwrap(), Next::Ping);
    }
}
