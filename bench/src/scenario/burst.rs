//! `burst`: every script ends within a second of its start. First the null driver, then the operator on a stage as fresh.

use std::time::{Duration, Instant};

use super::{Desk, everywhere};
use crate::{
    args::Scenario,
    figures::number,
    null,
    operator::MOST_MEMORY,
    record::{Asked, Line, Subject},
    stage::Stage,
    tally::{AFTERWARDS, MEBIBYTE, Tally},
    trial::{Play, Trial},
};

/// How much longer than the null driver the operator may take.
const RATIO: f64 = 1.3;

/// The null driver's part; gives its time.
pub(super) async fn null(desk: &mut Desk, stage: &Stage, scenario: Scenario) -> anyhow::Result<Duration> {
    let subject = subject(scenario, "null", stage);
    let play = Play { sessions: false, ..Play::BURST };
    let mut trial = Trial::begin(stage, play, desk.deadline()).await?;
    let client = stage.operators_client(null::AGENT).await?;
    let (object, start) = trial.create("burst", everywhere()).await?;
    tokio::time::timeout(desk.deadline(), null::drive(&client, &object, &stage.nodes)).await??;
    let nodes = subject.nodes;
    let complete =
        trial.until("complete status", |all| all.values().all(|it| it.is_complete(1, nodes))).await?;
    let took = complete.duration_since(start);
    desk.recording.figure(&subject, None, "all results", took.as_secs_f64(), "s")?;
    let tally = Tally::take(&trial, &mut desk.recording, &subject, null::AGENT)?;
    let lines = vec![
        told("all results in the status", took.as_secs_f64(), "s"),
        told("requests per node", number(tally.requests.of_nodes()) / f64::from(nodes), ""),
        told("largest object at any revision", tally.largest() / MEBIBYTE, "MiB"),
    ];
    desk.recording.section(&subject, lines, vec![tally.kinds(), tally.processors()])?;
    Ok(took)
}

/// The operator's part, with the null driver's time beside it.
pub(super) async fn operator(desk: &mut Desk, stage: &Stage, null: Duration) -> anyhow::Result<()> {
    let subject = subject(Scenario::Burst, "operator", stage);
    let nodes = subject.nodes;
    let mut trial = Trial::begin(stage, Play::BURST, desk.deadline()).await?;
    let operator = trial.start_operator(&desk.settings).await?;
    let (_, start) = trial.create("burst", everywhere()).await?;
    let complete = trial
        .until("complete status", |all| !all.is_empty() && all.values().all(|it| it.is_complete(1, nodes)))
        .await?;
    let took = complete.duration_since(start).as_secs_f64();
    tokio::time::sleep_until((complete + AFTERWARDS).into()).await;
    trial.until_true("end of all pods", |trial| trial.pods() == 0).await?;
    desk.recording.figure(&subject, None, "all results", took, "s")?;
    desk.record_metrics(&subject, &operator.metrics().await?)?;
    let tally = Tally::take(&trial, &mut desk.recording, &subject, "")?;
    let mut lines = vec![
        Line {
            what: "all results in the status, against 1.3 times the null driver".into(),
            asked: Asked::AtMost(RATIO * null.as_secs_f64()),
            measured: took,
            unit: "s",
        },
        told("times the null driver", took / null.as_secs_f64(), ""),
    ];
    lines.extend(tally.latency_lines(desk.write_interval()));
    lines.extend(cost(&tally, nodes, start, complete));
    lines.extend(tally.common_lines());
    let remarks = vec![tally.kinds(), tally.processors(), trial.theatre.counts.line()];
    desk.recording.section(&subject, lines, remarks)?;
    operator.end().await
}

fn cost(tally: &Tally, nodes: u32, start: Instant, complete: Instant) -> Vec<Line> {
    let line = |what: &str, asked, measured, unit| Line { what: what.to_owned(), asked, measured, unit };
    let pass = tally.bytes_between(start, complete) / 1e6;
    let after = tally.bytes_between(complete, complete + AFTERWARDS) / 1e6 / AFTERWARDS.as_secs_f64();
    let per_node = number(tally.requests.of_nodes()) / f64::from(nodes);
    let mut lines = vec![
        line("requests per node, those for the Lease left out", Asked::AtMost(3.1), per_node, ""),
        line("bytes of status writes until complete", Asked::AtMost(25.0), pass, "MB"),
        line("bytes of status writes in the 10 s after", Asked::AtMost(0.5), after, "MB/s"),
    ];
    lines.extend(tally.usage_lines("operator", Asked::AtMost(7.0), Asked::AtMost(MOST_MEMORY)));
    lines
}

fn told(what: &str, measured: f64, unit: &'static str) -> Line {
    Line { what: what.to_owned(), asked: Asked::Told, measured, unit }
}

fn subject(scenario: Scenario, driver: &'static str, stage: &Stage) -> Subject {
    let nodes = u32::try_from(stage.nodes.len()).unwrap_or(u32::MAX);
    Subject { scenario: scenario.name(), driver, nodes, objects: 1 }
}
