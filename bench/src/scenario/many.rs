//! `many`: a hundred ScriptRunners at once, each on fifty nodes.

use std::{collections::HashMap, time::Instant};

use anyhow::ensure;
use serde_json::json;

use super::{Desk, everywhere};
use crate::{
    args::Scenario,
    figures::number,
    objects::Status,
    operator::MOST_MEMORY,
    record::{Asked, Line, Subject},
    stage::Stage,
    tally::Tally,
    trial::{Play, Trial},
};

/// How many ScriptRunners.
const OBJECTS: u32 = 100;
/// How many nodes each of them is for.
const NODES: u32 = 50;

pub(super) async fn run(desk: &mut Desk, stage: &Stage) -> anyhow::Result<()> {
    let nodes = u32::try_from(stage.nodes.len())?;
    ensure!(nodes >= NODES, "`many` needs at least {NODES} nodes");
    let subject = Subject { scenario: Scenario::Many.name(), driver: "operator", nodes, objects: OBJECTS };
    let mut trial = Trial::begin(stage, Play::BURST, desk.deadline()).await?;
    let operator = trial.start_operator(&desk.settings).await?;
    let start = Instant::now();
    for object in 0..OBJECTS {
        let names = (0..NODES).map(|node| &stage.nodes[((object * NODES + node) % nodes) as usize].name);
        let mut spec = everywhere();
        spec["nodeNames"] = json!(names.collect::<Vec<_>>());
        spec.as_object_mut().and_then(|spec| spec.remove("nodeLabelSelector"));
        trial.create(&format!("many-{object}"), spec).await?;
    }
    let all = |statuses: &HashMap<String, Status>| {
        statuses.len() == OBJECTS as usize && statuses.values().all(|status| status.is_complete(1, NODES))
    };
    let complete = trial.until("complete statuses", all).await?;
    let took = complete.duration_since(start).as_secs_f64();
    trial.until_true("end of all pods", |trial| trial.pods() == 0).await?;
    desk.recording.figure(&subject, None, "all results", took, "s")?;
    desk.record_metrics(&subject, &operator.metrics().await?)?;
    let tally = Tally::take(&trial, &mut desk.recording, &subject, "")?;
    let line = |what: &str, asked, measured, unit| Line { what: what.to_owned(), asked, measured, unit };
    let runs = f64::from(OBJECTS * NODES);
    let mut lines = vec![
        line("all results in all statuses", Asked::Told, took, "s"),
        line("requests per pod", Asked::Told, number(tally.requests.of_nodes()) / runs, ""),
        line("bytes of status writes", Asked::Told, tally.bytes() / 1e6, "MB"),
    ];
    lines.extend(tally.latency_lines(desk.write_interval()));
    lines.extend(tally.usage_lines("operator", Asked::Told, Asked::AtMost(MOST_MEMORY)));
    lines.extend(tally.common_lines());
    let remarks = vec![tally.kinds(), tally.processors(), trial.theatre.counts.line()];
    desk.recording.section(&subject, lines, remarks)?;
    operator.end().await
}
