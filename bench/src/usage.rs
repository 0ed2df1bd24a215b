//! What processes use, read from /proc.

use std::{fs, time::Duration};

use anyhow::Context;

/// Processor time and memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Processor time since its start, its children's not included.
    pub(crate) cpu: Duration,
    /// Memory that it holds now, in bytes.
    pub(crate) memory: u64,
    /// The most that it ever held, in bytes.
    pub(crate) peak_memory: u64,
}

impl Usage {
    /// Of a process that runs.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let ticks = rustix::param::clock_ticks_per_second();
        parse(&read("stat")?, &read("status")?, ticks)
            .with_context(|| format!("/proc/{pid} has another form than expected"))
    }
}

/// Bytes as people count memory.
#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 bytes")]
pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn parse(stat: &str, status: &str, ticks_per_second: u64) -> Option<Usage> {
    // The name of the program stands in brackets and may contain anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    };
    Some(Usage {
        cpu: Duration::from_millis((user + system) * 1000 / ticks_per_second),
        memory: field("VmRSS:")?,
        peak_memory: field("VmHWM:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_an_odd_name_is_read_too() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 100 1000 200";
        let status = "Name:\ta) b (c\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let usage = parse(stat, status, 100).unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(3));
        assert_eq!((usage.memory, usage.peak_memory), (1 << 20, 2 << 20));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.memory > 0 && usage.peak_memory >= usage.memory, "{usage:?}");
    }
}
