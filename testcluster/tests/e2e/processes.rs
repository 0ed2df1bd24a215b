//! Processes of nodes, found and killed from the machine: a node's processes are the machine's too.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use scriptrunner_testcluster::{Cluster, wait};

use crate::stage::PATIENCE;

/// `pid program` of a process and of all that descend from it.
pub(crate) fn all_of(first: u32) -> BTreeSet<String> {
    let is_its = |pid: &u32| is_below(*pid, &[first]);
    let named = |pid: u32| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{pid} {}", name.trim())
    };
    pids().filter(is_its).map(named).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
}

/// Pids of the cluster's processes that run `program` (a file name) with `argument` among their arguments.
pub(crate) fn find(cluster: &Cluster, program: &str, argument: &str) -> Vec<u32> {
    let nodes: Vec<u32> =
        cluster.node_names().iter().filter_map(|node| cluster.node_process(node).ok().flatten()).collect();
    pids()
        .filter(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut arguments = arguments.split(|byte| *byte == 0);
            let first = arguments.next().map(String::from_utf8_lossy).unwrap_or_default();
            Path::new(first.as_ref()).file_name().is_some_and(|name| name == program)
                && (argument.is_empty() || arguments.any(|found| found == argument.as_bytes()))
        })
        .filter(|pid| is_below(*pid, &nodes))
        .collect()
}

/// Waits until exactly one such process runs.
pub(crate) async fn find_one(cluster: &Cluster, program: &str, argument: &str) -> u32 {
    wait::until(&format!("one process {program:?} with {argument:?}"), PATIENCE, async |seen| {
        let found = find(cluster, program, argument);
        seen.note(format!("{found:?}"));
        Ok::<_, kube::Error>(match found[..] {
            [pid] => Some(pid),
            _ => None,
        })
    })
    .await
    .unwrap()
}

/// Waits until no such process runs.
pub(crate) async fn until_none(cluster: &Cluster, program: &str, argument: &str) {
    wait::until(&format!("no process {program:?} with {argument:?}"), PATIENCE, async |seen| {
        let found = find(cluster, program, argument);
        seen.note(format!("{found:?}"));
        Ok::<_, kube::Error>(found.is_empty().then_some(()))
    })
    .await
    .unwrap();
}

/// Waits until a process has a child.
pub(crate) async fn until_child(pid: u32) {
    wait::until(&format!("a child of process {pid}"), PATIENCE, async |_| {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok::<_, std::io::Error>((!children.trim().is_empty()).then_some(()))
    })
    .await
    .unwrap();
}

/// Sends SIGKILL.
pub(crate) fn kill(pid: u32) {
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -KILL {pid}: {status}");
}

/// Memory that a process holds, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Whether a process is one of `ancestors` or descends from one.
fn is_below(mut pid: u32, ancestors: &[u32]) -> bool {
    while pid > 1 {
        if ancestors.contains(&pid) {
            return true;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        pid = parent.and_then(|parent| parent.trim().parse().ok()).unwrap_or(0);
    }
    false
}
