//! How many connections there may be, and who makes room when there are too many: the oldest of which nobody knows yet
//! whose it is. So whoever floods the door pushes out its own connections, and a runner that comes gets its turn.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::AbortHandle,
    time::sleep,
};

/// Handshakes at the same time. One that has begun can hold as much as its client sends: 64 KiB at most.
const MOST_HANDSHAKES: usize = 256;
/// How long a handshake may take while others wait for its place.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// It is served.
    Welcome,
    /// It is served, and the oldest that nobody knows is not any more.
    InsteadOfOldest,
    /// Everybody here is known: it is closed.
    Full,
}

/// All connections.
pub(super) struct Lobby {
    most: usize,
    guests: Arc<Mutex<Guests>>,
}

#[derive(Default)]
struct Guests {
    count: usize,
    last: u64,
    /// Those that nobody knows yet, the oldest first.
    unknown: BTreeMap<u64, AbortHandle>,
}

/// A connection that is served, until it is dropped.
pub(super) struct Guest {
    number: u64,
    guests: Arc<Mutex<Guests>>,
}

fn lock(guests: &Mutex<Guests>) -> MutexGuard<'_, Guests> {
    guests.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lobby {
    pub(super) fn new(most: usize) -> Self {
        Self { most, guests: Arc::default() }
    }

    /// Serves a connection in a task of its own.
    pub(super) fn receive<F, S>(&self, serve: S) -> Received
    where
        S: FnOnce(Guest) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut guests = lock(&self.guests);
        let mut received = Received::Welcome;
        if guests.count >= self.most {
            let Some((_, oldest)) = guests.unknown.pop_first() else { return Received::Full };
            oldest.abort();
            received = Received::InsteadOfOldest;
        }
        guests.count += 1;
        guests.last += 1;
        let number = guests.last;
        let guest = Guest { number, guests: Arc::clone(&self.guests) };
        // Its end waits for the lock, so it cannot leave before it is entered.
        let task = tokio::spawn(serve(guest));
        guests.unknown.insert(number, task.abort_handle());
        received
    }
}

impl Guest {
    /// No two connections of this process have the same.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// It is known whose it is: it makes room for nobody any more.
    pub(super) fn is_known(&self) {
        lock(&self.guests).unknown.remove(&self.number);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = lock(&self.guests);
        guests.unknown.remove(&self.number);
        guests.count -= 1;
    }
}

/// Handshakes that are under way.
pub(super) struct Handshakes {
    places: Semaphore,
    waiting: AtomicUsize,
}

/// The right to a handshake, until it is dropped.
pub(super) struct Place<'a> {
    handshakes: &'a Handshakes,
    _permit: Option<SemaphorePermit<'a>>,
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { places: Semaphore::new(MOST_HANDSHAKES), waiting: AtomicUsize::new(0) }
    }
}

impl Handshakes {
    /// Waits for a place.
    pub(super) async fn place(&self) -> Place<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        // It is never closed.
        let permit = self.places.acquire().await.ok();
        drop(waiting);
        Place { handshakes: self, _permit: permit }
    }
}

impl Place<'_> {
    /// Waits until the place was held long enough and others wait for one.
    pub(super) async fn is_wanted(&self) {
        loop {
            sleep(PATIENCE).await;
            if self.handshakes.waiting.load(Ordering::Relaxed) > 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::mpsc;

    use super::*;

    fn count(lobby: &Lobby) -> usize {
        lock(&lobby.guests).count
    }

    #[tokio::test]
    async fn oldest_unknown_makes_room_and_those_that_are_known_stay() {
        let lobby = Lobby::new(3);
        let (sender, mut entered) = mpsc::unbounded_channel();
        let receive = |known: bool| {
            let sender = sender.clone();
            lobby.receive(async move |guest: Guest| {
                if known {
                    guest.is_known();
                }
                let _told = sender.send(guest.number());
                // Dropped with the task.
                let _sender = sender;
                pending::<()>().await;
            })
        };
        for (known, expected) in [
            (true, Received::Welcome),
            (false, Received::Welcome),
            (false, Received::Welcome),
            (true, Received::InsteadOfOldest),
            (true, Received::InsteadOfOldest),
        ] {
            assert_eq!(receive(known), expected);
            entered.recv().await.unwrap();
        }
        assert_eq!(receive(false), Received::Full);
        while count(&lobby) > 3 {
            tokio::task::yield_now().await;
        }
        let unknown: Vec<u64> = lock(&lobby.guests).unknown.keys().copied().collect();
        assert_eq!(unknown, [0_u64; 0]);
    }

    #[tokio::test]
    async fn guest_that_leaves_at_once_is_forgotten() {
        let lobby = Lobby::new(1);
        for _ in 0..100 {
            assert_eq!(lobby.receive(async |_: Guest| ()), Received::Welcome);
            while count(&lobby) > 0 {
                tokio::task::yield_now().await;
            }
        }
        assert!(lock(&lobby.guests).unknown.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_handshakes_give_their_places_away_when_others_wait() {
        let handshakes = Handshakes::default();
        let mut held = Vec::new();
        for _ in 0..MOST_HANDSHAKES {
            held.push(handshakes.place().await);
        }
        let alone = tokio::time::timeout(Duration::from_mins(1), held[0].is_wanted()).await;
        assert!(alone.is_err(), "nobody waits");
        let slow = held.pop().unwrap();
        let give_up = async move { slow.is_wanted().await };
        let ((), next) = tokio::join!(give_up, handshakes.place());
        drop(next);
        assert_eq!(handshakes.waiting.load(Ordering::Relaxed), 0);
    }
}
