//! `storm`: the operator is killed with every session up; every runner has something unstored to say when it comes back.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Desk, everywhere};
use crate::{
    args::Scenario,
    audit::Mark,
    record::{Asked, Line, Subject},
    stage::Stage,
    tally::Tally,
    trial::{Play, Trial},
};

/// How long the operator is away: about as long as a kubelet takes to start a container again.
const AWAY: Duration = Duration::from_secs(1);
/// Until when everything should be acknowledged again.
const WISHED_SECONDS: f64 = 8.0;

pub(super) async fn run(desk: &mut Desk, stage: &Stage) -> anyhow::Result<()> {
    let nodes = u32::try_from(stage.nodes.len())?;
    let subject = Subject { scenario: Scenario::Storm.name(), driver: "operator", nodes, objects: 1 };
    // Executions happen on cue, and at once.
    let play = Play { longest: Duration::ZERO, ..Play::BURST };
    let mut trial = Trial::begin(stage, play, desk.deadline()).await?;
    let operator = trial.start_operator(&desk.settings).await?;
    let mut spec = everywhere();
    spec["repeat"] = json!({"periodSeconds": 3600});
    trial.create("storm", spec).await?;
    let wanted = nodes as usize;
    trial
        .until_true("session and acknowledgement of every pod", |trial| {
            trial.sessions() == wanted
                && trial.ledger.acked_count() == wanted
                && trial.ledger.unstored().0 == 0
        })
        .await?;
    drop((trial.ledger.take_stored(), trial.ledger.take_acked()));

    trial.sampler.count_from_now();
    operator.kill().await?;
    let killed = Instant::now();
    trial.cue.send_modify(|cue| *cue += 1);
    trial
        .until_true("unstored snapshot of every runner", |trial| trial.ledger.unstored().0 == wanted)
        .await?;
    tokio::time::sleep_until((killed + AWAY).into()).await;
    trial.mark = Mark::end(&stage.cluster.audit_log())?;
    let started = Instant::now();
    let mut operator = trial.launch_operator(&desk.settings)?;
    let (ready, acked) = tokio::join!(
        async { operator.await_ready().await.map(|()| started.elapsed().as_secs_f64()) },
        trial.until_true("acknowledgement of every snapshot", |trial| trial.ledger.acked_count() == wanted),
    );
    let (ready, acked) = (ready?, acked?);
    let (from_start, from_kill) = (acked.duration_since(started), acked.duration_since(killed));
    desk.record_metrics(&subject, &operator.metrics().await?)?;
    let tally = Tally::take(&trial, &mut desk.recording, &subject, "")?;
    let line = |what: &str, asked, measured, unit| Line { what: what.to_owned(), asked, measured, unit };
    let mut lines = vec![
        line(
            "from the operator's start until everything is acknowledged",
            Asked::AtMost(WISHED_SECONDS),
            from_start.as_secs_f64(),
            "s",
        ),
        line("from its death until then", Asked::Told, from_kill.as_secs_f64(), "s"),
        line("from its start until it is ready", Asked::Told, ready, "s"),
    ];
    lines.push(operator.memory_line()?);
    lines.extend(tally.usage_lines("operator", Asked::Told, Asked::Told));
    // It lists everything once when it starts, which belongs to the storm.
    lines.extend(tally.common_lines().into_iter().filter(|line| !line.what.starts_with("lists")));
    let remarks = vec![tally.kinds(), tally.processors(), trial.theatre.counts.line()];
    desk.recording.section(&subject, lines, remarks)?;
    operator.end().await
}
