//! What a trial came to: every figure into the recording, and the lines of the summary that all scenarios share.

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    audit::Requests,
    figures::{Spread, number},
    objects::Revision,
    record::{Asked, Line, Recording, Subject},
    stage::USER,
    trial::Trial,
    usage::megabytes,
};

/// How long after the last result status writes are averaged.
pub(crate) const AFTERWARDS: Duration = Duration::from_secs(10);
/// For sizes of objects.
pub(crate) const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// What a trial came to.
pub(crate) struct Tally {
    pub(crate) requests: Requests,
    pub(crate) revisions: Vec<Revision>,
    pub(crate) stored: Option<Spread>,
    pub(crate) acked: Option<Spread>,
    /// Processor time and most memory, by program.
    pub(crate) programs: BTreeMap<String, (Duration, u64)>,
    pub(crate) refused_sessions: usize,
    /// Objects whose results the size limit cut, as they are now.
    pub(crate) truncated_nodes: u32,
}

impl Tally {
    /// Takes stock of a trial, and records all of it.
    pub(crate) fn take(
        trial: &Trial<'_>,
        recording: &mut Recording,
        subject: &Subject,
        agent: &str,
    ) -> anyhow::Result<Self> {
        let tally = Self {
            requests: trial.mark.requests(USER, agent)?,
            revisions: trial.objects.revisions(),
            stored: Spread::of(&trial.ledger.take_stored()),
            acked: Spread::of(&trial.ledger.take_acked()),
            programs: trial.sampler.totals(),
            refused_sessions: trial.theatre.counts.refused.load(Ordering::Relaxed),
            truncated_nodes: trial
                .objects
                .newest()
                .iter()
                .filter_map(|status| status.truncation.as_ref())
                .map(|cut| cut.nodes)
                .sum(),
        };
        tally.record(trial, recording, subject)?;
        Ok(tally)
    }

    fn record(&self, trial: &Trial<'_>, recording: &mut Recording, subject: &Subject) -> anyhow::Result<()> {
        let mut figure =
            |metric: &str, value: f64, unit: &str| recording.figure(subject, None, metric, value, unit);
        for (kind, count) in &self.requests.by_kind {
            figure(&format!("requests {kind}"), number(*count), "")?;
        }
        for (kind, count) in &self.requests.refused {
            figure(&format!("refused {kind}"), number(*count), "")?;
        }
        figure("requests answered 429", number(self.requests.too_many), "")?;
        figure("status revisions", number(self.revisions.len()), "")?;
        figure("status bytes", self.bytes(), "bytes")?;
        figure("largest object", self.largest(), "bytes")?;
        figure("nodes with cut results", f64::from(self.truncated_nodes), "")?;
        for (name, spread) in [("end to status", self.stored), ("end to ack", self.acked)] {
            let Some(Spread { p50, p99, max }) = spread else { continue };
            figure(&format!("{name} p50"), p50, "s")?;
            figure(&format!("{name} p99"), p99, "s")?;
            figure(&format!("{name} max"), max, "s")?;
        }
        for (name, (cpu, memory)) in &self.programs {
            figure(&format!("{name} processor time"), cpu.as_secs_f64(), "s")?;
            figure(&format!("{name} most memory"), megabytes(*memory), "MB")?;
        }
        let load = |counter: &std::sync::atomic::AtomicUsize| number(counter.load(Ordering::Relaxed));
        let (sessions, pods) = (&trial.theatre.counts, &trial.kubelets.counts);
        for (name, counter) in [
            ("sessions made", &sessions.connects),
            ("sessions broken", &sessions.disconnects),
            ("sessions postponed", &sessions.postponed),
            ("sessions refused", &sessions.refused),
            ("pods made", &pods.made),
            ("pods ended", &pods.ended),
            ("pods gone before their end", &pods.gone),
        ] {
            figure(name, load(counter), "")?;
        }
        figure("mean pod as made", load(&pods.made_bytes) / load(&pods.made).max(1.0), "bytes")?;
        for sample in trial.sampler.samples() {
            recording.figure(subject, Some(sample.seconds), &sample.metric, sample.value, sample.unit)?;
        }
        Ok(())
    }

    /// All bytes of all revisions.
    pub(crate) fn bytes(&self) -> f64 {
        self.revisions.iter().map(|revision| number(revision.bytes)).sum()
    }

    /// Bytes of the revisions from `start` to `end`.
    pub(crate) fn bytes_between(&self, start: Instant, end: Instant) -> f64 {
        let within = self.revisions.iter().filter(|revision| revision.at > start && revision.at <= end);
        within.map(|revision| number(revision.bytes)).sum()
    }

    /// The largest object that was seen, in bytes.
    pub(crate) fn largest(&self) -> f64 {
        self.revisions.iter().map(|revision| number(revision.bytes)).fold(0.0, f64::max)
    }

    /// Lines for the size of the object, requests and refusals.
    pub(crate) fn common_lines(&self) -> Vec<Line> {
        let line = |what: &str, asked, measured, unit| Line { what: what.to_owned(), asked, measured, unit };
        vec![
            line("largest object at any revision", Asked::AtMost(1.0), self.largest() / MEBIBYTE, "MiB"),
            line("nodes whose results the size limit cut", Asked::Told, f64::from(self.truncated_nodes), ""),
            line("lists after the start", Asked::AtMost(0.0), number(self.requests.lists()), ""),
            line("answers 429 to anybody", Asked::AtMost(0.0), number(self.requests.too_many), ""),
            line("honest runners refused", Asked::AtMost(0.0), number(self.refused_sessions), ""),
        ]
    }

    /// Lines for how late a result was in the status, asked against the interval between two writes.
    pub(crate) fn latency_lines(&self, interval: Duration) -> Vec<Line> {
        let Some(Spread { p50, p99, max }) = self.stored else { return Vec::new() };
        let line = |what: &str, asked, measured| {
            let what = format!("execution's end to status, {what}");
            Line { what, asked, measured, unit: "s" }
        };
        let limit = (interval + Duration::from_secs(1)).as_secs_f64();
        vec![
            line("p50", Asked::Told, p50),
            line("p99", Asked::AtMost(limit), p99),
            line("longest", Asked::Told, max),
        ]
    }

    /// Lines for what a program used.
    pub(crate) fn usage_lines(&self, program: &str, cpu: Asked, memory: Asked) -> Vec<Line> {
        let Some((time, most)) = self.programs.get(program) else { return Vec::new() };
        vec![
            Line {
                what: format!("{program}: processor time"),
                asked: cpu,
                measured: time.as_secs_f64(),
                unit: "s",
            },
            Line {
                what: format!("{program}: most memory"),
                asked: memory,
                measured: megabytes(*most),
                unit: "MB",
            },
        ]
    }

    /// Who used the processors, in one sentence.
    pub(crate) fn processors(&self) -> String {
        let mut used: Vec<_> = self.programs.iter().map(|(name, (cpu, _))| (*cpu, name)).collect();
        used.sort_by(|one, other| other.cmp(one));
        let used: Vec<_> =
            used.iter().map(|(cpu, name)| format!("{name} {:.1}", cpu.as_secs_f64())).collect();
        format!("Processor seconds of everything: {}.", used.join(", "))
    }

    /// The requests by kind, in one sentence.
    pub(crate) fn kinds(&self) -> String {
        let kinds: Vec<_> =
            self.requests.by_kind.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        format!("Requests: {}.", kinds.join(", "))
    }
}
