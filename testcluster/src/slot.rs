//! A cluster's slot number and all addresses, ports and link names derived from it, so that clusters never meet. Pure.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Largest number of nodes a cluster can have.
pub const MAX_NODES: u8 = 100;

/// Port of every cluster's API server, on the cluster's own bridge address.
pub const API_PORT: u16 = 16443;

/// An IPv4 network in prefix notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// First address.
    pub address: Ipv4Addr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

impl Network {
    /// Reads `10.0.0.0/8`, or a single address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let prefix: u8 = prefix.parse().ok().filter(|bits| *bits <= 32)?;
        Some(Self { address: address.parse().ok()?, prefix })
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let bits = u32::from(self.prefix.min(other.prefix));
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// The number of a cluster among those on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(u8);

impl Slot {
    /// All slots, in the order they are given out.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..32).map(Self)
    }

    /// The bare number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The bridge on the machine that all nodes are plugged into.
    pub fn bridge(self) -> String {
        format!("srtc{}", self.0)
    }

    /// The machine's end of the cable of node `index` (from 1).
    pub fn cable(self, index: u8) -> String {
        format!("srtc{}n{index}", self.0)
    }

    /// The table with the cluster's packet-filter rules.
    pub fn filter_table(self) -> String {
        format!("srtc_{}", self.0)
    }

    /// The network of nodes and API server.
    pub fn node_network(self) -> Network {
        Network { address: Ipv4Addr::new(10, 233, self.0, 0), prefix: 24 }
    }

    /// The machine's address on the bridge: API server, DNS and the nodes' default route.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 233, self.0, 1)
    }

    /// The address of node `index` (from 1).
    pub fn node_address(self, index: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 233, self.0, 10 + index)
    }

    /// The network of all pods.
    pub fn pod_network(self) -> Network {
        Network { address: Ipv4Addr::new(10, 160 + self.0, 0, 0), prefix: 16 }
    }

    /// The network of the pods on node `index` (from 1).
    pub fn pod_subnet(self, index: u8) -> Network {
        Network { address: Ipv4Addr::new(10, 160 + self.0, index, 0), prefix: 24 }
    }

    /// The network of Service addresses.
    pub fn service_network(self) -> Network {
        Network { address: Ipv4Addr::new(10, 96 + self.0, 0, 0), prefix: 16 }
    }

    /// The address of the Service `kubernetes`.
    pub fn kubernetes_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.0, 0, 1)
    }

    /// The address of the Service `kube-dns`.
    pub fn dns_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.0, 0, 10)
    }

    /// The API server's address for clients.
    pub fn api_url(self) -> String {
        format!("https://{}:{API_PORT}", self.gateway())
    }

    /// Loopback ports of the control plane.
    pub fn ports(self) -> Ports {
        let base = 22_000 + u16::from(self.0) * 10;
        Ports { etcd: base, etcd_peer: base + 1, controller_manager: base + 2, scheduler: base + 3 }
    }
}

/// Ports on 127.0.0.1 that a cluster's control plane listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// etcd's clients, that is the API server.
    pub etcd: u16,
    /// etcd's peers (there are none, but it listens).
    pub etcd_peer: u16,
    /// Health and metrics of the controller manager.
    pub controller_manager: u16,
    /// Health and metrics of the scheduler.
    pub scheduler: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_all_slots_never_overlap() {
        let all: Vec<_> = Slot::all()
            .flat_map(|slot| [slot.node_network(), slot.pod_network(), slot.service_network()])
            .collect();
        for (index, one) in all.iter().enumerate() {
            for other in &all[index + 1..] {
                assert!(!one.overlaps(*other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn node_and_pod_addresses_lie_in_their_networks() {
        for slot in Slot::all() {
            for index in [1, MAX_NODES] {
                let node = Network { address: slot.node_address(index), prefix: 32 };
                assert!(slot.node_network().overlaps(node));
                assert!(slot.pod_network().overlaps(slot.pod_subnet(index)));
            }
        }
    }

    #[test]
    fn link_names_fit_the_kernel() {
        for slot in Slot::all() {
            assert!(slot.bridge().len() <= 15);
            assert!(slot.cable(MAX_NODES).len() <= 15);
        }
    }

    #[test]
    fn overlap_sees_the_wider_network() {
        let wide = Network::parse("10.0.0.0/8").unwrap();
        assert!(wide.overlaps(Network::parse("10.233.0.5").unwrap()));
        assert!(!wide.overlaps(Network::parse("192.0.2.0/24").unwrap()));
        assert!(Network::parse("0.0.0.0/0").unwrap().overlaps(wide));
        assert_eq!(Network::parse("10.0.0.0/33"), None);
        assert_eq!(Network::parse("default"), None);
    }
}
