//! The duties of PID 1: buries every child, also those it never made, and kills what a program left behind.
//!
//! **Invariant:** nothing else in this program waits for a child. Until this module has buried a child its pid cannot go to
//! another process, so a signal sent to a child that is not buried never hits a stranger.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags},
    process::{
        Pid, RawPid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, wait,
    },
};

use crate::{log, poll, signals::Signals};

/// How long killing may take; only a process stuck in the kernel needs longer.
const SWEEP: Duration = Duration::from_secs(5);
const SWEEP_AGAIN: Duration = Duration::from_millis(10);

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Code(i32),
    Signal(i32),
}

/// Makes orphans below this process its children even where it is not PID 1, as with `hostPID`.
pub(crate) fn adopt_orphans() {
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        log::line(&format!("cannot become child subreaper, daemons of the script may survive it: {error}"));
    }
}

/// Buries every child that has ended; says how the leader ended, if it was one of them.
pub(super) fn reap(leader: Pid) -> Option<Ending> {
    let mut ending = None;
    // Real-time signals have no name in most libraries, so the raw number is kept.
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == leader {
            ending = status
                .exit_status()
                .map(Ending::Code)
                .or_else(|| status.terminating_signal().map(Ending::Signal));
        }
    }
    ending
}

/// Buries every child that has ended, and says whether there are others.
pub(crate) fn reap_all() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Kills and buries everything that descends from this process, until nothing does. Only own children are signalled:
/// when one dies, its children become ours.
pub(super) fn kill_descendants(group: Pid, signals: &mut Signals) {
    let end = Instant::now() + SWEEP;
    while reap_all() {
        if Instant::now() >= end {
            log::line("processes of the script survive SIGKILL; going on without them");
            return;
        }
        for child in children() {
            // The group is still theirs as long as a child of ours is in it.
            if child.group == group.as_raw_pid() {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = kill_process(child.pid, Signal::KILL);
        }
        signals.clear();
        if reap_all() {
            let wake = signals.wake_fd();
            poll::wait(&mut [PollFd::new(&wake, PollFlags::IN)], Some(SWEEP_AGAIN));
        }
    }
}

struct Child {
    pid: Pid,
    group: RawPid,
}

fn children() -> Vec<Child> {
    let own = getpid().as_raw_pid();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: RawPid| {
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            let (parent, group) = parent_and_group(&stat)?;
            (parent == own).then_some(Child { pid: Pid::from_raw(pid)?, group })
        })
        .collect()
}

/// Parent and process group from `/proc/<pid>/stat`: `pid (name) state parent group ...`, where the name can be anything.
fn parent_and_group(stat: &[u8]) -> Option<(RawPid, RawPid)> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after_name..]).ok()?.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_names_cannot_confuse() {
        assert_eq!(parent_and_group(b"7 (sh) S 1 7 7 0"), Some((1, 7)));
        assert_eq!(parent_and_group(b"7 (a) S 99 99 (\xff) R 2 3 7 0"), Some((2, 3)));
        assert_eq!(parent_and_group(b""), None);
    }
}
