//! Many calls of the API server at the same time: so many for one object, and no more than as many for all together.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout_at,
};

use crate::{context::Context, error::Error};

/// Most calls at the same time, for one object and for all.
pub const MOST_AT_ONCE: usize = 32;
/// The same for what nobody waits for.
pub const MOST_UNHURRIED: usize = 2;
/// The same beside the write of a large status.
pub const MOST_BESIDE_LARGE: usize = 4;
/// Bytes from which on a status is large. Of 1 MiB an API server takes more than a second of one processor.
pub const LARGE_BYTES: usize = 256 << 10;

/// How much was done in the time that there was.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything, or as much as the API server let pass.
    Done,
    /// Nothing is left but what other objects do now or have taken the room for: cleaning up, pods for the scheduler.
    Unhurried,
    /// The time was up before.
    Unfinished,
}

impl Progress {
    /// What two parts come to.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unfinished, _) | (_, Self::Unfinished) => Self::Unfinished,
            (Self::Unhurried, _) | (_, Self::Unhurried) => Self::Unhurried,
            (Self::Done, Self::Done) => Self::Done,
        }
    }
}

/// Turns of the writes to children, of all objects. An API server that has more before it than it can do makes everything
/// wait as long, the results of a hundred other objects too; so what it cannot do yet waits here, first come, first served.
pub struct Turns {
    all: Semaphore,
    cleaning: Semaphore,
    /// Writes of large statuses that are on their way.
    large: AtomicUsize,
    beside_large: Semaphore,
}

/// The right to a call, until it is dropped.
pub struct Turn<'a>(
    #[expect(dead_code, reason = "held until it is dropped")] [Option<SemaphorePermit<'a>>; 2],
);

/// The right of way of a large status, until it is dropped.
pub struct RightOfWay<'a>(&'a Turns);

impl Drop for RightOfWay<'_> {
    fn drop(&mut self) {
        self.0.large.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Semaphore::new(MOST_AT_ONCE),
            cleaning: Semaphore::new(1),
            large: AtomicUsize::new(0),
            beside_large: Semaphore::new(MOST_BESIDE_LARGE),
        }
    }
}

impl Turns {
    /// Waits for a turn; none if it has not come at `until`.
    pub async fn take(&self, until: Option<Instant>) -> Option<Turn<'_>> {
        let turn = async {
            // They are never closed.
            let one_of_all = self.all.acquire().await.ok()?;
            let is_beside_large = self.large.load(Ordering::Relaxed) > 0;
            let beside_large =
                if is_beside_large { Some(self.beside_large.acquire().await.ok()?) } else { None };
            Some(Turn([Some(one_of_all), beside_large]))
        };
        match until {
            Some(until) => timeout_at(until.into(), turn).await.ok()?,
            None => turn.await,
        }
    }

    /// The right to clean up, if no other object does: nobody waits for that.
    pub fn clean_up(&self) -> Option<Turn<'_>> {
        self.cleaning.try_acquire().ok().map(|cleaning| Turn([Some(cleaning), None]))
    }

    /// Leaves most of the API server to the write of a status, if it is large: thousands of results wait for it, and the next
    /// pods are made no sooner by an API server that does thirty things at a time.
    pub fn give_way(&self, status_bytes: usize) -> Option<RightOfWay<'_>> {
        (status_bytes >= LARGE_BYTES).then(|| {
            self.large.fetch_add(1, Ordering::Relaxed);
            RightOfWay(self)
        })
    }
}

/// Makes the calls, at most so many at the same time, each in its turn. After a failure none is begun any more, nor after
/// `until`, and those under way are waited for: nobody could say what a call has done that was given up.
pub async fn in_turn<F>(
    turns: &Turns,
    most: usize,
    calls: Vec<F>,
    until: Option<Instant>,
) -> Result<Progress, Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let taken = calls.into_iter().map(|call| async {
        match turns.take(until).await {
            Some(_turn) => call.await.map(|()| Progress::Done),
            None => Ok(Progress::Unfinished),
        }
    });
    window(taken, most, until).await
}

/// Makes the calls, many at the same time, whoever else does. After a failure none is begun any more.
pub async fn concurrently<F>(calls: Vec<F>) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let calls = calls.into_iter().map(|call| async { call.await.map(|()| Progress::Done) });
    window(calls, MOST_AT_ONCE, None).await.map(|_all| ())
}

async fn window<F>(
    mut calls: impl ExactSizeIterator<Item = F>,
    most: usize,
    until: Option<Instant>,
) -> Result<Progress, Error>
where
    F: Future<Output = Result<Progress, Error>>,
{
    let mut under_way = FuturesUnordered::new();
    let (mut outcome, mut progress) = (Ok(()), Progress::Done);
    loop {
        let is_time = until.is_none_or(|until| Context::instant() < until);
        while outcome.is_ok() && is_time && under_way.len() < most {
            let Some(call) = calls.next() else { break };
            under_way.push(call);
        }
        match under_way.next().await {
            Some(Ok(done)) => progress = progress.and(done),
            Some(Err(error)) => outcome = outcome.and(Err(error)),
            None => break,
        }
    }
    outcome.map(|()| if calls.len() > 0 { Progress::Unfinished } else { progress })
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, time::Duration};

    use super::*;

    fn failure() -> Error {
        Error::AwaitAnswer { doing: "test", seconds: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_is_kept_full() {
        let (running, most, done) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let (running, most, done) = (&running, &most, &done);
        // Every tenth takes ten times as long.
        let calls = (0..320).map(|number| async move {
            running.set(running.get() + 1);
            most.set(running.get().max(most.get()));
            tokio::time::sleep(Duration::from_secs(if number % 10 == 0 { 10 } else { 1 })).await;
            running.set(running.get() - 1);
            done.set(done.get() + 1);
            Ok(())
        });
        let begin = tokio::time::Instant::now();
        assert_eq!(
            in_turn(&Turns::default(), MOST_AT_ONCE, calls.collect(), None).await.unwrap(),
            Progress::Done
        );
        assert_eq!((most.get(), done.get()), (MOST_AT_ONCE, 320));
        // 608 seconds of work; batches that wait for their slowest would take 100.
        assert!(begin.elapsed() < Duration::from_secs(35), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_nothing_is_begun_and_everything_is_waited_for() {
        let (begun, done) = (Cell::new(0), Cell::new(0));
        let (begun, done) = (&begun, &done);
        let calls = (0..320).map(|number| async move {
            begun.set(begun.get() + 1);
            tokio::time::sleep(Duration::from_secs(if number == 7 { 1 } else { 2 })).await;
            done.set(done.get() + 1);
            if number == 7 { Err(failure()) } else { Ok(()) }
        });
        concurrently(calls.collect()).await.unwrap_err();
        assert_eq!((begun.get(), done.get()), (MOST_AT_ONCE, MOST_AT_ONCE));
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_time_is_up_nothing_is_begun_and_everything_is_waited_for() {
        let (begun, done) = (Cell::new(0), Cell::new(0));
        let (begun, done) = (&begun, &done);
        let calls = |count| {
            (0..count).map(move |_| async move {
                begun.set(begun.get() + 1);
                tokio::time::sleep(Duration::from_millis(400)).await;
                done.set(done.get() + 1);
                Ok(())
            })
        };
        let until = || Some(Context::instant() + Duration::from_secs(1));
        let turns = Turns::default();
        let make = |count| in_turn(&turns, MOST_AT_ONCE, calls(count).collect(), until());
        assert_eq!(make(320).await.unwrap(), Progress::Unfinished);
        assert_eq!((begun.get(), done.get()), (3 * MOST_AT_ONCE, 3 * MOST_AT_ONCE));
        assert_eq!(make(3 * MOST_AT_ONCE).await.unwrap(), Progress::Done);
    }

    /// Calls that take as long each, and how many are under way.
    fn calls(
        running: &Cell<usize>,
        most: &Cell<usize>,
        count: usize,
    ) -> Vec<impl Future<Output = Result<(), Error>>> {
        let call = async move || {
            running.set(running.get() + 1);
            most.set(running.get().max(most.get()));
            tokio::time::sleep(Duration::from_millis(400)).await;
            running.set(running.get() - 1);
            Ok(())
        };
        (0..count).map(|_| call()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_objects_together_ask_no_more_at_once_than_one_and_none_waits_beyond_its_time() {
        let (running, most) = (Cell::new(0), Cell::new(0));
        let turns = Turns::default();
        let until = Some(Context::instant() + Duration::from_secs(1));
        let begin = tokio::time::Instant::now();
        let objects = (0..100).map(|_| in_turn(&turns, MOST_AT_ONCE, calls(&running, &most, 50), until));
        let all = futures::future::join_all(objects).await;
        assert_eq!(most.get(), MOST_AT_ONCE);
        assert!(all.into_iter().all(|progress| progress.unwrap() == Progress::Unfinished));
        let seconds = begin.elapsed().as_secs_f64();
        assert!(seconds < 1.3, "one that has begun is waited for, one that waits is not: {seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn little_is_asked_beside_the_write_of_a_large_status() {
        let (running, most) = (Cell::new(0), Cell::new(0));
        let turns = Turns::default();
        assert!(turns.give_way(LARGE_BYTES - 1).is_none());
        let right_of_way = turns.give_way(LARGE_BYTES);
        let until = Some(Context::instant() + Duration::from_secs(1));
        let progress = in_turn(&turns, MOST_AT_ONCE, calls(&running, &most, 320), until).await;
        assert_eq!((progress.unwrap(), most.take()), (Progress::Unfinished, MOST_BESIDE_LARGE));
        drop(right_of_way);
        let progress = in_turn(&turns, MOST_AT_ONCE, calls(&running, &most, 320), None).await;
        assert_eq!((progress.unwrap(), most.take()), (Progress::Done, MOST_AT_ONCE));
    }

    #[test]
    fn one_object_cleans_up_at_a_time() {
        let turns = Turns::default();
        let turn = turns.clean_up();
        assert!(turn.is_some() && turns.clean_up().is_none());
        drop(turn);
        assert!(turns.clean_up().is_some());
    }
}
