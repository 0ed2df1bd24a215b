//! Settings of the machine itself that clusters need; the last cluster to go puts them back.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    folder::{self, STATE_ROOT},
};

/// Settings, each with the value that a cluster needs.
const SETTINGS: &[(&str, u64)] = &[
    // Pods reach each other and the outside through the machine.
    ("net/ipv4/ip_forward", 1),
    // Each kubelet, containerd and log reader takes a few; 128 do not last for three nodes.
    ("fs/inotify/max_user_instances", 8192),
    ("fs/inotify/max_user_watches", 131_072),
];

/// A file that only one process at a time holds.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Lock {
    /// Waits for the lock of this machine's settings and slots.
    pub(crate) fn machine() -> Result<Self> {
        Self::take(Path::new(STATE_ROOT).join("machine.lock"))
    }

    /// Waits for the lock of the cluster `name`.
    pub(crate) fn cluster(name: &str) -> Result<Self> {
        Self::take(Path::new(STATE_ROOT).join(format!("{name}.lock")))
    }

    /// Waits for the lock at `path`.
    pub(crate) fn take(path: PathBuf) -> Result<Self> {
        loop {
            if let Some(above) = path.parent() {
                folder::make(above, 0o755)?;
            }
            let opened = File::options().create(true).truncate(false).write(true).open(&path);
            let file = match opened {
                // The folder went together with the last cluster, between the two steps.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                opened => opened.map_err(Error::file("open", &path))?,
            };
            let file = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| Error::file("lock", &path)(errno))?;
            // The previous holder may have removed the file: then this lock is on nothing.
            let held = file.metadata().map_err(Error::file("read", &path))?.ino();
            if fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == held) {
                return Ok(Self { path, _file: file });
            }
        }
    }

    /// Removes the file and lets go.
    pub(crate) fn discard(self) -> Result<()> {
        folder::remove(&self.path)
    }
}

/// The values that were found, for the way back.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    boot: String,
    values: BTreeMap<String, String>,
}

fn record() -> PathBuf {
    Path::new(STATE_ROOT).join("machine.json")
}

/// A text that is another one after each start of the machine.
pub(crate) fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).map_err(Error::file("read", path))?.trim().to_owned())
}

fn load() -> Result<Option<Found>> {
    let boot = boot_id()?;
    let found: Option<Found> =
        fs::read_to_string(record()).ok().and_then(|text| serde_json::from_str(&text).ok());
    // A start of the machine has undone everything.
    Ok(found.filter(|found| found.boot == boot))
}

/// Raises what is too low; the caller holds the machine's lock.
pub(crate) fn prepare(_lock: &Lock) -> Result<()> {
    let mut found = match load()? {
        Some(found) => found,
        None => Found { boot: boot_id()?, values: BTreeMap::new() },
    };
    let mut raise = Vec::new();
    for (name, needed) in SETTINGS {
        let path = Path::new("/proc/sys").join(name);
        let value = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        if value.trim().parse::<u64>().is_ok_and(|value| value >= *needed) {
            continue;
        }
        found.values.entry((*name).into()).or_insert(value.trim().into());
        raise.push((path, needed));
    }
    // Recorded before anything is changed: a crash in between must not lose the old values.
    let text = serde_json::to_string(&found)
        .map_err(|error| Error::Encode { what: "settings".into(), reason: error.to_string() })?;
    folder::write(&record(), text, 0o644)?;
    for (path, needed) in raise {
        fs::write(&path, needed.to_string()).map_err(Error::file("write", &path))?;
    }
    Ok(())
}

/// Puts everything back when no cluster is left; the caller holds the machine's lock, which ends here.
pub(crate) fn restore_if_last(lock: Lock) -> Result<()> {
    if !clusters().is_empty() {
        return Ok(());
    }
    if let Some(found) = load()? {
        for (name, value) in &found.values {
            let path = Path::new("/proc/sys").join(name);
            fs::write(&path, value).map_err(Error::file("write", &path))?;
        }
    }
    folder::remove(&record())?;
    lock.discard()?;
    // Fails when another `up` has just begun, and that is right.
    let _ = fs::remove_dir(STATE_ROOT);
    Ok(())
}

/// The names of all clusters of this machine.
pub(crate) fn clusters() -> Vec<String> {
    let Ok(entries) = fs::read_dir(STATE_ROOT) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
