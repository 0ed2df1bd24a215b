//! Brings a cluster up, whatever is there already: nothing, all of it, or the ruins of it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use kube::Client;

use crate::{
    api,
    binaries::{self, Binaries},
    cgroup::Group,
    cluster::Cluster,
    control_plane::{ControlPlane, Data},
    down,
    error::{Error, Result},
    folder, images,
    machine::{self, Lock},
    network,
    node::Node,
    progress::Progress,
    slot::{MAX_NODES, Slot},
    state::{self, State},
    tool,
};

/// What a cluster should be like.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its name: lower-case letters, digits and hyphens.
    pub name: String,
    /// How many nodes it has; none is a control plane alone.
    pub nodes: u8,
    /// What each node may use, in MiB.
    pub node_memory_mib: u64,
    /// How many processes and threads each node may have.
    pub node_processes: u32,
    /// After how long without news a node is not ready.
    pub node_monitor_grace_period_seconds: u32,
    /// Whether its kubeconfig is also the repository's own, `.cluster/kubeconfig`.
    pub default: bool,
    /// The folder with the programs `testcluster` and `pause`.
    pub programs: PathBuf,
}

impl Wish {
    /// Whether a cluster can become this without starting anew; the number of nodes can change at any time.
    fn fits(&self, old: &State) -> bool {
        old.node_monitor_grace_period_seconds == self.node_monitor_grace_period_seconds
            && old.node_memory_mib == self.node_memory_mib
            && old.node_processes == self.node_processes
    }
}

/// Brings the cluster up and waits until all of its nodes are ready.
pub async fn up(wish: &Wish, progress: &Progress) -> Result<Cluster> {
    tool::check_machine()?;
    state::check_name(&wish.name)?;
    let checkout = binaries::find_checkout()?;
    let binaries = Binaries::ensure(&checkout, progress)?;
    let lock = Lock::cluster(&wish.name)?;
    progress.step(&format!("cluster {:?}: preparing", wish.name));
    replace_leftover(wish, &checkout, &binaries, progress)?;
    let old = State::load(&wish.name)?;
    let state = record(wish, checkout, binaries, old.as_ref())?;
    network::ensure(state.slot)?;
    place_programs(wish, &state)?;

    progress.step(&format!("cluster {:?}: starting the control plane", wish.name));
    let control_plane = ControlPlane::new(&state)?;
    if control_plane.start_server()? == Data::Lost {
        progress.note("etcd's data was broken: the cluster starts without it");
        // A kubelet registers its node once; one that runs on would never do it again.
        (1..=state.nodes).try_for_each(|index| Node::new(&state, index)?.kill())?;
    }
    let surplus = old.map_or(0, |old| old.nodes);
    heal_nodes(&state)?;
    let client = api::client(&state.folder().pki().join("admin.kubeconfig")).await?;
    control_plane.await_server(&client).await?;
    write_kubeconfigs(&state)?;
    api::apply_dns(&client, state.slot).await?;
    control_plane.start_clients()?;

    progress.step(&format!("cluster {:?}: waiting for {} nodes", wish.name, state.nodes));
    drop_surplus(&state, surplus, &client).await?;
    await_nodes(&state, &client).await?;
    control_plane.check()?;
    provide_images(&state)?;
    drop(lock);
    Ok(Cluster::of(state))
}

/// What is there under this name but cannot become what is wished goes first.
fn replace_leftover(wish: &Wish, checkout: &Path, binaries: &Binaries, progress: &Progress) -> Result<()> {
    let reason = match State::load(&wish.name) {
        Ok(None) => {
            // An `up` that ended before it recorded anything, or a `down` that was interrupted.
            let group = Group::cluster(&wish.name)?;
            if group.processes().is_empty() {
                return Ok(());
            }
            "it was left half-way".into()
        }
        Ok(Some(old)) if old.checkout != checkout => format!("it belongs to {}", old.checkout.display()),
        Ok(Some(old)) if old.binaries != *binaries => "it runs other binaries".into(),
        Ok(Some(old)) if !wish.fits(&old) => "its settings were others".into(),
        Ok(Some(_)) => return Ok(()),
        Err(error) => error.to_string(),
    };
    progress.note(&format!("cluster {:?}: replacing the one that is there: {reason}", wish.name));
    down::remove(&wish.name)
}

fn record(wish: &Wish, checkout: PathBuf, binaries: Binaries, old: Option<&State>) -> Result<State> {
    if wish.nodes > MAX_NODES {
        return Err(Error::Machine {
            what: format!("{} nodes are not possible: ask for at most {MAX_NODES}", wish.nodes),
        });
    }
    let lock = Lock::machine()?;
    let slot = match old {
        Some(old) => check_slot(old)?,
        None => take_slot()?,
    };
    let state = State {
        name: wish.name.clone(),
        slot,
        checkout,
        binaries,
        nodes: wish.nodes,
        node_memory_mib: wish.node_memory_mib,
        node_processes: wish.node_processes,
        node_monitor_grace_period_seconds: wish.node_monitor_grace_period_seconds,
        default: wish.default || old.is_some_and(|old| old.default),
    };
    state.save()?;
    machine::prepare(&lock)?;
    Ok(state)
}

fn check_slot(old: &State) -> Result<Slot> {
    match network::conflict(old.slot)? {
        Some((range, owner)) => {
            Err(Error::TakeAddress { range: range.to_string(), name: old.name.clone(), owner })
        }
        None => Ok(old.slot),
    }
}

fn take_slot() -> Result<Slot> {
    let mut taken: Vec<Slot> = Vec::new();
    for name in machine::clusters() {
        // What cannot be read cannot say its slot either; its addresses are still seen as routes.
        taken.extend(State::load(&name).ok().flatten().map(|state| state.slot));
    }
    let mut owners = String::new();
    for slot in Slot::all().filter(|slot| !taken.contains(slot)) {
        match network::conflict(slot)? {
            None => return Ok(slot),
            Some((_, owner)) => owners = owner,
        }
    }
    Err(Error::TakeSlot { taken: owners })
}

fn place_programs(wish: &Wish, state: &State) -> Result<()> {
    let folder = state.folder();
    for path in [folder.path().to_owned(), folder.logs()] {
        folder::make(&path, 0o755)?;
    }
    // A copy, so that a later build neither changes nor removes what runs; by rename, as it may be running.
    let (program, new) = (folder.program(), folder.path().join("testcluster.new"));
    let built = wish.programs.join("testcluster");
    fs::copy(&built, &new).map_err(Error::file("copy", &built))?;
    fs::rename(&new, &program).map_err(Error::file("rename", &new))?;
    images::pack_pause(&wish.programs.join("pause"), &folder.path().join("pause.tar"))
}

/// Starts dead nodes and undoes what befell the others, all at once.
fn heal_nodes(state: &State) -> Result<()> {
    let heal = |index| Node::new(state, index)?.heal();
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=state.nodes).map(|index| scope.spawn(move || heal(index))).collect();
        threads.into_iter().try_for_each(join)
    })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Removes the nodes above the wished number, which an earlier `up` made.
async fn drop_surplus(state: &State, had: u8, client: &Client) -> Result<()> {
    for index in state.nodes + 1..=had {
        let node = Node::new(state, index)?;
        node.kill()?;
        folder::remove(&node.disk())?;
        api::delete_node(client, node.name()).await?;
    }
    Ok(())
}

async fn await_nodes(state: &State, client: &Client) -> Result<()> {
    let nodes = (1..=state.nodes).map(|index| {
        let node = Node::new(state, index)?;
        Ok((node.name().to_owned(), node.start_time()?))
    });
    let nodes = nodes.collect::<Result<Vec<_>>>()?;
    tokio::select! {
        ready = api::await_nodes(client, &nodes) => ready,
        dead = await_death(state) => Err(dead?),
    }
}

/// Waits until a node ends, which none should; gives the error about it.
async fn await_death(state: &State) -> Result<Error> {
    loop {
        for index in 1..=state.nodes {
            let node = Node::new(state, index)?;
            if node.first_process().is_none() {
                return Ok(node.failure("has ended"));
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn provide_images(state: &State) -> Result<()> {
    let archives = images::archives(&state.folder())?;
    let ctr = state.binaries.containerd.join("ctr");
    for index in 1..=state.nodes {
        images::provide(&Node::new(state, index)?, &archives, &ctr)?;
    }
    Ok(())
}

fn write_kubeconfigs(state: &State) -> Result<()> {
    let content = state.folder().pki().join("admin.kubeconfig");
    let content = fs::read(&content).map_err(Error::file("read", &content))?;
    let own = state.kubeconfig();
    let mut paths = vec![state.checkout.join(".cluster"), state.checkout.join(".cluster").join(&state.name)];
    for folder in &paths {
        folder::make(folder, 0o755)?;
    }
    folder::write(&own, &content, 0o600)?;
    paths.push(own);
    if state.default {
        folder::write(&state.default_kubeconfig(), &content, 0o600)?;
        paths.push(state.default_kubeconfig());
    }
    // Root wrote them, but they are for whoever works in the repository.
    let owner = fs::metadata(&state.checkout).map_err(Error::file("read", &state.checkout))?;
    for path in paths {
        chown(&path, Some(owner.uid()), Some(owner.gid())).map_err(Error::file("give away", &path))?;
    }
    Ok(())
}
