//! `warm`: the script is edited while the runners of the run before wait for more.

use std::time::{Duration, Instant};

use anyhow::Context;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use scriptrunner_api::v1alpha1::ScriptRunner;
use serde_json::json;

use super::{Desk, everywhere};
use crate::{
    args::Scenario,
    figures::Spread,
    record::{Asked, Line, Subject},
    stage::Stage,
    tally::Tally,
    trial::{NAMESPACE, Play, Trial},
};

/// How long they wait: longer than this scenario lasts.
const IDLE: Duration = Duration::from_hours(1);
/// How often the script is edited.
const EDITS: u64 = 5;
/// Between a complete run and the next edit, so that the operator has no writes to make up for.
const PAUSE: Duration = Duration::from_secs(10);

pub(super) async fn run(desk: &mut Desk, stage: &Stage) -> anyhow::Result<()> {
    let nodes = u32::try_from(stage.nodes.len())?;
    let subject = Subject { scenario: Scenario::Warm.name(), driver: "operator", nodes, objects: 1 };
    // The script itself takes no time: what is measured is everything around it.
    let play = Play { longest: Duration::ZERO, idle: IDLE, ..Play::BURST };
    let mut trial = Trial::begin(stage, play, desk.deadline()).await?;
    let operator = trial.start_operator(&desk.settings).await?;
    let mut spec = everywhere();
    spec["runnerIdleSeconds"] = json!(IDLE.as_secs());
    trial.create("warm", spec).await?;
    let mut times = Vec::new();
    for run in 1..=EDITS + 1 {
        let edited = if run == 1 { Instant::now() } else { edit(stage, run).await? };
        let complete = trial
            .until("complete status", |all| {
                !all.is_empty() && all.values().all(|it| it.is_complete(run, nodes))
            })
            .await?;
        trial.until_true("session of every node", |trial| trial.sessions() == nodes as usize).await?;
        if run > 1 {
            times.push(complete.duration_since(edited));
        }
        drop((run == 1).then(|| trial.ledger.take_stored()));
        tokio::time::sleep(PAUSE).await;
    }
    for time in &times {
        desk.recording.figure(&subject, None, "edit to last result", time.as_secs_f64(), "s")?;
    }
    desk.record_metrics(&subject, &operator.metrics().await?)?;
    let tally = Tally::take(&trial, &mut desk.recording, &subject, "")?;
    let Spread { p50, max, .. } = Spread::of(&times).unwrap_or_default();
    let line = |what: &str, asked, measured, unit| Line { what: what.to_owned(), asked, measured, unit };
    let mut lines = vec![
        line("edit to last result in the status, middle of five edits", Asked::AtMost(1.0), p50, "s"),
        line("longest of them", Asked::Told, max, "s"),
    ];
    lines.extend(tally.latency_lines(desk.write_interval()));
    lines.push(operator.memory_line()?);
    lines.extend(tally.usage_lines("operator", Asked::Told, Asked::Told));
    lines.extend(tally.common_lines());
    let remarks = vec![tally.kinds(), tally.processors(), trial.theatre.counts.line()];
    desk.recording.section(&subject, lines, remarks)?;
    operator.end().await
}

/// Changes the script; gives the moment before.
async fn edit(stage: &Stage, run: u64) -> anyhow::Result<Instant> {
    let api: Api<ScriptRunner> = Api::namespaced(stage.admin.clone(), NAMESPACE);
    let patch = json!({"spec": {"script": format!("print({run})\n")}});
    let before = Instant::now();
    api.patch("warm", &PatchParams::default(), &Patch::Merge(patch)).await.context("edit the script")?;
    Ok(before)
}
