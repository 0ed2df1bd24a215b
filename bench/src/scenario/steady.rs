//! `steady`: every node every minute, without end; what does not stay flat is seen here.

use std::time::Duration;

use serde_json::json;

use super::{Desk, everywhere};
use crate::{
    args::Scenario,
    record::{Asked, Line, Subject},
    sampler::Sample,
    stage::Stage,
    tally::Tally,
    trial::{Play, Trial},
};

/// From start to start on each node.
const PERIOD: Duration = Duration::from_mins(1);
/// What may grow by this much from the first to the last third of the time is called flat.
const FLAT: f64 = 1.1;

pub(super) async fn run(desk: &mut Desk, stage: &Stage) -> anyhow::Result<()> {
    let nodes = u32::try_from(stage.nodes.len())?;
    let objects = desk.args.objects;
    let subject = Subject { scenario: Scenario::Steady.name(), driver: "operator", nodes, objects };
    let play = Play { period: PERIOD, ..Play::BURST };
    let mut trial = Trial::begin(stage, play, desk.deadline()).await?;
    let mut operator = trial.start_operator(&desk.settings).await?;
    let mut spec = everywhere();
    spec["repeat"] = json!({"periodSeconds": PERIOD.as_secs()});
    for index in 1..=objects {
        trial.create(&format!("steady-{index}"), spec.clone()).await?;
    }
    let wanted = nodes as usize * objects as usize;
    let all_up = trial.until_true("session of every pod", |trial| trial.sessions() == wanted).await?;
    // The first executions all fall into the start; what is measured is what comes after.
    drop((trial.ledger.take_stored(), trial.ledger.take_acked()));
    let before = trial.sampler.totals();
    let end = all_up + PERIOD * desk.args.minutes;
    while std::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(1)).await;
        operator.check()?;
    }
    let samples: Vec<Sample> =
        trial.sampler.samples().into_iter().filter(|sample| sample.seconds > 60.0).collect();
    let used = trial.sampler.totals()["operator"].0.saturating_sub(before["operator"].0).as_secs_f64();
    desk.record_metrics(&subject, &operator.metrics().await?)?;
    let tally = Tally::take(&trial, &mut desk.recording, &subject, "")?;
    let mut lines = tally.latency_lines(desk.write_interval());
    for metric in ["operator memory", "kube-apiserver heap", "kube-apiserver memory", "etcd database"] {
        lines.extend(flat(&samples, metric));
    }
    let seconds = f64::from(desk.args.minutes) * PERIOD.as_secs_f64();
    let rate = tally.bytes_between(all_up, end) / 1e3 / seconds;
    let line = |what: &str, asked, measured, unit| Line { what: what.to_owned(), asked, measured, unit };
    lines.push(line("status writes", Asked::Told, rate, "kB/s"));
    lines.push(line("operator: part of a processor in use", Asked::Told, used / seconds * 100.0, "%"));
    lines.push(operator.memory_line()?);
    lines.extend(tally.usage_lines("operator", Asked::Told, Asked::Told));
    lines.extend(tally.common_lines());
    let remarks = vec![tally.kinds(), tally.processors(), trial.theatre.counts.line()];
    desk.recording.section(&subject, lines, remarks)?;
    operator.end().await
}

/// The mean of a metric in the last third of the time, against that in the first.
fn flat(samples: &[Sample], metric: &str) -> Option<Line> {
    let values: Vec<f64> =
        samples.iter().filter(|sample| sample.metric == metric).map(|sample| sample.value).collect();
    let third = values.len() / 3;
    let mean = |part: &[f64]| part.iter().sum::<f64>() / crate::figures::number(part.len());
    let (first, last) = (values.get(..third)?, values.get(values.len() - third..)?);
    (third > 0).then(|| Line {
        what: format!("{metric}, last third of the time against {:.1} in the first", mean(first)),
        asked: Asked::AtMost(FLAT * mean(first)),
        measured: mean(last),
        unit: "MB",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(values: &[f64]) -> Vec<Sample> {
        let sample = |value: &f64| Sample { seconds: 0.0, metric: "m".into(), value: *value, unit: "MB" };
        values.iter().map(sample).collect()
    }

    #[test]
    fn the_last_third_is_compared_with_the_first() {
        let line = flat(&series(&[1.0, 1.0, 9.0, 9.0, 2.0, 2.0]), "m").unwrap();
        assert!((line.measured - 2.0).abs() < 1e-9);
        assert_eq!(line.asked, Asked::AtMost(1.1));
        assert_eq!(flat(&series(&[1.0, 1.0]), "m"), None);
        assert_eq!(flat(&series(&[1.0; 9]), "other"), None);
    }
}
