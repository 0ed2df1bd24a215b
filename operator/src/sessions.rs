//! The runners' door: sessions over which runners bring their snapshots, and what they brought. What enters here is one
//! more observation; nothing here decides what becomes of a node.

mod address;
mod authority;
mod brought;
mod claims;
mod connection;
mod credentials;
mod identity;
mod line;
mod lobby;
mod refusal;
mod reviews;
mod secret;
mod server;
mod table;
mod tls;
mod upkeep;
mod wire;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::Client;
use scriptrunner_api::session::{Ack, RunOrder, SnapshotPart};
use scriptrunner_core::{observed::SessionFacts, pod::SessionSettings};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;

pub use self::{
    address::{PORT_NAME, SERVICE_NAME},
    secret::SECRET_NAME,
};
use self::{
    authority::Lifetimes,
    credentials::Credentials,
    identity::{Identity, Speaker},
    line::{Line, Order},
    lobby::{Handshakes, Lobby},
    refusal::Refusal,
    secret::Store,
    table::Table,
};
use crate::{
    args::DoorConfig,
    context::Context,
    manifests::OPERATOR,
    metrics::Metrics,
    watches::{Trigger, object_ref},
    world::World,
};

/// What sessions brought, and the live connections.
pub struct Sessions {
    metrics: Arc<Metrics>,
    table: Mutex<Table>,
    /// The texts of the newest order: those of one run are the same for all its pods.
    texts: Mutex<(Arc<str>, Arc<str>)>,
}

impl Sessions {
    /// Nothing was brought yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let nothing: Arc<str> = Arc::from("");
        Self { metrics, table: Mutex::default(), texts: Mutex::new((Arc::clone(&nothing), nothing)) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic elsewhere leaves plain data that is still as true as it was.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What sessions brought for these pods, by UID; only pods that have something.
    pub fn facts<'a>(&self, pod_uids: impl Iterator<Item = &'a str>) -> BTreeMap<String, SessionFacts> {
        let table = self.table();
        pod_uids.filter_map(|uid| Some((uid.to_owned(), table.facts(uid)?))).collect()
    }

    /// What the stored status says of a pod that it names: the numbers that its runner goes on from. A snapshot may be
    /// ahead of what is known by [`scriptrunner_api::session::MAX_STEP`] at most, so after a start of the operator a
    /// runner that is further waits until this was said. To be called in each reconcile.
    pub fn know(&self, pod_uid: &str, seq: u64, serial: u64) {
        self.table().know(pod_uid, seq, serial);
    }

    /// The snapshot is stored: its executions are forgotten, and the runner is told if it is connected.
    pub fn ack(&self, pod_uid: &str, ack: &Ack) {
        self.table().ack(pod_uid, ack);
    }

    /// The outcome of the pod is stored: its session ends, and none is accepted any more. To be called in each reconcile.
    pub fn mark_stored(&self, pod_uid: &str) {
        self.table().mark_stored(pod_uid);
    }

    /// Tells the runner to end, as on SIGTERM, if it is connected.
    pub fn stop(&self, pod_uid: &str, reason: &str) {
        if let Some(line) = self.table().line(pod_uid) {
            line.stop(reason);
        }
    }

    /// Tells the runner to end after its current execution. False if it is not connected.
    pub fn hand_over(&self, pod_uid: &str, reason: &str) -> bool {
        let table = self.table();
        let Some(line) = table.line(pod_uid) else { return false };
        line.hand_over(reason);
        true
    }

    /// Tells the runner to run again. False if it is not connected. An order that was not sent yet makes room for it.
    pub fn order(&self, pod_uid: &str, order: &RunOrder) -> bool {
        let mut table = self.table();
        let Some(line) = table.line_to_order(pod_uid, order.run, Context::now()) else { return false };
        let (spec, script) = self.shared_texts(order);
        line.order(Order { numbers: numbers_of(order), spec, script });
        true
    }

    fn shared_texts(&self, order: &RunOrder) -> (Arc<str>, Arc<str>) {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if *texts.0 != *order.spec || *texts.1 != *order.script {
            *texts = (Arc::from(order.spec.as_str()), Arc::from(order.script.as_str()));
        }
        texts.clone()
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, pod_uid: &str) {
        let mut table = self.table();
        table.forget(pod_uid);
        self.show(&table);
    }

    /// Runners that are connected.
    pub fn connected(&self) -> usize {
        self.table().connected()
    }

    fn show(&self, table: &Table) {
        self.metrics.sessions.set(i64::try_from(table.connected()).unwrap_or(i64::MAX));
    }

    fn admit(&self, line: &Arc<Line>) {
        self.table().admit(Arc::clone(line));
    }

    fn seat(&self, line: &Arc<Line>) -> bool {
        let mut table = self.table();
        let seated = table.seat(line);
        self.show(&table);
        seated
    }

    fn leave(&self, line: &Line) -> bool {
        let mut table = self.table();
        let was_current = table.leave(line, Context::now());
        self.show(&table);
        was_current
    }

    fn bring(&self, line: &Line, part: SnapshotPart) -> Result<bool, Refusal> {
        self.table().bring(line, part)
    }

    fn is_stored(&self, pod_uid: &str) -> bool {
        self.table().is_stored(pod_uid)
    }

    fn lines(&self) -> Vec<Arc<Line>> {
        self.table().lines().cloned().collect()
    }

    fn forget_missing(&self, now: Instant, is_known: impl Fn(&str) -> bool) {
        let mut table = self.table();
        table.forget_missing(now, is_known);
        self.show(&table);
    }
}

/// The order without its texts.
fn numbers_of(order: &RunOrder) -> RunOrder {
    let RunOrder {
        run,
        attempt,
        first_serial,
        remaining,
        spec: _,
        script: _,
        history_limit,
        stdout_limit_bytes,
        stderr_limit_bytes,
        grace_seconds,
        execution_deadline_seconds,
    } = *order;
    RunOrder {
        run,
        attempt,
        first_serial,
        remaining,
        spec: String::new(),
        script: String::new(),
        history_limit,
        stdout_limit_bytes,
        stderr_limit_bytes,
        grace_seconds,
        execution_deadline_seconds,
    }
}

/// What the door needs.
pub struct Needs {
    /// Client whose writes are refused once the Lease may be over.
    pub client: Client,
    /// What the flags say of sessions.
    pub config: DoorConfig,
    /// The operator's own namespace, of its Secret and Service.
    pub namespace: String,
    /// Longest time of one API request.
    pub request_timeout: Duration,
    /// Whether this process leads; one that does not answers so.
    pub leads: watch::Receiver<bool>,
    /// The table.
    pub sessions: Arc<Sessions>,
    /// What the watches have shown: whose a pod is.
    pub world: Arc<World>,
    /// What may have something to do.
    pub triggers: mpsc::UnboundedSender<Trigger>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// The door, ready to be opened.
pub struct Door {
    needs: Needs,
    credentials: Credentials,
    identity: Identity,
    acceptor: TlsAcceptor,
    lobby: Lobby,
    handshakes: Handshakes,
    /// Where the Service is.
    address: Mutex<Option<SocketAddr>>,
}

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to identify the operator with.
    #[error("prepare the certificate of runners' sessions: {0}")]
    Credentials(#[from] credentials::Error),
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Makes the door ready: reads or makes the Secret, renews what is due, and finds out where the Service is. In a process
/// that does not lead it waits for the lead if there is no Secret yet.
pub async fn prepare(mut needs: Needs) -> Result<Arc<Door>, Error> {
    let name = format!("{OPERATOR}.{}.svc", needs.namespace);
    let lifetimes = lifetimes(&needs.config);
    let store = Store::new(needs.client.clone(), &needs.namespace, needs.request_timeout);
    // Boxed, as below: the caller's future would hold room for all of it for the whole life of the process.
    let credentials = Box::pin(Credentials::open(store, name, lifetimes, &mut needs.leads)).await?;
    let config = tls::server_config(credentials.presented())?;
    let identity = Identity::new(
        needs.client.clone(),
        Arc::clone(&needs.world),
        Arc::clone(&needs.metrics),
        needs.config.token_reviews_per_second,
        needs.request_timeout,
    );
    let door = Arc::new(Door {
        lobby: Lobby::new(needs.config.most_sessions),
        handshakes: Handshakes::default(),
        acceptor: TlsAcceptor::from(Arc::new(config)),
        address: Mutex::default(),
        needs,
        credentials,
        identity,
    });
    Box::pin(upkeep::look(&door)).await;
    upkeep::find_address(&door).await;
    if door.settings().is_none() {
        upkeep::say_that_there_is_no_address(&door);
    }
    Ok(door)
}

/// Serves until the process ends.
pub async fn serve(door: Arc<Door>, listener: TcpListener) -> Result<(), Error> {
    tokio::select! {
        never = server::accept(&door, &listener) => match never {},
        () = upkeep::sweep(&door) => Ok(()),
        () = Box::pin(upkeep::renew(&door)) => Ok(()),
        () = upkeep::follow_address(&door) => Ok(()),
    }
}

fn lifetimes(config: &DoorConfig) -> Lifetimes {
    Lifetimes { leaf: config.certificate, authority: config.authority, overlap: config.authority_overlap }
}

impl Door {
    /// Where runners of new pods find the operator; none while there is neither a flag nor a Service.
    pub fn settings(&self) -> Option<SessionSettings> {
        let of_service = || *self.address.lock().unwrap_or_else(PoisonError::into_inner);
        let address = self.needs.config.address.or_else(of_service)?;
        Some(SessionSettings {
            address: address.to_string(),
            name: self.credentials.name().to_owned(),
            authorities: self.credentials.trusted().as_ref().clone(),
        })
    }

    /// Something of the speaker's object may have to be done.
    fn look_at(&self, speaker: &Speaker) {
        let trigger = Trigger::One(object_ref(&speaker.namespace, &speaker.owner));
        // The receiver lives as long as the process; if it is gone the process is ending.
        let _ = self.needs.triggers.send(trigger);
    }

    fn leads(&self) -> bool {
        *self.needs.leads.borrow()
    }

    fn lifetimes(&self) -> Lifetimes {
        lifetimes(&self.needs.config)
    }

    fn has_fixed_address(&self) -> bool {
        self.needs.config.address.is_some()
    }

    /// True if that is news.
    fn set_address(&self, found: Option<SocketAddr>) -> bool {
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *address, found) != found
    }

    fn sessions(&self) -> &Sessions {
        &self.needs.sessions
    }

    fn world(&self) -> &World {
        &self.needs.world
    }

    fn metrics(&self) -> &Metrics {
        &self.needs.metrics
    }

    fn client(&self) -> &Client {
        &self.needs.client
    }

    fn namespace(&self) -> &str {
        &self.needs.namespace
    }

    fn request_timeout(&self) -> Duration {
        self.needs.request_timeout
    }

    fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    fn lobby(&self) -> &Lobby {
        &self.lobby
    }

    fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }
}

#[cfg(test)]
mod tests;
