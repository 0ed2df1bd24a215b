//! Argument lists of the control plane's programs. Pure.

pub mod config;

use std::path::{Path, PathBuf};

use crate::{
    folder::ClusterFolder,
    slot::{API_PORT, Slot},
};

/// The parts of the control plane, in the order they are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The database.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controllers of Kubernetes.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// The cluster's name server.
    CoreDns,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::CoreDns];

    /// The program's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::CoreDns => "coredns",
        }
    }
}

/// What the argument lists depend on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's folder.
    pub folder: ClusterFolder,
    /// The cluster's slot.
    pub slot: Slot,
    /// After how long without news a node is not ready.
    pub node_monitor_grace_period_seconds: u32,
}

impl Settings {
    /// The API server's audit log: one JSON object per line.
    pub fn audit_log(&self) -> PathBuf {
        self.folder.logs().join("audit.log")
    }

    /// The policy of the audit log.
    pub fn audit_policy(&self) -> PathBuf {
        self.folder.config().join("audit-policy.yaml")
    }

    /// The name server's configuration.
    pub fn corefile(&self) -> PathBuf {
        self.folder.config().join("Corefile")
    }

    fn pki(&self, file: &str) -> String {
        text(&self.folder.pki().join(file))
    }

    /// The arguments of a component.
    pub fn arguments(&self, component: Component) -> Vec<String> {
        match component {
            Component::Etcd => self.etcd(),
            Component::ApiServer => self.api_server(),
            Component::ControllerManager => self.controller_manager(),
            Component::Scheduler => self.scheduler(),
            Component::CoreDns => vec!["-conf".into(), text(&self.corefile())],
        }
    }

    fn etcd(&self) -> Vec<String> {
        let ports = self.slot.ports();
        let clients = format!("http://127.0.0.1:{}", ports.etcd);
        let peers = format!("http://127.0.0.1:{}", ports.etcd_peer);
        flags(&[
            ("data-dir", text(&self.folder.etcd())),
            ("listen-client-urls", clients.clone()),
            ("advertise-client-urls", clients),
            ("listen-peer-urls", peers.clone()),
            ("initial-advertise-peer-urls", peers.clone()),
            ("initial-cluster", format!("default={peers}")),
            // A test cluster's data is not worth waiting for the disk.
            ("unsafe-no-fsync", "true".into()),
        ])
    }

    fn api_server(&self) -> Vec<String> {
        flags(&[
            ("etcd-servers", format!("http://127.0.0.1:{}", self.slot.ports().etcd)),
            ("bind-address", self.slot.gateway().to_string()),
            ("advertise-address", self.slot.gateway().to_string()),
            ("secure-port", API_PORT.to_string()),
            ("tls-cert-file", self.pki("apiserver.crt")),
            ("tls-private-key-file", self.pki("apiserver.key")),
            ("client-ca-file", self.pki("ca.crt")),
            ("service-cluster-ip-range", self.slot.service_network().to_string()),
            ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".into()),
            ("service-account-key-file", self.pki("service-account.pub")),
            ("service-account-signing-key-file", self.pki("service-account.key")),
            ("authorization-mode", "Node,RBAC".into()),
            ("enable-admission-plugins", "NodeRestriction".into()),
            ("allow-privileged", "true".into()),
            ("kubelet-client-certificate", self.pki("apiserver-kubelet-client.crt")),
            ("kubelet-client-key", self.pki("apiserver-kubelet-client.key")),
            ("kubelet-certificate-authority", self.pki("ca.crt")),
            ("kubelet-preferred-address-types", "InternalIP".into()),
            ("audit-policy-file", text(&self.audit_policy())),
            ("audit-log-path", text(&self.audit_log())),
            // Tests read the log as one file: rotate late.
            ("audit-log-maxsize", "1000".into()),
            ("audit-log-maxbackup", "1".into()),
        ])
    }

    fn controller_manager(&self) -> Vec<String> {
        let kubeconfig = self.pki("controller-manager.kubeconfig");
        flags(&[
            ("kubeconfig", kubeconfig.clone()),
            ("authentication-kubeconfig", kubeconfig.clone()),
            ("authorization-kubeconfig", kubeconfig),
            ("service-account-private-key-file", self.pki("service-account.key")),
            ("root-ca-file", self.pki("ca.crt")),
            ("cluster-signing-cert-file", self.pki("ca.crt")),
            ("cluster-signing-key-file", self.pki("ca.key")),
            ("use-service-account-credentials", "true".into()),
            ("leader-elect", "false".into()),
            ("bind-address", "127.0.0.1".into()),
            ("secure-port", self.slot.ports().controller_manager.to_string()),
            ("node-monitor-grace-period", format!("{}s", self.node_monitor_grace_period_seconds)),
        ])
    }

    fn scheduler(&self) -> Vec<String> {
        let kubeconfig = self.pki("scheduler.kubeconfig");
        flags(&[
            ("kubeconfig", kubeconfig.clone()),
            ("authentication-kubeconfig", kubeconfig.clone()),
            ("authorization-kubeconfig", kubeconfig),
            ("leader-elect", "false".into()),
            ("bind-address", "127.0.0.1".into()),
            ("secure-port", self.slot.ports().scheduler.to_string()),
        ])
    }
}

fn flags(list: &[(&str, String)]) -> Vec<String> {
    list.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(slot: usize) -> Settings {
        Settings {
            folder: ClusterFolder::of("unit"),
            slot: Slot::all().nth(slot).unwrap(),
            node_monitor_grace_period_seconds: 20,
        }
    }

    #[test]
    fn clusters_side_by_side_share_no_address() {
        let listening = |settings: &Settings| -> Vec<String> {
            Component::ALL
                .into_iter()
                .flat_map(|component| settings.arguments(component))
                .filter(|flag| {
                    ["listen", "bind-address=10", "secure-port=2", "service-cluster"]
                        .iter()
                        .any(|part| flag.contains(part))
                })
                .collect()
        };
        let (one, other) = (listening(&settings(0)), listening(&settings(1)));
        assert_eq!(one.len(), 6, "{one:?}");
        assert!(one.iter().all(|flag| !other.contains(flag)), "{one:?} {other:?}");
    }

    #[test]
    fn the_api_server_writes_an_audit_log_and_checks_kubelets() {
        let arguments = settings(0).arguments(Component::ApiServer);
        for prefix in ["--audit-log-path=", "--audit-policy-file=", "--kubelet-certificate-authority="] {
            assert!(arguments.iter().any(|flag| flag.starts_with(prefix)), "{prefix}");
        }
    }

    #[test]
    fn the_grace_period_reaches_the_controller_manager() {
        let arguments = settings(0).arguments(Component::ControllerManager);
        assert!(arguments.contains(&"--node-monitor-grace-period=20s".to_owned()));
    }
}
