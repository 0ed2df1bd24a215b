//! Takes a cluster down, whatever is left of it, so that the machine is as it was before.

use std::fs;

use crate::{
    cgroup::Group,
    error::Result,
    folder::{self, ClusterFolder},
    machine::{self, Lock},
    network, state,
    state::State,
    tool,
};

/// Takes the cluster down; says whether there was one.
pub fn down(name: &str) -> Result<bool> {
    tool::check_machine()?;
    state::check_name(name)?;
    let lock = Lock::cluster(name)?;
    let there = ClusterFolder::of(name).path().exists() || !Group::cluster(name)?.processes().is_empty();
    remove(name)?;
    lock.discard()?;
    machine::restore_if_last(Lock::machine()?)?;
    Ok(there)
}

/// Removes everything of a cluster but its lock, which the caller holds.
pub(crate) fn remove(name: &str) -> Result<()> {
    let group = Group::cluster(name)?;
    for node in group.children() {
        // Stopped processes do not end on version 1, not even when killed.
        let inside = group.child(&node).child("root");
        if inside.is_frozen() {
            inside.freeze(false)?;
        }
    }
    group.kill()?;
    group.remove()?;
    let state = State::load(name).ok().flatten();
    if let Some(state) = &state {
        network::remove(state.slot)?;
        remove_kubeconfigs(state)?;
    }
    folder::remove(ClusterFolder::of(name).path())
}

fn remove_kubeconfigs(state: &State) -> Result<()> {
    let own = state.kubeconfig();
    if state.default && fs::read(&own).ok() == fs::read(state.default_kubeconfig()).ok() {
        folder::remove(&state.default_kubeconfig())?;
    }
    if let Some(above) = own.parent() {
        folder::remove(above)?;
    }
    // Other clusters of the same checkout keep it.
    let _ = fs::remove_dir(state.checkout.join(".cluster"));
    Ok(())
}
