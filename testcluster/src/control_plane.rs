//! Starts the control plane's programs and waits until they serve.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use kube::Client;

use crate::{
    api,
    binaries::Binaries,
    cgroup::Group,
    component::{Component, Settings, config},
    error::{Error, Result},
    folder,
    pki::{Identity, Pki},
    process::Launch,
    slot::API_PORT,
    state::State,
    wait,
};

/// How long a program may take on a machine that is emulated or has much else to do; one that ends is seen at once.
const SLOW: Duration = Duration::from_mins(4);

/// What became of etcd's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// It is what it was, or the cluster is new.
    Kept,
    /// It was broken, so etcd started without it.
    Lost,
}

/// The control plane of one cluster.
#[derive(Debug)]
pub(crate) struct ControlPlane<'a> {
    settings: Settings,
    binaries: &'a Binaries,
    cluster: &'a str,
    group: Group,
}

impl<'a> ControlPlane<'a> {
    /// The control plane of a cluster, running or not.
    pub(crate) fn new(state: &'a State) -> Result<Self> {
        let group = Group::cluster(&state.name)?.child("control-plane");
        Ok(Self { settings: state.settings(), binaries: &state.binaries, cluster: &state.name, group })
    }

    /// Where a component writes its log.
    pub(crate) fn log(&self, component: Component) -> PathBuf {
        self.settings.folder.logs().join(format!("{}.log", component.name()))
    }

    fn group(&self, component: Component) -> Group {
        self.group.child(component.name())
    }

    /// A component's process.
    pub(crate) fn process(&self, component: Component) -> Option<u32> {
        self.group(component).processes().pop_first()
    }

    /// Whether a component has a process.
    pub(crate) fn is_running(&self, component: Component) -> bool {
        self.process(component).is_some()
    }

    /// Writes certificates and configuration files, and starts etcd and the API server where they do not run.
    pub(crate) fn start_server(&self) -> Result<Data> {
        let Settings { folder, slot, .. } = &self.settings;
        Pki::new(folder.pki(), *slot, self.cluster).ensure(&Identity::control_plane(*slot))?;
        self.write_configuration()?;
        let data = if self.is_running(Component::Etcd) { Data::Kept } else { self.start_etcd()? };
        self.start_missing(&[Component::ApiServer])?;
        Ok(data)
    }

    /// Starts the API server's clients. They end when it does not know its roles yet, so it must be ready.
    pub(crate) fn start_clients(&self) -> Result<()> {
        self.start_missing(&[Component::ControllerManager, Component::Scheduler, Component::CoreDns])
    }

    fn start_missing(&self, components: &[Component]) -> Result<()> {
        components
            .iter()
            .filter(|component| !self.is_running(**component))
            .try_for_each(|component| self.start(*component))
    }

    fn write_configuration(&self) -> Result<()> {
        let Settings { folder, slot, .. } = &self.settings;
        folder::make(&folder.config(), 0o755)?;
        folder::make(&folder.logs(), 0o755)?;
        let policy = config::audit_policy().to_string();
        folder::write(&self.settings.audit_policy(), policy, 0o644)?;
        let upstream = fs::read_to_string("/etc/resolv.conf")
            .is_ok_and(|text| text.lines().any(|line| line.trim_start().starts_with("nameserver")));
        let kubeconfig = folder.pki().join("coredns.kubeconfig");
        let corefile = config::corefile(*slot, &kubeconfig.to_string_lossy(), upstream);
        folder::write(&self.settings.corefile(), corefile, 0o644)
    }

    fn start(&self, component: Component) -> Result<()> {
        for address in self.addresses(component) {
            if TcpListener::bind(address).is_err() {
                return Err(Error::TakePort {
                    address: address.to_string(),
                    component: component.name().into(),
                });
            }
        }
        let program = self.binaries.find(component.name()).ok_or_else(|| Error::Machine {
            what: format!("{:?} is no longer in the cache: run `up` again", component.name()),
        })?;
        let launch = Launch {
            launcher: &self.settings.folder.program(),
            group: &self.group(component),
            program: &program,
            arguments: self.settings.arguments(component),
            log: self.log(component),
        };
        launch.start().map(drop)
    }

    fn addresses(&self, component: Component) -> Vec<SocketAddr> {
        let slot = self.settings.slot;
        let ports = slot.ports();
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        match component {
            Component::Etcd => vec![local(ports.etcd), local(ports.etcd_peer)],
            Component::ApiServer => vec![SocketAddr::from((slot.gateway(), API_PORT))],
            Component::ControllerManager => vec![local(ports.controller_manager)],
            Component::Scheduler => vec![local(ports.scheduler)],
            Component::CoreDns => vec![SocketAddr::from((slot.gateway(), 53))],
        }
    }

    /// etcd does not wait for the disk, so a crash of the machine may have broken its data: then it starts empty.
    fn start_etcd(&self) -> Result<Data> {
        let data = self.settings.folder.etcd();
        let had_data = data.exists();
        self.start(Component::Etcd)?;
        match self.await_etcd() {
            // Slow is not broken: only an etcd that gave up is not asked again.
            Err(_) if had_data && !self.is_running(Component::Etcd) => {
                // What still runs remembers what is gone.
                self.group.kill()?;
                folder::remove(&data)?;
                self.start(Component::Etcd)?;
                self.await_etcd().map(|()| Data::Lost)
            }
            result => result.map(|()| Data::Kept),
        }
    }

    fn await_etcd(&self) -> Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.settings.slot.ports().etcd));
        let deadline = Instant::now() + SLOW;
        while TcpStream::connect(address).is_err() {
            if !self.is_running(Component::Etcd) {
                return Err(self.failure(Component::Etcd, "has ended"));
            }
            if Instant::now() > deadline {
                return Err(self.failure(Component::Etcd, "does not serve"));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the API server is ready.
    pub(crate) async fn await_server(&self, client: &Client) -> Result<()> {
        let ready = wait::until("the API server to be ready", SLOW, async |seen| {
            if !self.is_running(Component::ApiServer) {
                return Ok(Some(false));
            }
            let answer = api::readiness(client).await;
            if let Err(text) = &answer {
                seen.note(text.clone());
            }
            Ok::<_, std::convert::Infallible>(answer.is_ok().then_some(true))
        })
        .await?;
        if ready { Ok(()) } else { Err(self.failure(Component::ApiServer, "has ended")) }
    }

    /// An error when a component has ended meanwhile.
    pub(crate) fn check(&self) -> Result<()> {
        match Component::ALL.into_iter().find(|component| !self.is_running(*component)) {
            Some(component) => Err(self.failure(component, "has ended")),
            None => Ok(()),
        }
    }

    fn failure(&self, component: Component, state: &str) -> Error {
        let log = self.log(component);
        Error::Component {
            component: component.name().into(),
            state: state.into(),
            tail: folder::tail(&log),
            log,
        }
    }
}
