//! A running cluster, for tests and for the other commands.

use std::path::{Path, PathBuf};

use kube::Client;

use crate::{
    api,
    component::Component,
    control_plane::ControlPlane,
    error::{Error, Result},
    images,
    machine::Lock,
    node::{Condition, Node},
    state::State,
    tool,
};

/// A cluster that `up` made.
#[derive(Clone, Debug)]
pub struct Cluster {
    state: State,
}

impl Cluster {
    pub(crate) fn of(state: State) -> Self {
        Self { state }
    }

    /// Finds the cluster `name`.
    pub fn existing(name: &str) -> Result<Self> {
        let state = State::load(name)?.ok_or_else(|| Error::FindCluster { name: name.into() })?;
        Ok(Self { state })
    }

    /// The names of all clusters of this machine.
    pub fn names() -> Vec<String> {
        crate::machine::clusters()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// What `up` recorded about it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The kubeconfig of its administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.kubeconfig()
    }

    /// A client for its administrator.
    pub async fn client(&self) -> Result<Client> {
        api::client(&self.kubeconfig()).await
    }

    /// A client that acts as `user`, in `groups` besides that of all users.
    pub async fn acting_as(&self, user: &str, groups: &[&str]) -> Result<Client> {
        let groups = groups.iter().chain(&["system:authenticated"]).map(ToString::to_string).collect();
        let act = |config: &mut kube::Config| {
            config.auth_info.impersonate = Some(user.to_owned());
            config.auth_info.impersonate_groups = Some(groups);
        };
        api::client_with(&self.kubeconfig(), act).await
    }

    /// The API server's address for clients.
    pub fn api_url(&self) -> String {
        self.state.slot.api_url()
    }

    /// The machine's address that nodes and pods reach: a test can serve something there.
    pub fn gateway(&self) -> std::net::Ipv4Addr {
        self.state.slot.gateway()
    }

    /// The names of its nodes.
    pub fn node_names(&self) -> Vec<String> {
        self.state.node_names()
    }

    /// The kubectl that fits it.
    pub fn kubectl(&self) -> PathBuf {
        self.state.binaries.kubectl()
    }

    /// One of the binaries it runs, by name.
    pub fn binary(&self, name: &str) -> Option<PathBuf> {
        self.state.binaries.find(name)
    }

    /// The folder with the control plane's logs.
    pub fn logs(&self) -> PathBuf {
        self.state.folder().logs()
    }

    /// The API server's audit log: one JSON object per line, level Metadata, one line per finished request.
    pub fn audit_log(&self) -> PathBuf {
        self.state.settings().audit_log()
    }

    /// The folder on the machine that is a node's `/var`; `log/kubelet.log` in it is the kubelet's log.
    pub fn node_var(&self, node: &str) -> Result<PathBuf> {
        Ok(self.node(node)?.disk().join("var"))
    }

    /// The folder on the machine that is a node's `/etc`.
    pub fn node_etc(&self, node: &str) -> Result<PathBuf> {
        Ok(self.node(node)?.disk().join("etc"))
    }

    /// How a node is doing, seen from the machine.
    pub fn condition(&self, node: &str) -> Result<Condition> {
        Ok(self.node(node)?.condition())
    }

    /// Ends all processes of a node at once, as a power cut does. Its disk stays.
    pub fn kill(&self, node: &str) -> Result<()> {
        let (_lock, node) = self.locked(node)?;
        node.kill()
    }

    /// Stops all processes of a node where they are.
    pub fn freeze(&self, node: &str) -> Result<()> {
        let (_lock, node) = self.locked(node)?;
        node.freeze()
    }

    /// Unplugs a node from the network.
    pub fn cut(&self, node: &str) -> Result<()> {
        let (_lock, node) = self.locked(node)?;
        node.cut()
    }

    /// Undoes [`Self::kill`] (the node boots from its disk), [`Self::freeze`] and [`Self::cut`].
    /// Returns when the node has started, not when Kubernetes calls it ready.
    pub fn heal(&self, node: &str) -> Result<()> {
        let (_lock, node) = self.locked(node)?;
        node.heal()
    }

    /// Imports an image archive (docker or OCI) into all running nodes, and into those that come later; gives the
    /// images' names.
    pub fn load_image(&self, archive: &Path) -> Result<Vec<String>> {
        tool::check_machine()?;
        let _lock = Lock::cluster(self.name())?;
        let kept = images::remember(&self.state.folder(), archive)?;
        let ctr = self.state.binaries.containerd.join("ctr");
        let state = &self.state;
        let loaded: Result<Vec<Vec<String>>> = std::thread::scope(|scope| {
            let load = |index| {
                let node = Node::new(state, index)?;
                if node.condition() == Condition::Dead {
                    return Ok(Vec::new());
                }
                images::provide(&node, std::slice::from_ref(&kept), &ctr)
            };
            let threads: Vec<_> = (1..=state.nodes).map(|index| scope.spawn(move || load(index))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut names: Vec<String> = loaded?.into_iter().flatten().collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Whether each component of the control plane runs: (name, log, running).
    pub fn components(&self) -> Result<Vec<(&'static str, PathBuf, bool)>> {
        let control_plane = ControlPlane::new(&self.state)?;
        let describe = |component: Component| {
            (component.name(), control_plane.log(component), control_plane.is_running(component))
        };
        Ok(Component::ALL.into_iter().map(describe).collect())
    }

    /// The pid, on the machine, of a component of the control plane; none when it has ended.
    pub fn component_process(&self, name: &str) -> Result<Option<u32>> {
        let control_plane = ControlPlane::new(&self.state)?;
        let component = Component::ALL.into_iter().find(|component| component.name() == name);
        Ok(component.and_then(|component| control_plane.process(component)))
    }

    /// The pid, on the machine, of a node's first process; none when the node is dead.
    pub fn node_process(&self, node: &str) -> Result<Option<u32>> {
        Ok(self.node(node)?.first_process())
    }

    fn node(&self, name: &str) -> Result<Node<'_>> {
        let known = self.node_names();
        let index = known.iter().position(|node| node == name);
        let Some(index) = index.and_then(|index| u8::try_from(index + 1).ok()) else {
            return Err(Error::FindNode { node: name.into(), known });
        };
        Node::new(&self.state, index)
    }

    fn locked(&self, name: &str) -> Result<(Lock, Node<'_>)> {
        tool::check_machine()?;
        let node = self.node(name)?;
        Ok((Lock::cluster(self.name())?, node))
    }
}
