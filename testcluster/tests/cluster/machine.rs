//! The state of the machine, as far as a cluster could change it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

/// Settings that count or change by themselves.
const RESTLESS: [&str; 13] = [
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/aio-nr",
    "fs/quota",
    "kernel/ns_last_pid",
    "kernel/pty/nr",
    "kernel/random",
    "net/netfilter/nf_conntrack_count",
    "kernel/sched_domain",
    "fs/mqueue",
    "vm/compact",
];

/// What is compared before and after.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    parts: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Machine {
    /// Looks at everything; `cluster` is the one cluster whose processes count.
    pub(crate) fn look(cluster: &str) -> Self {
        let parts = [
            ("processes", processes(cluster)),
            ("mounts", lines(&read("/proc/self/mountinfo"))),
            ("network namespaces", lines(&run("ip netns list"))),
            ("links", links()),
            ("routes", lines(&run("ip route show table all"))),
            ("rules", lines(&run("ip rule"))),
            ("nft", numbered(&run("nft list ruleset"))),
            ("iptables", numbered(&run("iptables-save"))),
            ("control groups", groups(Path::new("/sys/fs/cgroup"))),
            ("settings", settings(Path::new("/proc/sys"))),
            ("files", files()),
        ];
        Self { parts: parts.into() }
    }

    /// What one has and the other has not, as text; empty when they are equal.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (part, before) in &self.parts {
            let after = &other.parts[part];
            found.extend(before.difference(after).map(|line| format!("{part}: gone: {line}")));
            found.extend(after.difference(before).map(|line| format!("{part}: new: {line}")));
        }
        found
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

/// Lines of rules, of which two may be alike; without comments and packet counters.
fn numbered(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::new();
    let rules = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with(':'));
    rules
        .map(|line| {
            let count = seen.entry(line).or_insert(0);
            *count += 1;
            format!("{line} ({count})")
        })
        .collect()
}

/// Links without their counters and timers.
fn links() -> BTreeSet<String> {
    run("ip -o link show").lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
}

/// Processes that could stem from the cluster: by its folder, the cached binaries or its control group.
fn processes(cluster: &str) -> BTreeSet<String> {
    let folder = format!("scriptrunner-testcluster/{cluster}");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let text = |file: &str| fs::read(path.join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&text("cmdline")).replace('\0', " ");
        let group = String::from_utf8_lossy(&text("cgroup")).into_owned();
        let program = fs::read_link(path.join("exe")).unwrap_or_default().display().to_string();
        let elsewhere = group.contains("/scriptrunner-testcluster/") && !group.contains(&folder);
        let ours =
            command.contains(&folder) || group.contains(&folder) || program.contains("scriptrunner/bin/");
        if ours && !elsewhere {
            found.insert(format!("{pid} {command}"));
        }
    }
    found
}

fn groups(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // Other clusters' groups come and go by themselves below the first two levels.
        if path.is_dir() && !path.is_symlink() && path.components().count() <= 7 {
            found.insert(path.display().to_string());
            found.extend(groups(&path));
        }
    }
    found
}

fn settings(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix("/proc/sys").unwrap().display().to_string();
        if RESTLESS.iter().any(|restless| name.starts_with(restless)) {
            continue;
        }
        if path.is_dir() {
            found.extend(settings(&path));
        } else if let Ok(value) = fs::read_to_string(&path) {
            found.insert(format!("{name} = {}", value.trim()));
        }
    }
    found
}

/// Folders outside of the repository in which something could be left.
fn files() -> BTreeSet<String> {
    [
        "/var/lib",
        "/var/lib/scriptrunner-testcluster",
        "/run",
        "/run/netns",
        "/etc",
        "/tmp/cni",
        "/var/run/cni",
    ]
    .into_iter()
    .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
    .map(|entry| entry.path().display().to_string())
    .collect()
}
