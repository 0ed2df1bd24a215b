//! The life of the process: health first, then leadership, schema, watches, and the controller until it is told to stop.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use futures::future::select_all;
use k8s_openapi::{
    api::coordination::v1::Lease,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, client::ClientBuilder};
use scriptrunner_api::{SCHEMA, labels};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use crate::{
    args::Config,
    context::Context,
    controller,
    health::{self, Readiness},
    leader::{Elector, Validity, WriteGate},
    metrics::Metrics,
    pressure::Pressure,
    rbac::CRD_NAME,
    sessions::{self, Door, Needs},
    watches::{self, Sink, Trigger},
    world::World,
};

/// Pause between looks at the installed schema.
const SCHEMA_PAUSE: Duration = Duration::from_secs(10);

/// Runs until the process is told to stop or must not go on.
pub async fn run(config: Config) -> anyhow::Result<()> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        identity = config.identity,
        runner_image = config.pods.runner_image,
        namespaces = %config.scope,
        "starting"
    );
    let readiness = Arc::new(Readiness::default());
    let metrics = Arc::new(Metrics::new());
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {}; choose another --listen", config.listen))?;
    let mut served = tokio::spawn(health::serve(listener, readiness.clone(), metrics.clone()));
    let mut told_to_stop = stop_signal()?;

    let kubeconfig = client_config().await?;
    let validity = Validity::default();
    let plain = Client::try_from(kubeconfig.clone()).context("make a client")?;
    let pressure = Pressure::new(config.timers.status_interval, metrics.status_interval.clone());
    let gated = ClientBuilder::try_from(kubeconfig)
        .context("make a client")?
        .with_layer(&pressure)
        .with_layer(&WriteGate { validity: validity.clone() })
        .build();
    let leases = Api::<Lease>::namespaced(plain.clone(), &config.namespace);
    let elector = Elector {
        leases: leases.clone(),
        identity: config.identity.clone(),
        duration: config.lease,
        request_timeout: config.request_timeout,
        validity,
    };
    let (lead, mut leads) = watch::channel(false);
    readiness.wait_for("another process holds the lease");
    let election = tokio::spawn(elector.run(lead));

    let identity = config.identity.clone();
    let work = async {
        tokio::select! {
            leads = leads.wait_for(|leads| *leads) => drop(leads.context("the election ended")?),
            _ = told_to_stop.wait_for(|stop| *stop) => return Ok(()),
        }
        metrics.leader.set(1);
        tracing::info!("leading");
        lead_on(config, gated, pressure, readiness, metrics.clone(), leads, told_to_stop).await
    };
    tokio::select! {
        outcome = work => outcome?,
        served = &mut served => served.context("the health server ended")?.context("serve health")?,
    }
    // Ended first, so that it does not take the lease again.
    election.abort();
    Elector::release(&leases, &identity).await.context("give the lease up")?;
    tracing::info!("stopped");
    Ok(())
}

/// Everything that only the leader does. Ends without an error only when the process is told to stop.
async fn lead_on(
    config: Config,
    client: Client,
    pressure: Pressure,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    mut leads: watch::Receiver<bool>,
    mut told_to_stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (context, door, receiver) = tokio::select! {
        prepared = prepare(config, client, pressure, &readiness, metrics, leads.clone()) => prepared?,
        _ = told_to_stop.wait_for(|stop| *stop) => return Ok(()),
    };
    // Opened only now: before, nobody could be told apart, and a connection that is not answered would be waited for.
    let listen = context.config.door.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listen on {listen}; choose another --session-listen"))?;
    let served = sessions::serve(door, listener);
    readiness.ready();
    tracing::info!(nodes = context.world.nodes().len(), "ready");
    let controller = controller::run(context, receiver, told_to_stop);
    tokio::select! {
        () = controller => Ok(()),
        served = served => served.context("the runners' door closed"),
        lost = leads.wait_for(|leads| !*leads) => {
            drop(lost.context("the election ended")?);
            // Whatever is under way must not go on beside the next leader.
            bail!("the lease is lost; ending, so that nothing more is written");
        }
    }
}

/// Waits for the schema and for the first list of everything that decisions rest on.
async fn prepare(
    config: Config,
    client: Client,
    pressure: Pressure,
    readiness: &Readiness,
    metrics: Arc<Metrics>,
    leads: watch::Receiver<bool>,
) -> anyhow::Result<(Arc<Context>, Arc<Door>, mpsc::UnboundedReceiver<Trigger>)> {
    await_schema(&client, readiness).await;
    let world = Arc::new(World::default());
    let (triggers, receiver) = mpsc::unbounded_channel();
    let sink = Sink { world: world.clone(), triggers, metrics: metrics.clone() };
    for (kind, mut synced) in watches::start(&client, &config.scope, &sink) {
        readiness.wait_for(format!("the first list of {kind}"));
        synced.wait_for(|synced| *synced).await.with_context(|| format!("the watch of {kind} ended"))?;
    }
    let mut context = Context::new(client, world, config, metrics);
    context.pressure = pressure;
    readiness.wait_for("the certificate for runners' sessions");
    let needs = Needs {
        client: context.client.clone(),
        config: context.config.door.clone(),
        namespace: context.config.namespace.clone(),
        request_timeout: context.config.request_timeout,
        leads,
        sessions: context.sessions.clone(),
        world: context.world.clone(),
        triggers: sink.triggers,
        metrics: context.metrics.clone(),
    };
    let door = sessions::prepare(needs).await.context("prepare the runners' door")?;
    context.door = Some(door.clone());
    Ok((Arc::new(context), door, receiver))
}

/// The configuration of the clients: the pod's own account, or the kubeconfig.
async fn client_config() -> anyhow::Result<kube::Config> {
    let mut config = kube::Config::infer()
        .await
        .context("find the API server (in a pod: its account; else: KUBECONFIG)")?;
    config.connect_timeout = Some(Duration::from_secs(5));
    // Also of watches and lists, which nothing else ends when the other side is gone without a word.
    config.read_timeout = Some(watches::LONGEST_SILENCE);
    // Trying again is the reconcile's business: it knows what has changed since.
    config.default_retry = false;
    Ok(config)
}

/// Waits until the installed CRD keeps everything that this operator writes.
async fn await_schema(client: &Client, readiness: &Readiness) {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    loop {
        let missing = match definitions.get_opt(CRD_NAME).await {
            Ok(None) => format!("CustomResourceDefinition {CRD_NAME}; apply crds/"),
            Ok(Some(definition)) => {
                let installed = definition
                    .metadata
                    .annotations
                    .as_ref()
                    .and_then(|annotations| annotations.get(labels::SCHEMA)?.parse().ok())
                    .unwrap_or(0);
                if installed >= SCHEMA {
                    return;
                }
                format!(
                    "schema {SCHEMA} of {CRD_NAME}, installed is {installed}; apply crds/ of this version"
                )
            }
            Err(error) => format!("the API server: {error}"),
        };
        tracing::warn!(missing, "waiting");
        readiness.wait_for(missing);
        tokio::time::sleep(SCHEMA_PAUSE).await;
    }
}

/// Turns true on SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("wait for SIGINT")?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        select_all([
            Box::pin(terminate.recv()) as futures::future::BoxFuture<'_, _>,
            Box::pin(interrupt.recv()),
        ])
        .await;
        tracing::info!("told to stop");
        sender.send_replace(true);
        // The receiver side may already be gone; keep the value until the process ends.
        sender.closed().await;
    });
    Ok(receiver)
}
