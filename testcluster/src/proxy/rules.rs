//! What is to happen to which requests or frames: matched in the order they were made, counted, and lifted when the handle
//! is dropped.

use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};

/// Which of the matches of a rule it is for, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    first: u64,
    last: u64,
}

impl Turn {
    /// Only one.
    pub fn nth(number: u64) -> Self {
        Self { first: number, last: number }
    }

    /// So many, beginning with the first.
    pub fn first(count: u64) -> Self {
        Self { first: 1, last: count }
    }

    /// Every one.
    pub fn every() -> Self {
        Self { first: 1, last: u64::MAX }
    }

    fn includes(self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

/// Where something stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before it is passed on.
    Before,
    /// A request: when its answer has arrived here, and not yet where it was asked for. A frame: when it was passed on.
    After,
}

/// What is done about a match.
pub(super) enum Order<T, F> {
    /// A fault.
    Fault(F),
    /// Everything waits until the test says how to go on.
    Stop(Moment, mpsc::UnboundedSender<Stopped<T>>),
}

impl<T, F: Clone> Clone for Order<T, F> {
    fn clone(&self) -> Self {
        match self {
            Self::Fault(fault) => Self::Fault(fault.clone()),
            Self::Stop(moment, stopped) => Self::Stop(*moment, stopped.clone()),
        }
    }
}

type Wanted<T> = Box<dyn Fn(&T) -> bool + Send>;

struct Rule<T, F> {
    id: u64,
    wanted: Wanted<T>,
    turn: Turn,
    matches: u64,
    hits: Arc<AtomicU64>,
    order: Order<T, F>,
}

/// The rules of a proxy.
pub(super) struct Rules<T, F> {
    list: Mutex<Vec<Rule<T, F>>>,
    next: AtomicU64,
}

impl<T, F> Default for Rules<T, F> {
    fn default() -> Self {
        Self { list: Mutex::default(), next: AtomicU64::default() }
    }
}

impl<T: Clone, F: Clone> Rules<T, F> {
    fn list(&self) -> MutexGuard<'_, Vec<Rule<T, F>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done about this one: every rule counts it, the first whose turn it is decides.
    pub(super) fn order_for(&self, subject: &T) -> Option<Order<T, F>> {
        let mut decided = None;
        for rule in self.list().iter_mut().filter(|rule| (rule.wanted)(subject)) {
            rule.matches += 1;
            if decided.is_none() && rule.turn.includes(rule.matches) {
                rule.hits.fetch_add(1, Ordering::Relaxed);
                decided = Some(rule.order.clone());
            }
        }
        decided
    }

    fn add(
        self: &Arc<Self>,
        wanted: impl Fn(&T) -> bool + Send + 'static,
        turn: Turn,
        order: Order<T, F>,
    ) -> Injection
    where
        T: Send + 'static,
        F: Send + 'static,
    {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let hits = Arc::new(AtomicU64::default());
        let rule = Rule { id, wanted: Box::new(wanted), turn, matches: 0, hits: hits.clone(), order };
        self.list().push(rule);
        let rules = self.clone();
        Injection { hits, lift: Some(Box::new(move || rules.list().retain(|rule| rule.id != id))) }
    }

    /// Adds a fault.
    pub(super) fn inject(
        self: &Arc<Self>,
        wanted: impl Fn(&T) -> bool + Send + 'static,
        turn: Turn,
        fault: F,
    ) -> Injection
    where
        T: Send + 'static,
        F: Send + 'static,
    {
        self.add(wanted, turn, Order::Fault(fault))
    }

    /// Adds a place to stop.
    pub(super) fn stop(
        self: &Arc<Self>,
        wanted: impl Fn(&T) -> bool + Send + 'static,
        turn: Turn,
        moment: Moment,
    ) -> Stop<T>
    where
        T: Send + 'static,
        F: Send + 'static,
    {
        let (sender, reached) = mpsc::unbounded_channel();
        Stop { injection: self.add(wanted, turn, Order::Stop(moment, sender)), reached }
    }
}

/// A fault that is injected until this is dropped.
#[must_use = "the fault is lifted when this is dropped"]
pub struct Injection {
    hits: Arc<AtomicU64>,
    lift: Option<Box<dyn FnOnce() + Send>>,
}

impl Injection {
    /// How often it struck.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Ends it, and says how often it struck.
    pub fn lift(self) -> u64 {
        self.hits()
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        if let Some(lift) = self.lift.take() {
            lift();
        }
    }
}

/// A place where things stop until this is dropped.
#[must_use = "nothing stops once this is dropped"]
pub struct Stop<T> {
    injection: Injection,
    reached: mpsc::UnboundedReceiver<Stopped<T>>,
}

impl<T: Debug> Stop<T> {
    /// Waits until something stops here.
    pub async fn reached(&mut self, deadline: Duration) -> Result<Stopped<T>> {
        match tokio::time::timeout(deadline, self.reached.recv()).await {
            Ok(Some(stopped)) => Ok(stopped),
            Ok(None) | Err(_) => Err(Error::Wait {
                what: "a request or frame to stop at".into(),
                deadline,
                seen: "none came by".into(),
            }),
        }
    }

    /// How often something stopped here.
    pub fn hits(&self) -> u64 {
        self.injection.hits()
    }
}

/// Something that waits here. Dropped, it goes no further: its connection breaks.
#[derive(Debug)]
#[must_use = "it goes no further once this is dropped"]
pub struct Stopped<T> {
    /// What it is.
    pub what: T,
    go_on: oneshot::Sender<()>,
}

impl<T> Stopped<T> {
    /// Lets it go on as if nothing had been.
    pub fn go_on(self) {
        // Whoever waited may have been killed meanwhile.
        let _ = self.go_on.send(());
    }
}

/// Stops, and says whether to go on.
pub(super) async fn stop_here<T: Clone>(what: &T, test: &mpsc::UnboundedSender<Stopped<T>>) -> bool {
    let (go_on, answer) = oneshot::channel();
    if test.send(Stopped { what: what.clone(), go_on }).is_err() {
        // The test has dropped its end: nobody wants a stop any more.
        return true;
    }
    answer.await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault<T, F>(order: Option<Order<T, F>>) -> Option<F> {
        match order {
            Some(Order::Fault(fault)) => Some(fault),
            Some(Order::Stop(..)) | None => None,
        }
    }

    #[test]
    fn a_rule_strikes_in_its_turn_and_says_how_often() {
        let rules = Arc::new(Rules::<u32, &str>::default());
        let even = rules.inject(|number| number % 2 == 0, Turn { first: 2, last: 3 }, "even");
        let all = rules.inject(|_| true, Turn::every(), "all");
        let seen: Vec<_> = (0..=8).map(|number| fault(rules.order_for(&number)).unwrap()).collect();
        assert_eq!(seen, ["all", "all", "even", "all", "even", "all", "all", "all", "all"]);
        assert_eq!((even.hits(), all.lift()), (2, 7));
        assert!(rules.order_for(&1).is_none(), "a lifted rule is gone");
    }

    #[tokio::test]
    async fn what_stopped_goes_on_or_not_as_the_test_says() {
        let rules = Arc::new(Rules::<u32, ()>::default());
        let mut stop = rules.stop(|_| true, Turn::every(), Moment::Before);
        let pass = async |number| match rules.order_for(&number) {
            Some(Order::Stop(Moment::Before, test)) => stop_here(&number, &test).await,
            Some(_) | None => true,
        };
        let (went_on, ()) = tokio::join!(pass(1), async {
            stop.reached(Duration::from_secs(5)).await.unwrap().go_on();
        });
        assert!(went_on);
        let (went_on, what) =
            tokio::join!(pass(2), async { stop.reached(Duration::from_secs(5)).await.unwrap().what });
        assert!(!went_on);
        assert_eq!((what, stop.hits()), (2, 2));
        let error = stop.reached(Duration::from_millis(20)).await.unwrap_err().to_string();
        assert!(error.contains("none came by"), "{error}");
    }
}
