//! What `up` records about a cluster, so that every later command finds it.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    binaries::Binaries,
    component::Settings,
    error::{Error, Result},
    folder::{self, ClusterFolder},
    slot::Slot,
};

/// A cluster as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The cluster's name.
    pub name: String,
    /// Its slot on this machine.
    pub slot: Slot,
    /// The repository it belongs to.
    pub checkout: PathBuf,
    /// The binaries it runs.
    pub binaries: Binaries,
    /// How many nodes it has.
    pub nodes: u8,
    /// What a node may use, in MiB.
    pub node_memory_mib: u64,
    /// How many processes and threads a node may have.
    pub node_processes: u32,
    /// After how long without news a node is not ready.
    pub node_monitor_grace_period_seconds: u32,
    /// Whether its kubeconfig is also the repository's own.
    pub default: bool,
}

impl State {
    /// Reads what was recorded; none when there is no such cluster.
    pub fn load(name: &str) -> Result<Option<Self>> {
        let path = ClusterFolder::of(name).state();
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Error::ParseState { path, reason: error.to_string() })
    }

    /// Records it.
    pub(crate) fn save(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::Encode { what: "the state".into(), reason: error.to_string() })?;
        folder::make(self.folder().path(), 0o755)?;
        folder::write(&self.folder().state(), text, 0o644)
    }

    /// The cluster's folder.
    pub fn folder(&self) -> ClusterFolder {
        ClusterFolder::of(&self.name)
    }

    /// The name of node `index` (from 1).
    pub fn node_name(&self, index: u8) -> String {
        format!("{}-node{index}", self.name)
    }

    /// The names of all nodes.
    pub fn node_names(&self) -> Vec<String> {
        (1..=self.nodes).map(|index| self.node_name(index)).collect()
    }

    /// The kubeconfig for people and tests.
    pub fn kubeconfig(&self) -> PathBuf {
        self.checkout.join(".cluster").join(&self.name).join("kubeconfig")
    }

    /// The repository's own kubeconfig, which only one cluster writes.
    pub fn default_kubeconfig(&self) -> PathBuf {
        self.checkout.join(".cluster/kubeconfig")
    }

    /// What the control plane's arguments depend on.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            folder: self.folder(),
            slot: self.slot,
            node_monitor_grace_period_seconds: self.node_monitor_grace_period_seconds,
        }
    }
}

/// Checks that a name can be part of node names, file names and label values.
pub fn check_name(name: &str) -> Result<()> {
    let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if letters && first && name.len() <= 20 && !name.ends_with('-') {
        return Ok(());
    }
    Err(Error::ParseName { name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_paths_or_node_names_are_refused() {
        for name in ["dev", "e2e", "a-b-1"] {
            check_name(name).unwrap();
        }
        for name in ["", "Dev", "../x", "1a", "a_b", "a-", "averyveryverylongname1"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
