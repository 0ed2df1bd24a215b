//! Where all simulated runners of a trial play: what they do, how they reach the operator, and what is counted of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::digest::sha256_hex;
use scriptrunner_runner::session::{self, Door, SessionConfig, Timing, Token};
use tokio::sync::{mpsc, watch};

use crate::{
    ledger::Ledger,
    orders::Orders,
    runner::{Ending, Line, Pod, Runner},
    token::{Bound, Signer},
};

/// How long the tokens are valid: the operator's default.
const TOKEN_SECONDS: i64 = 3600;

/// What all runners of a trial do.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    /// Whether they hold sessions, if their pods say so.
    pub(crate) sessions: bool,
    /// Longest execution; each node's are a fixed part of it.
    pub(crate) longest: Duration,
    /// From start to start of an endless repetition.
    pub(crate) period: Duration,
    /// How long one that has finished waits for another run.
    pub(crate) idle: Duration,
    /// Every change makes each runner of an endless repetition execute at once.
    pub(crate) cue: watch::Receiver<u64>,
}

/// What is counted of sessions.
#[derive(Default)]
pub(crate) struct SessionCounts {
    pub(crate) connected: AtomicUsize,
    pub(crate) connects: AtomicUsize,
    pub(crate) disconnects: AtomicUsize,
    pub(crate) postponed: AtomicUsize,
    pub(crate) refused: AtomicUsize,
    /// Some reasons, with how often each was given.
    pub(crate) reasons: Mutex<HashMap<String, usize>>,
}

/// Where all runners of a trial play.
pub(crate) struct Theatre {
    pub(crate) signer: Signer,
    /// UID of the namespace's service account `default`.
    pub(crate) account_uid: String,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) act: Act,
    pub(crate) counts: SessionCounts,
    doors: Mutex<HashMap<Vec<String>, Door>>,
}

impl Theatre {
    /// An empty one.
    pub(crate) fn new(signer: Signer, account_uid: String, ledger: Arc<Ledger>, act: Act) -> Self {
        let (counts, doors) = (SessionCounts::default(), Mutex::default());
        Self { signer, account_uid, ledger, act, counts, doors }
    }

    /// The whole life of a runner whose container was seen running.
    pub(crate) async fn run(&self, pod: &Pod, started: Instant) -> Ending {
        match Runner::play(self, pod, started).await {
            Ok(ending) => ending,
            Err(error) => Ending { exit_code: 2, message: format!("{error:#}") },
        }
    }

    /// Opens the session of a pod whose runner has this boot, if there is to be one.
    pub(crate) fn call(&self, pod: &Pod, orders: &Orders, boot: &str) -> anyhow::Result<Line> {
        let (outbox, snapshots) = watch::channel(None);
        let (events, heard) = mpsc::channel(16);
        if let (true, Some((address, name, authorities))) = (self.act.sessions, &orders.door) {
            let token = self.signer.token(
                &Bound {
                    namespace: &pod.namespace,
                    account_uid: &self.account_uid,
                    pod: &pod.name,
                    pod_uid: &pod.uid,
                    node: &pod.node,
                    node_uid: &pod.node_uid,
                },
                Timestamp::now().as_second(),
                TOKEN_SECONDS,
            )?;
            let config = SessionConfig {
                door: self.door(address, name, authorities)?,
                token: Token::Text(token),
                boot: boot.to_owned(),
                timing: Timing::default(),
            };
            tokio::spawn(session::run(config, snapshots, events));
        }
        Ok(Line::new(outbox, heard))
    }

    /// The operator as pods of these arguments find it: its certificates are read once for all of them.
    fn door(&self, address: &str, name: &str, authorities: &[String]) -> anyhow::Result<Door> {
        let key = [&[address.to_owned(), name.to_owned()], authorities].concat();
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(door) = doors.get(&key) {
            return Ok(door.clone());
        }
        let door = Door::new(address, name, authorities)?;
        doors.insert(key, door.clone());
        Ok(door)
    }

    /// How long an execution takes on a node: always the same part of the longest.
    pub(crate) fn duration(&self, node: &str) -> Duration {
        self.act.longest * share(node) / 256
    }
}

/// A number from 0 to 255 that is a node's own.
pub(crate) fn share(node: &str) -> u32 {
    u32::from_str_radix(&sha256_hex(node.as_bytes())[..2], 16).unwrap_or_default()
}

impl SessionCounts {
    /// In one line, with what was said most often.
    pub(crate) fn line(&self) -> String {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let mut reasons: Vec<_> = {
            let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
            reasons.iter().map(|(reason, times)| (*times, reason.clone())).collect()
        };
        reasons.sort_by(|one, other| other.cmp(one));
        reasons.truncate(5);
        format!(
            "Sessions: {} are up, {} were made, {} tries or sessions broke, {} were postponed, {} refused; most often: {reasons:?}.",
            count(&self.connected),
            count(&self.connects),
            count(&self.disconnects),
            count(&self.postponed),
            count(&self.refused)
        )
    }

    pub(crate) fn note(&self, reason: String) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        // What never ends is not kept for ever.
        if reasons.len() < 100 || reasons.contains_key(&reason) {
            *reasons.entry(reason).or_default() += 1;
        }
    }
}
