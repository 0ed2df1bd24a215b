//! The scenarios. Each begins on a stage of its own.

mod burst;
mod deletion;
mod many;
mod steady;
mod storm;
mod warm;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, ResourceExt, api::PostParams};
use scriptrunner_api::session::AUDIENCE;
use scriptrunner_testcluster::{binaries, progress::Progress};
use serde_json::{Value, json};

use crate::{
    args::{Args, Scenario},
    nodes,
    operator::Settings,
    record::{Recording, Subject},
    stage::Stage,
    token::{self, Bound},
};

/// What all scenarios of one call share.
pub(crate) struct Desk {
    pub(crate) args: Args,
    pub(crate) settings: Settings,
    pub(crate) recording: Recording,
    pub(crate) progress: Progress,
}

impl Desk {
    /// Finds the operator and makes the folder for the figures.
    pub(crate) fn new(args: Args) -> anyhow::Result<Self> {
        let checkout = binaries::find_checkout()?;
        let program = match &args.operator {
            Some(program) => program.clone(),
            None => beside("scriptrunner-operator")?,
        };
        let settings = Settings::new(&program, &args.operator_flag)?;
        if args.scenarios.iter().any(|scenario| scenario.needs_operator()) {
            settings.check()?;
        }
        let out = args.out.clone().unwrap_or_else(|| checkout.join("bench/runs"));
        let recording = Recording::create(&out, &checkout, &settings.arguments())?;
        Ok(Self { args, settings, recording, progress: Progress::new() })
    }

    /// Measures everything that was asked for.
    pub(crate) async fn run(&mut self) -> anyhow::Result<()> {
        for count in self.args.nodes.clone() {
            for scenario in self.args.scenarios.clone() {
                let doing = || format!("{} with {count} nodes", scenario.name());
                self.progress.note(&doing());
                self.measure(scenario, count).await.with_context(doing)?;
            }
        }
        Ok(())
    }

    async fn measure(&mut self, scenario: Scenario, count: u32) -> anyhow::Result<()> {
        if matches!(scenario, Scenario::Null | Scenario::Burst) {
            let stage = self.stage(count).await?;
            let took = burst::null(self, &stage, scenario).await;
            stage.strike(self.args.keep).await?;
            let took = took?;
            if scenario == Scenario::Null {
                return Ok(());
            }
            let stage = self.stage(count).await?;
            let done = burst::operator(self, &stage, took).await;
            stage.strike(self.args.keep).await?;
            return done;
        }
        let stage = self.stage(count).await?;
        let done = match scenario {
            Scenario::Nodes => look(&stage, &self.progress).await,
            Scenario::Steady => steady::run(self, &stage).await,
            Scenario::Storm => storm::run(self, &stage).await,
            Scenario::Many => many::run(self, &stage).await,
            Scenario::Warm => warm::run(self, &stage).await,
            Scenario::Deletion => deletion::run(self, &stage).await,
            Scenario::Null | Scenario::Burst => Ok(()),
        };
        stage.strike(self.args.keep).await?;
        done
    }

    async fn stage(&self, count: u32) -> anyhow::Result<Stage> {
        Stage::build(&self.args.cluster, count, &self.progress).await.context("bring the control plane up")
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(self.args.deadline_seconds)
    }

    /// The least time between two writes of an object, as the operator was told.
    fn write_interval(&self) -> Duration {
        let told =
            self.settings.flags.iter().find_map(|flag| flag.strip_prefix("--status-interval-seconds="));
        Duration::from_secs(told.and_then(|seconds| seconds.parse().ok()).unwrap_or(1))
    }

    /// Records the operator's own metrics as they stand.
    fn record_metrics(&mut self, subject: &Subject, text: &str) -> anyhow::Result<()> {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            if let (Ok(value), false) = (value.parse(), name.contains("_bucket{")) {
                self.recording.figure(subject, None, name, value, "")?;
            }
        }
        Ok(())
    }
}

/// A script on every node.
fn everywhere() -> Value {
    json!({"script": "import platform\nprint(platform.release())\n", "nodeLabelSelector": {}})
}

fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    Ok(own.with_file_name(name))
}

/// Counts the nodes, and lets the API server judge a token of ours beside one of its own.
async fn look(stage: &Stage, progress: &Progress) -> anyhow::Result<()> {
    let (all, ready) = nodes::count(&stage.admin).await?;
    progress.note(&format!("{all} nodes, {ready} of them Ready and untainted"));
    ensure!(ready == stage.nodes.len(), "only {ready} of {} nodes are Ready", stage.nodes.len());
    judge_tokens(stage).await?;
    progress.note("the API server takes the simulated runners' tokens for its own");
    Ok(())
}

async fn judge_tokens(stage: &Stage) -> anyhow::Result<()> {
    let account_uid = stage.namespace("tokens").await?;
    let node = stage.nodes.first().context("there should be a node")?;
    let pods: Api<Pod> = Api::namespaced(stage.admin.clone(), "tokens");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "one"},
        "spec": {"nodeName": node.name, "containers": [{"name": "runner", "image": "none"}]},
    }))?;
    let pod = pods.create(&PostParams::default(), &pod).await.context("create a pod")?;
    let pod_uid = pod.uid().context("a pod should have a UID")?;
    let theirs = their_token(stage, &pod_uid).await?;
    let bound = Bound {
        namespace: "tokens",
        account_uid: &account_uid,
        pod: "one",
        pod_uid: &pod_uid,
        node: &node.name,
        node_uid: &node.uid,
    };
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    let ours = stage.signer()?.token(&bound, now, 3600)?;
    ensure!(token::header(&ours)? == token::header(&theirs)?, "the headers differ");
    let lasting = |token: &str| {
        let mut claims = token::payload(token)?;
        for passing in ["exp", "iat", "nbf", "jti"] {
            let found = claims.as_object_mut().and_then(|claims| claims.remove(passing));
            ensure!(found.is_some(), "a token has no {passing:?}");
        }
        anyhow::Ok(claims)
    };
    let (mine, other) = (lasting(&ours)?, lasting(&theirs)?);
    ensure!(mine == other, "the claims are {mine}, the API server's own {other}");
    let (mine, other) = (review(stage, &ours).await?, review(stage, &theirs).await?);
    ensure!(mine == other, "the review of ours says {mine}, that of its own {other}");
    for extra in ["pod-name", "pod-uid", "node-name", "node-uid"] {
        let found = &mine["extra"][format!("authentication.kubernetes.io/{extra}")];
        ensure!(found.is_array(), "the review does not say {extra}: {mine}");
    }
    Ok(())
}

async fn their_token(stage: &Stage, pod_uid: &str) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(stage.admin.clone(), "tokens");
    let spec: TokenRequestSpec = serde_json::from_value(json!({
        "audiences": [AUDIENCE],
        "expirationSeconds": 3600,
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "one", "uid": pod_uid},
    }))?;
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await;
    Ok(answer.context("ask for a token")?.status.context("a token request should be answered")?.token)
}

/// Who the API server says a token is; its number left out.
async fn review(stage: &Stage, token: &str) -> anyhow::Result<Value> {
    let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![AUDIENCE.to_owned()]) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let api: Api<TokenReview> = Api::all(stage.admin.clone());
    let answer = api.create(&PostParams::default(), &review).await.context("review a token")?;
    let status = answer.status.context("a review should be answered")?;
    ensure!(status.authenticated == Some(true), "a token is refused: {:?}", status.error);
    let mut user = serde_json::to_value(status.user)?;
    if let Some(extra) = user["extra"].as_object_mut() {
        extra.remove("authentication.kubernetes.io/credential-id");
    }
    Ok(user)
}
