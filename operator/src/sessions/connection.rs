//! The life of one session after the upgrade: hello, then snapshots one way and acknowledgements the other, until one side
//! has had enough.

use std::{sync::Arc, time::Duration};

use scriptrunner_api::session::FromRunner;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};

use super::{
    Door,
    line::{End, Line, Next},
    refusal::Refusal,
    wire::{Error, Incoming, Wire},
};
use crate::metrics::Metrics;

/// A runner says hello at once.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Bytes per second that a runner may send for long; it is read slower if it sends more.
const BYTES_PER_SECOND: u32 = 256 * 1024;
/// Bytes that it may send without a pause: every answer that it keeps, after an outage.
const BURST_BYTES: u32 = 2 * 1024 * 1024;
/// What the smallest message counts: its work is not in its length.
const LEAST_BYTES: u32 = 512;

/// How a session ended.
enum Parting {
    /// It broke, or what came makes no sense.
    Wire(Error),
    /// The other side said goodbye.
    Theirs,
    /// This side has had enough.
    Ours(End),
}

impl From<Error> for Parting {
    fn from(error: Error) -> Self {
        Self::Wire(error)
    }
}

impl From<Refusal> for Parting {
    fn from(refusal: Refusal) -> Self {
        Self::Ours(End::Refused(refusal))
    }
}

/// The place of a connection in the table. Left whatever happens, also when the task is dropped.
struct Place<'a> {
    door: &'a Door,
    line: Arc<Line>,
}

impl<'a> Place<'a> {
    fn take(door: &'a Door, line: Arc<Line>) -> Self {
        door.sessions().admit(&line);
        Self { door, line }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.door.sessions().leave(&self.line) {
            self.door.look_at(self.line.speaker());
        }
    }
}

/// Holds the session until it ends. The speaker is known; a connection of it that is newer ends this one.
pub(super) async fn hold<S>(door: &Door, mut wire: Wire<S>, line: Arc<Line>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let place = Place::take(door, Arc::clone(&line));
    let parting = match greet(door, &mut wire, &line).await {
        Ok(()) => talk(door, &mut wire, &line).await,
        Err(parting) => parting,
    };
    drop(place);
    let word = match &parting {
        Parting::Wire(error) => error.word(),
        Parting::Theirs => "goodbye",
        Parting::Ours(end) => end.word(),
    };
    Metrics::count(&door.metrics().session_ends, word);
    let speaker = line.speaker();
    tracing::debug!(
        namespace = speaker.namespace,
        pod = speaker.pod,
        node = speaker.node,
        word,
        "session ended"
    );
    let goodbye = async {
        if let Parting::Ours(end) = &parting
            && let Some(frame) = end.frame()
        {
            wire.say(&frame.encode()).await?;
        }
        match parting {
            Parting::Wire(Error::Io(_) | Error::Closed | Error::NotTaken) => Ok(()),
            Parting::Wire(_) | Parting::Theirs | Parting::Ours(_) => wire.close().await,
        }
    };
    if let Err(error) = goodbye.await {
        tracing::debug!(%error, "nobody heard the goodbye");
    }
}

/// Waits for hello; from then on the connection speaks for its pod.
async fn greet<S>(door: &Door, wire: &mut Wire<S>, line: &Arc<Line>) -> Result<(), Parting>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = timeout(HELLO_TIME, async {
        loop {
            tokio::select! {
                incoming = wire.next() => match incoming? {
                    Incoming::Text(text) => match decode(&text)? {
                        FromRunner::Hello(hello) => return Ok(hello),
                        FromRunner::Snapshot(_) => return Err(protocol("the first frame is not hello").into()),
                        FromRunner::Unknown => {}
                    },
                    Incoming::Ping(payload) => wire.pong(&payload).await?,
                    Incoming::Pong => {}
                    Incoming::Close => return Err(Parting::Theirs),
                },
                next = line.next() => if let Next::End(end) = next { return Err(Parting::Ours(end)) },
            }
        }
    });
    let hello = hello.await.unwrap_or_else(|_| {
        Err(Refusal::later("no_hello", Duration::from_secs(1), "no hello came").into())
    })?;
    let speaker = line.speaker();
    tracing::debug!(
        namespace = speaker.namespace,
        pod = speaker.pod,
        node = speaker.node,
        version = hello.version,
        "session begins"
    );
    if !door.sessions().seat(line) {
        return Err(Parting::Ours(End::Replaced));
    }
    if let Some(news) = door.credentials().news() {
        line.trust(news);
    }
    door.look_at(speaker);
    Ok(())
}

async fn talk<S>(door: &Door, wire: &mut Wire<S>, line: &Arc<Line>) -> Parting
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pace = Pace::new(Instant::now());
    loop {
        let pause = pace.pause(Instant::now());
        let outcome = tokio::select! {
            next = line.next() => match next {
                Next::Say(message) => wire.say(&message).await.map_err(Parting::Wire),
                Next::Ping => wire.ping().await.map_err(Parting::Wire),
                Next::End(end) => Err(Parting::Ours(end)),
            },
            () = sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => Ok(()),
            incoming = wire.next(), if pause.is_none() => match incoming {
                Ok(incoming) => hear(door, wire, line, &mut pace, incoming).await,
                Err(error) => Err(Parting::Wire(error)),
            },
        };
        if let Err(parting) = outcome {
            return parting;
        }
    }
}

async fn hear<S>(
    door: &Door,
    wire: &mut Wire<S>,
    line: &Arc<Line>,
    pace: &mut Pace,
    incoming: Incoming,
) -> Result<(), Parting>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    line.hear();
    let text = match incoming {
        Incoming::Text(text) => text,
        Incoming::Ping(payload) => {
            pace.took(0, Instant::now());
            return Ok(wire.pong(&payload).await?);
        }
        Incoming::Pong => {
            pace.took(0, Instant::now());
            return Ok(());
        }
        Incoming::Close => return Err(Parting::Theirs),
    };
    pace.took(text.len(), Instant::now());
    match decode(&text)? {
        FromRunner::Snapshot(part) => {
            let (run, attempt) = (part.record.run, part.record.attempt);
            if !line.speaker().may_speak_of(run, attempt) {
                let reason = "the snapshot is of a run that the pod was not made for";
                return Err(Refusal::never(http::StatusCode::FORBIDDEN, "foreign_run", reason).into());
            }
            Metrics::count(&door.metrics().session_messages, "snapshot");
            if door.sessions().bring(line, part)? {
                door.look_at(line.speaker());
            }
        }
        FromRunner::Hello(_) => return Err(protocol("a second hello").into()),
        FromRunner::Unknown => Metrics::count(&door.metrics().session_messages, "unknown"),
    }
    Ok(())
}

fn decode(text: &str) -> Result<FromRunner, Parting> {
    FromRunner::decode(text).map_err(|error| protocol(&error.to_string()).into())
}

fn protocol(reason: &str) -> Refusal {
    Refusal::never(http::StatusCode::BAD_REQUEST, "frame", reason)
}

/// How fast a runner is read: one that floods waits for itself, not others for it.
struct Pace {
    /// When everything that was taken is paid for.
    paid: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { paid: now }
    }

    fn took(&mut self, bytes: usize, now: Instant) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(LEAST_BYTES);
        self.paid = self.paid.max(now) + Duration::from_secs(1) * bytes / BYTES_PER_SECOND;
    }

    /// Until when nothing is to be read.
    fn pause(&self, now: Instant) -> Option<Instant> {
        let burst = Duration::from_secs(1) * BURST_BYTES / BYTES_PER_SECOND;
        self.paid.checked_sub(burst).filter(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let long = 64 * 1024;
        for _ in 0..32 {
            assert_eq!(pace.pause(start), None);
            pace.took(long, start);
        }
        assert_eq!(pace.pause(start), None, "2 MiB at once");
        pace.took(long, start);
        assert_eq!(pace.pause(start), Some(start + Duration::from_millis(250)));
        assert_eq!(pace.pause(start + Duration::from_millis(251)), None);
    }

    #[test]
    fn many_small_messages_count_too() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let count = (1..100_000).find(|_| {
            pace.took(1, start);
            pace.pause(start).is_some()
        });
        assert_eq!(count, Some(4097));
    }
}
