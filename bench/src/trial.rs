//! What every scenario has: a namespace, watches, kubelets, and a look at what everything costs.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use kube::{Api, api::PostParams};
use scriptrunner_api::v1alpha1::ScriptRunner;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    audit::Mark,
    ledger::Ledger,
    objects::{Objects, Status},
    operator::{Operator, Settings},
    pods::Kubelets,
    sampler::Sampler,
    stage::Stage,
    theatre::{Act, Theatre},
};

/// Where all ScriptRunners of a trial are.
pub(crate) const NAMESPACE: &str = "bench";

/// How long after it is ready the operator may still list for the first time.
const FIRST_LIST: Duration = Duration::from_secs(2);

/// What the runners of a trial do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Play {
    pub(crate) sessions: bool,
    pub(crate) longest: Duration,
    pub(crate) period: Duration,
    /// How long a runner that has finished waits for another run.
    pub(crate) idle: Duration,
}

impl Play {
    /// Every script runs once and ends within a second.
    pub(crate) const BURST: Self = Self {
        sessions: true,
        longest: Duration::from_secs(1),
        period: Duration::from_hours(1),
        idle: Duration::ZERO,
    };
}

/// One measurement under way.
pub(crate) struct Trial<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) theatre: Arc<Theatre>,
    pub(crate) objects: Objects,
    pub(crate) kubelets: Kubelets,
    pub(crate) sampler: Sampler,
    pub(crate) mark: Mark,
    pub(crate) cue: watch::Sender<u64>,
    deadline: Duration,
}

impl<'a> Trial<'a> {
    /// Prepares everything and begins to look.
    pub(crate) async fn begin(stage: &'a Stage, play: Play, deadline: Duration) -> anyhow::Result<Self> {
        let account_uid = stage.namespace(NAMESPACE).await?;
        let (cue, cued) = watch::channel(0);
        let Play { sessions, longest, period, idle } = play;
        let act = Act { sessions, longest, period, idle, cue: cued };
        let ledger = Arc::new(Ledger::default());
        let theatre = Arc::new(Theatre::new(stage.signer()?, account_uid, ledger.clone(), act));
        let objects = Objects::watch(stage.admin.clone(), NAMESPACE, ledger.clone()).await?;
        let kubelets = Kubelets::watch(stage.admin.clone(), NAMESPACE, theatre.clone()).await?;
        let mut programs = stage.programs()?;
        programs.push(("bench".to_owned(), std::process::id()));
        let sampler = Sampler::start(stage.admin.clone(), programs);
        let mark = Mark::end(&stage.cluster.audit_log())?;
        Ok(Self { stage, ledger, theatre, objects, kubelets, sampler, mark, cue, deadline })
    }

    /// Starts the operator; returns at once.
    pub(crate) fn launch_operator(&self, settings: &Settings) -> anyhow::Result<Operator> {
        let operator = Operator::start(self.stage, settings)?;
        self.sampler.add("operator", operator.pid()?);
        Ok(operator)
    }

    /// Starts the operator and waits until it is ready and has listed everything; requests and processor time count from
    /// here on.
    pub(crate) async fn start_operator(&mut self, settings: &Settings) -> anyhow::Result<Operator> {
        let mut operator = self.launch_operator(settings)?;
        operator.await_ready().await?;
        // It lists the ScriptRunners after everything that decisions about them rest on.
        tokio::time::sleep(FIRST_LIST).await;
        self.mark = Mark::end(&self.stage.cluster.audit_log())?;
        self.sampler.count_from_now();
        Ok(operator)
    }

    /// Makes a ScriptRunner; gives also the moment before.
    pub(crate) async fn create(&self, name: &str, spec: Value) -> anyhow::Result<(ScriptRunner, Instant)> {
        let object = json!({
            "apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
            "metadata": {"name": name}, "spec": spec,
        });
        let object: ScriptRunner = serde_json::from_value(object).context("make a ScriptRunner")?;
        let api: Api<ScriptRunner> = Api::namespaced(self.stage.admin.clone(), NAMESPACE);
        let before = Instant::now();
        let made = api.create(&PostParams::default(), &object).await;
        Ok((made.with_context(|| format!("create ScriptRunner {name:?}"))?, before))
    }

    /// Waits until the statuses are as they should be; says what is missing when the time is up.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        enough: impl Fn(&HashMap<String, Status>) -> bool,
    ) -> anyhow::Result<Instant> {
        let waited = tokio::time::timeout(self.deadline, self.objects.until(enough)).await;
        self.kubelets.check().await?;
        match waited {
            Ok(seen) => seen,
            Err(_) => bail!("after {:?} still no {what}: {}", self.deadline, self.missing()),
        }
    }

    /// Waits until `enough` says so, looking every 20 ms.
    pub(crate) async fn until_true(
        &mut self,
        what: &str,
        enough: impl Fn(&Self) -> bool,
    ) -> anyhow::Result<Instant> {
        let end = Instant::now() + self.deadline;
        while !enough(self) {
            self.kubelets.check().await?;
            if Instant::now() > end {
                bail!("after {:?} still no {what}: {}", self.deadline, self.missing());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Instant::now())
    }

    /// Pods that are there.
    pub(crate) fn pods(&self) -> usize {
        self.kubelets.counts.present.load(Ordering::Relaxed)
    }

    /// Sessions that are up.
    pub(crate) fn sessions(&self) -> usize {
        self.theatre.counts.connected.load(Ordering::Relaxed)
    }

    fn missing(&self) -> String {
        let (count, nodes) = self.ledger.unstored();
        format!(
            "{}; {count} nodes have executions that are not stored ({}); {}",
            self.objects.missing(),
            nodes.join(", "),
            self.theatre.counts.line(),
        )
    }
}
