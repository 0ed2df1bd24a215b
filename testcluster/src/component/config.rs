//! Configuration files of control plane and nodes. Pure.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::{
    images::PAUSE_IMAGE,
    slot::{Network, Slot},
};

/// Where a node finds the binaries, whatever the machine's cache folder is.
pub const NODE_BINARIES: &str = "/usr/local/lib/testcluster";

/// Where containerd listens on a node.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// What the API server's audit log holds: who did what, without bodies, once per request.
pub fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    })
}

/// The name server's configuration; `upstream` says whether the machine has a name server to ask.
pub fn corefile(slot: Slot, kubeconfig: &str, upstream: bool) -> String {
    let forward = if upstream { "  forward . /etc/resolv.conf\n" } else { "" };
    format!(
        ".:53 {{\n  bind {}\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {kubeconfig}\n    \
         pods insecure\n    fallthrough in-addr.arpa\n  }}\n{forward}  cache 30\n}}\n",
        slot.gateway()
    )
}

/// containerd's configuration on a node.
pub fn containerd() -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "{CONTAINERD_SOCKET}"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE a container's oom_score_adj cannot be lowered.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{NODE_BINARIES}/cni"]
    conf_dir = "/etc/cni/net.d"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
    )
}

/// The pods' network on a node.
pub fn pod_network(subnet: Network) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": subnet.to_string()}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/cni",
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// A kubelet's configuration; `reserved_mib` is the part of the machine's memory that this node may not use.
pub fn kubelet(dns: Ipv4Addr, reserved_mib: u64) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/etc/kubernetes/pki/kubelet.crt",
        "tlsPrivateKeyFile": "/etc/kubernetes/pki/kubelet.key",
        "cgroupDriver": "cgroupfs",
        // The node has a control-group namespace of its own.
        "cgroupRoot": "/",
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": ["pods"],
        "systemReserved": {"memory": format!("{reserved_mib}Mi")},
        // Since 1.35 version 1 is refused unless asked for; harmless on version 2.
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDNS": [dns.to_string()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "resolvConf": "/etc/resolv.conf",
        // cAdvisor cannot find the file system behind the node's overlay, so sizes are not known.
        "localStorageCapacityIsolation": false,
        "volumeStatsAggPeriod": "0s",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        // There is no registry to get a removed image back from.
        "imageGCHighThresholdPercent": 100,
    })
}

/// A kubelet's arguments.
pub fn kubelet_arguments(node: &str, address: Ipv4Addr, labels: &str) -> Vec<String> {
    vec![
        "--config=/etc/kubernetes/kubelet.yaml".into(),
        "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig".into(),
        format!("--hostname-override={node}"),
        format!("--node-ip={address}"),
        format!("--node-labels={labels}"),
    ]
}

/// kube-proxy's arguments on a node.
pub fn proxy_arguments(node: &str, pods: Network) -> Vec<String> {
    vec![
        "--kubeconfig=/etc/kubernetes/kube-proxy.kubeconfig".into(),
        "--proxy-mode=nftables".into(),
        format!("--hostname-override={node}"),
        format!("--cluster-cidr={pods}"),
        // The size of the connection table belongs to the whole machine.
        "--conntrack-max-per-core=0".into(),
        "--healthz-bind-address=127.0.0.1:10256".into(),
    ]
}

/// The labels that tell the nodes of a cluster apart, for node `index` (from 1).
pub fn node_labels(index: u8) -> String {
    let zone = (index - 1) % 2;
    let disk = if ((index - 1) / 2).is_multiple_of(2) { "ssd" } else { "hdd" };
    format!("topology.kubernetes.io/zone=z{zone},disk={disk}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_have_three_sets_of_labels() {
        let labels = [1, 2, 3].map(node_labels);
        assert_eq!(labels[0], "topology.kubernetes.io/zone=z0,disk=ssd");
        assert_eq!(labels[1], "topology.kubernetes.io/zone=z1,disk=ssd");
        assert_eq!(labels[2], "topology.kubernetes.io/zone=z0,disk=hdd");
    }

    #[test]
    fn without_an_upstream_the_name_server_forwards_nothing() {
        let slot = Slot::all().next().unwrap();
        assert!(corefile(slot, "/k", true).contains("forward . /etc/resolv.conf"));
        assert!(!corefile(slot, "/k", false).contains("forward"));
    }

    #[test]
    fn containerd_uses_the_local_pause_image() {
        assert!(containerd().contains(&format!("sandbox = \"{PAUSE_IMAGE}\"")));
    }
}
