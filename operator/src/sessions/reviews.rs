//! How often the API server is asked whose a token is: once at a time per pod, so many a second over all, and so many at
//! the same time. Whoever would wait too long is sent away and comes again.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until, timeout},
};

/// Questions at the same time.
const MOST_AT_ONCE: usize = 32;
/// Longest wait for a turn. A runner waits 20 s for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    /// The pod has a turn already.
    Pod,
    /// Too many wait.
    Everybody {
        /// When it may be better.
        wait: Duration,
    },
}

/// Gives turns.
pub(super) struct Reviews {
    between: Duration,
    next: Mutex<Instant>,
    at_once: Semaphore,
    pods: Mutex<HashSet<String>>,
}

/// The right to ask, until it is dropped.
pub(super) struct Turn<'a> {
    _one: SemaphorePermit<'a>,
    _pod: Pod<'a>,
}

/// A pod that has a turn or waits for it.
struct Pod<'a> {
    reviews: &'a Reviews,
    uid: String,
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        self.reviews.pods().remove(&self.uid);
    }
}

impl Reviews {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            between: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(Instant::now()),
            at_once: Semaphore::new(MOST_AT_ONCE),
            pods: Mutex::default(),
        }
    }

    fn pods(&self) -> MutexGuard<'_, HashSet<String>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no pod has a turn.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.pods().is_empty()
    }

    /// Waits for a turn for this pod.
    pub(super) async fn turn(&self, pod_uid: &str) -> Result<Turn<'_>, Busy> {
        if !self.pods().insert(pod_uid.to_owned()) {
            return Err(Busy::Pod);
        }
        let pod = Pod { reviews: self, uid: pod_uid.to_owned() };
        sleep_until(self.place()?).await;
        match timeout(LONGEST_WAIT, self.at_once.acquire()).await {
            Ok(Ok(one)) => Ok(Turn { _one: one, _pod: pod }),
            // It is never closed, so this is the time.
            Ok(Err(_)) | Err(_) => Err(Busy::Everybody { wait: LONGEST_WAIT }),
        }
    }

    /// When it is the turn of whoever comes now.
    fn place(&self) -> Result<Instant, Busy> {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (*next).max(now);
        let wait = place - now;
        if wait > LONGEST_WAIT {
            return Err(Busy::Everybody { wait });
        }
        *next = place + self.between;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_come_at_the_rate_and_in_order() {
        let reviews = Reviews::new(10);
        let start = Instant::now();
        for number in 0..20_u32 {
            drop(reviews.turn(&number.to_string()).await.unwrap());
            let expected = Duration::from_millis(100) * number;
            let waited = start.elapsed();
            assert!(
                waited >= expected && waited < expected + Duration::from_millis(20),
                "{number}: {waited:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pod_has_one_turn_at_a_time() {
        let reviews = Reviews::new(1000);
        let turn = reviews.turn("a").await.unwrap();
        assert_eq!(reviews.turn("a").await.err(), Some(Busy::Pod));
        drop(reviews.turn("b").await.unwrap());
        drop(turn);
        drop(reviews.turn("a").await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_would_wait_too_long_is_sent_away() {
        let reviews = Reviews::new(2);
        let waiting = (0..30).map(|number| reviews.turn(number.to_string().leak()));
        let turns = futures::future::join_all(waiting).await;
        let served = turns.iter().filter(|turn| turn.is_ok()).count();
        assert_eq!(served, 11, "one at once and one each half second for five seconds");
        let Some(Err(Busy::Everybody { wait })) = turns.last() else { panic!("the last one is sent away") };
        assert!(*wait > LONGEST_WAIT && *wait < LONGEST_WAIT + Duration::from_secs(1), "{wait:?}");
        drop(turns);
        assert!(reviews.pods().is_empty(), "nothing is kept of those who were sent away");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_answers_hold_back_no_more_than_a_few() {
        let reviews = Reviews::new(10_000);
        let turns = (0..MOST_AT_ONCE).map(|number| reviews.turn(number.to_string().leak()));
        let turns = futures::future::try_join_all(turns).await.unwrap();
        let began = Instant::now();
        assert_eq!(reviews.turn("more").await.err(), Some(Busy::Everybody { wait: LONGEST_WAIT }));
        assert!(began.elapsed() >= LONGEST_WAIT);
        drop(turns);
        drop(reviews.turn("more").await.unwrap());
    }
}
