//! Many calls of the API server at the same time, for one object.

use std::time::Instant;

use futures::{StreamExt, stream::FuturesUnordered};

use crate::{context::Context, error::Error};

/// Most calls for one object at the same time.
pub const MOST_AT_ONCE: usize = 32;

/// How much was done in the time that there was.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything, or as much as the API server let pass.
    Done,
    /// The time was up before.
    Unfinished,
}

/// Makes the calls, many at the same time. After a failure none is begun any more, nor after `until`, and those under way are
/// waited for: nobody could say what a call has done that was given up.
pub async fn concurrently<F>(calls: Vec<F>, until: Option<Instant>) -> Result<Progress, Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut calls = calls.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut outcome = Ok(());
    loop {
        let is_time = until.is_none_or(|until| Context::instant() < until);
        while outcome.is_ok() && is_time && under_way.len() < MOST_AT_ONCE {
            let Some(call) = calls.next() else { break };
            under_way.push(call);
        }
        match under_way.next().await {
            Some(done) => outcome = outcome.and(done),
            None => break,
        }
    }
    outcome.map(|()| if calls.len() > 0 { Progress::Unfinished } else { Progress::Done })
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
        assert_eq!(concurrently(calls.collect(), None).await.unwrap(), Progress::Done);
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
        concurrently(calls.collect(), None).await.unwrap_err();
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
        assert_eq!(concurrently(calls(320).collect(), until()).await.unwrap(), Progress::Unfinished);
        assert_eq!((begun.get(), done.get()), (3 * MOST_AT_ONCE, 3 * MOST_AT_ONCE));
        assert_eq!(concurrently(calls(3 * MOST_AT_ONCE).collect(), until()).await.unwrap(), Progress::Done);
    }
}
