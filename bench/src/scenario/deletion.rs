//! `deletion`: a ScriptRunner is deleted while a pod of it runs on every node; none of them ends by itself.

use std::time::{Duration, Instant};

use anyhow::Context;
use kube::{Api, api::DeleteParams};
use scriptrunner_api::v1alpha1::ScriptRunner;
use serde_json::json;

use super::{Desk, everywhere};
use crate::{
    args::Scenario,
    audit::Mark,
    record::{Asked, Line, Subject},
    stage::Stage,
    tally::Tally,
    trial::{NAMESPACE, Play, Trial},
};

/// Until when no pod should be left, at a thousand nodes.
const WISHED_SECONDS: f64 = 15.0;
const NAME: &str = "deletion";

pub(super) async fn run(desk: &mut Desk, stage: &Stage) -> anyhow::Result<()> {
    let nodes = u32::try_from(stage.nodes.len())?;
    let subject = Subject { scenario: Scenario::Deletion.name(), driver: "operator", nodes, objects: 1 };
    // Every script has run once, and every runner waits for the next time.
    let play = Play { longest: Duration::ZERO, ..Play::BURST };
    let mut trial = Trial::begin(stage, play, desk.deadline()).await?;
    let operator = trial.start_operator(&desk.settings).await?;
    let mut spec = everywhere();
    spec["repeat"] = json!({"periodSeconds": 3600});
    trial.create(NAME, spec).await?;
    let wanted = nodes as usize;
    trial
        .until_true("session and stored result of every pod", |trial| {
            trial.sessions() == wanted && trial.pods() == wanted && trial.ledger.unstored().0 == 0
        })
        .await?;

    trial.mark = Mark::end(&stage.cluster.audit_log())?;
    trial.sampler.count_from_now();
    let deleted = delete(stage).await?;
    let gone = trial.until_true("end of all pods", |trial| trial.pods() == 0).await?;
    let took = gone.duration_since(deleted).as_secs_f64();
    desk.recording.figure(&subject, None, "deletion to last pod", took, "s")?;
    desk.record_metrics(&subject, &operator.metrics().await?)?;
    let tally = Tally::take(&trial, &mut desk.recording, &subject, "")?;
    let what = "from the deletion until no pod is there".to_owned();
    let mut lines = vec![Line { what, asked: Asked::AtMost(WISHED_SECONDS), measured: took, unit: "s" }];
    lines.extend(tally.usage_lines("operator", Asked::Told, Asked::Told));
    lines.extend(tally.common_lines());
    let remarks = vec![tally.kinds(), tally.processors(), trial.theatre.counts.line()];
    desk.recording.section(&subject, lines, remarks)?;
    operator.end().await
}

/// Deletes the object as `kubectl delete` does; gives the moment before.
async fn delete(stage: &Stage) -> anyhow::Result<Instant> {
    let api: Api<ScriptRunner> = Api::namespaced(stage.admin.clone(), NAMESPACE);
    let before = Instant::now();
    api.delete(NAME, &DeleteParams::background()).await.context("delete the ScriptRunner")?;
    Ok(before)
}
