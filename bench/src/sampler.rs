//! Watches the programs while something is measured: processor time and memory every second, the API server's heap and the
//! size of the database every five.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kube::Client;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    exposition,
    usage::{Usage, megabytes},
};

/// Time between two looks at the programs.
const PERIOD: Duration = Duration::from_secs(1);
/// So many of these between two looks at the API server's own metrics, which are large.
const EVERY: u32 = 5;

/// A number at a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Since the sampler's start.
    pub(crate) seconds: f64,
    pub(crate) metric: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

#[derive(Default)]
struct Seen {
    samples: Vec<Sample>,
    /// First and newest usage of each program.
    programs: BTreeMap<(String, u32), (Usage, Usage)>,
}

/// Samples until it is dropped.
pub(crate) struct Sampler {
    seen: Arc<Mutex<Seen>>,
    programs: Arc<Mutex<Vec<(String, u32)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Sampler {
    /// Begins.
    pub(crate) fn start(admin: Client, programs: Vec<(String, u32)>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let programs = Arc::new(Mutex::new(programs));
        let task = tokio::spawn(sample(admin, programs.clone(), seen.clone()));
        Self { seen, programs, task }
    }

    /// From now on also this program.
    pub(crate) fn add(&self, name: &str, pid: u32) {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.push((name.to_owned(), pid));
        look(&mut lock(&self.seen), None, &programs);
    }

    /// Processor time counts from here on.
    pub(crate) fn count_from_now(&self) {
        let programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut seen = lock(&self.seen);
        look(&mut seen, None, &programs);
        seen.programs.values_mut().for_each(|(first, newest)| *first = *newest);
    }

    /// Processor seconds used since then, by program, several of one name added up; and the most memory of each.
    pub(crate) fn totals(&self) -> BTreeMap<String, (Duration, u64)> {
        let programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut seen = lock(&self.seen);
        look(&mut seen, None, &programs);
        let mut totals: BTreeMap<String, (Duration, u64)> = BTreeMap::new();
        for ((name, _), (first, newest)) in &seen.programs {
            let total = totals.entry(name.clone()).or_default();
            total.0 += newest.cpu.saturating_sub(first.cpu);
            total.1 = total.1.max(newest.peak_memory);
        }
        totals
    }

    /// Every sample so far.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        lock(&self.seen).samples.clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn sample(admin: Client, programs: Arc<Mutex<Vec<(String, u32)>>>, seen: Arc<Mutex<Seen>>) {
    let start = Instant::now();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for tick in 0.. {
        ticks.tick().await;
        let running = programs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        look(&mut lock(&seen), Some(start.elapsed()), &running);
        if tick % EVERY == 0 {
            let found = server(&admin).await;
            let seconds = start.elapsed().as_secs_f64();
            let samples = found.into_iter().map(|(metric, value)| Sample {
                seconds,
                metric: metric.to_owned(),
                value: value / 1e6,
                unit: "MB",
            });
            lock(&seen).samples.extend(samples);
        }
    }
}

/// One look at every program, for the series too if it has a time. A program that is gone has nothing to say any more.
fn look(seen: &mut Seen, since_start: Option<Duration>, programs: &[(String, u32)]) {
    for (name, pid) in programs {
        let Ok(usage) = Usage::of(*pid) else { continue };
        let (_, newest) = seen.programs.entry((name.clone(), *pid)).or_insert((usage, usage));
        *newest = usage;
        if let Some(seconds) = since_start.as_ref().map(Duration::as_secs_f64) {
            for (what, value, unit) in
                [("cpu", usage.cpu.as_secs_f64(), "s"), ("memory", megabytes(usage.memory), "MB")]
            {
                seen.samples.push(Sample { seconds, metric: format!("{name} {what}"), value, unit });
            }
        }
    }
}

/// The API server's heap and the database's size. A server that does not answer in time is busy with what is measured.
async fn server(admin: &Client) -> Vec<(&'static str, f64)> {
    let Ok(request) = http::Request::get("/metrics").body(Vec::new()) else { return Vec::new() };
    let answer = tokio::time::timeout(Duration::from_secs(4), admin.request_text(request)).await;
    let Ok(Ok(text)) = answer else { return Vec::new() };
    [
        ("kube-apiserver heap", "go_memstats_heap_inuse_bytes"),
        ("etcd database", "apiserver_storage_size_bytes"),
    ]
    .into_iter()
    .filter_map(|(name, metric)| Some((name, exposition::sum(&text, metric, "")?)))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_counts_from_the_first_look_and_over_restarts() {
        let used = |seconds, memory| Usage { cpu: Duration::from_secs(seconds), memory, peak_memory: memory };
        let mut seen = Seen::default();
        seen.programs.insert(("operator".into(), 1), (used(5, 10), used(7, 20)));
        seen.programs.insert(("operator".into(), 2), (used(0, 10), used(3, 15)));
        let sampler = Sampler {
            seen: Arc::new(Mutex::new(seen)),
            programs: Arc::default(),
            task: tokio::runtime::Builder::new_current_thread().build().unwrap().spawn(async {}),
        };
        assert_eq!(sampler.totals()["operator"], (Duration::from_secs(5), 20));
    }

    #[test]
    fn a_program_that_is_gone_is_left_out() {
        let mut seen = Seen::default();
        let programs = [("gone".to_owned(), u32::MAX - 1), ("me".to_owned(), std::process::id())];
        look(&mut seen, Some(Duration::from_secs(2)), &programs);
        let metrics: Vec<_> = seen.samples.iter().map(|sample| sample.metric.as_str()).collect();
        assert_eq!(metrics, ["me cpu", "me memory"]);
        assert!((seen.samples[0].seconds - 2.0).abs() < 0.001);
    }
}
