//! Runs one program: in a process group of its own, both streams captured and passed on, ended at its deadline or when
//! the runner is told to stop, and nothing of it left behind.

mod escalation;
mod reap;
mod stream;

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

pub(crate) use self::{
    escalation::CutBy,
    reap::{Ending, adopt_orphans, reap_all},
    stream::Outlet,
};
use self::{
    escalation::{Escalation, Order},
    stream::Stream,
};
use crate::{
    args::Environment,
    capture::{Capture, Captured, Kept},
    mask::Mask,
    signals::Signals,
};

/// How long the streams may stay open after the program has ended: others can hold them for ever.
const DRAIN: Duration = Duration::from_millis(200);
/// How long the log may take the last output of an ended program.
const FLUSH: Duration = Duration::from_secs(5);

/// What is to be run.
pub(crate) struct Job<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: &'a [OsString],
    pub(crate) environment: &'a Environment,
    pub(crate) folder: &'a Path,
    /// Where its stdout is passed on to; its stderr always goes to stderr.
    pub(crate) outlet: Outlet,
    /// What is hidden in its output; the script's is passed on and kept as it is.
    pub(crate) mask: Option<&'a Mask>,
}

/// How long it may take and how much of it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) deadline: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) stdout_bytes: usize,
    pub(crate) stderr_bytes: usize,
    /// Which part of a stream that is longer.
    pub(crate) kept: Kept,
}

/// A program that was run.
pub(crate) struct Finished {
    pub(crate) ending: Ending,
    pub(crate) cut_by: Option<CutBy>,
    pub(crate) duration: Duration,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
}

/// Runs the program to its end. An error means that it could not be started.
pub(crate) fn execute(job: &Job<'_>, limits: &Limits, signals: &mut Signals) -> io::Result<Finished> {
    let started = Instant::now();
    let (leader, mut streams) = start(job, limits)?;
    let mut escalation = Escalation::new(started, limits);
    let ending = loop {
        signals.clear();
        if let Some(ending) = reap::reap(leader) {
            break ending;
        }
        let now = Instant::now();
        if let Some(order) = escalation.step(now, signals.stop_requested()) {
            obey(order, leader);
        }
        stream::pump(&mut streams, signals, escalation.timeout(now));
    };
    let duration = started.elapsed();
    pump_until(&mut streams, signals, DRAIN, Stream::is_open);
    reap::kill_descendants(leader, signals);
    streams.iter_mut().for_each(Stream::read_rest);
    pump_until(&mut streams, signals, FLUSH, Stream::is_pending);
    let [stdout, stderr] = streams.map(Stream::finish);
    Ok(Finished { ending, cut_by: escalation.cut_by(), duration, stdout, stderr })
}

fn start(job: &Job<'_>, limits: &Limits) -> io::Result<(Pid, [Stream; 2])> {
    let mut child = Command::new(job.program)
        .args(job.arguments)
        .env_clear()
        .envs(job.environment.iter())
        .current_dir(job.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let stdout = child.stdout.take().expect("stdout should be a pipe");
    let stderr = child.stderr.take().expect("stderr should be a pipe");
    let streams = [
        Stream::new(stdout.into(), Capture::new(limits.stdout_bytes, limits.kept), job.outlet, job.mask),
        Stream::new(stderr.into(), Capture::new(limits.stderr_bytes, limits.kept), Outlet::Stderr, job.mask),
    ];
    // Never waited for through `child`: there is one reaper, and it must know every pid.
    Ok((Pid::from_child(&child), streams))
}

/// Only called while the leader is not reaped, so that its pid cannot have gone to another process.
fn obey(order: Order, leader: Pid) {
    // Errors mean that there is nobody left to be signalled.
    match order {
        Order::Terminate => {
            let _ = kill_process_group(leader, Signal::TERM);
            // A stopped process would see its SIGTERM only when somebody continues it.
            let _ = kill_process_group(leader, Signal::CONT);
        }
        Order::Kill => {
            let _ = kill_process_group(leader, Signal::KILL);
            // It may have moved to another group.
            let _ = kill_process(leader, Signal::KILL);
        }
    }
}

/// Passes the streams on as long as one of them asks for it, for a limited time.
fn pump_until(
    streams: &mut [Stream; 2],
    signals: &mut Signals,
    limit: Duration,
    is_wanted: fn(&Stream) -> bool,
) {
    let end = Instant::now() + limit;
    while streams.iter().any(is_wanted) {
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            break;
        }
        signals.clear();
        reap_all();
        stream::pump(streams, signals, Some(rest));
    }
}
