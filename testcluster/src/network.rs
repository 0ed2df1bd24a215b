//! Bridge, routes and packet-filter rules of a cluster on the machine.

use std::{fs, process::Command};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    slot::{Network, Slot},
    tool,
};

/// A line of `ip -json route`.
#[derive(Debug, Deserialize)]
struct Route {
    dst: String,
    #[serde(default)]
    dev: String,
}

/// A line of `ip -json link`.
#[derive(Debug, Deserialize)]
struct Link {
    ifname: String,
}

/// The first route of someone else that overlaps the slot's networks: (network, owner).
pub(crate) fn conflict(slot: Slot) -> Result<Option<(Network, String)>> {
    Ok(overlap(slot, &routes()?))
}

fn overlap(slot: Slot, routes: &[Route]) -> Option<(Network, String)> {
    let ours = [slot.node_network(), slot.pod_network(), slot.service_network()];
    for route in routes.iter().filter(|route| route.dev != slot.bridge()) {
        let Some(theirs) = Network::parse(&route.dst) else { continue };
        // A default route written out: it leads everywhere and holds nothing.
        if theirs.prefix <= 1 {
            continue;
        }
        if let Some(network) = ours.into_iter().find(|network| network.overlaps(theirs)) {
            return Some((network, format!("{} dev {}", route.dst, route.dev)));
        }
    }
    None
}

fn routes() -> Result<Vec<Route>> {
    parse(&tool::run("ip -json -4 route show")?)
}

fn links() -> Result<Vec<Link>> {
    parse(&tool::run("ip -json link show")?)
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<Vec<T>> {
    // No line at all is no list either.
    let text = if text.trim().is_empty() { "[]" } else { text };
    serde_json::from_str(text)
        .map_err(|error| Error::Encode { what: "the answer of ip".into(), reason: error.to_string() })
}

/// Makes the bridge and the way to the outside; what is there is kept.
pub(crate) fn ensure(slot: Slot) -> Result<()> {
    let bridge = slot.bridge();
    if !links()?.iter().any(|link| link.ifname == bridge) {
        tool::run(&format!("ip link add {bridge} type bridge"))?;
    }
    tool::run(&format!("ip address replace {}/24 dev {bridge}", slot.gateway()))?;
    tool::run(&format!("ip link set {bridge} up"))?;
    let table = slot.filter_table();
    let cluster = format!("{{ {}, {} }}", slot.node_network(), slot.pod_network());
    // Adding before deleting makes the replacement work whether or not the table is there, in one transaction.
    let rules = format!(
        "add table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n chain outside {{\n  \
         type nat hook postrouting priority srcnat;\n  \
         ip saddr {cluster} ip daddr != {cluster} masquerade\n }}\n}}\n"
    );
    tool::output(Command::new("nft").args(["-f", "-"]).env("PATH", tool::PATH), Some(&rules))?;
    pass_firewall(slot)
}

/// Lets the cluster's packets through where the machine's policy is to drop what it forwards (Docker sets that).
fn pass_firewall(slot: Slot) -> Result<()> {
    if !tool::run("iptables -w -S FORWARD")?.contains("-P FORWARD DROP") {
        return Ok(());
    }
    for rule in firewall_rules(slot) {
        if tool::run(&format!("iptables -w -C FORWARD {rule}")).is_err() {
            tool::run(&format!("iptables -w -I FORWARD {rule}"))?;
        }
    }
    Ok(())
}

fn firewall_rules(slot: Slot) -> [String; 2] {
    [format!("-i {} -j ACCEPT", slot.bridge()), format!("-o {} -j ACCEPT", slot.bridge())]
}

/// Plugs the node `index`, whose first process is `pid`, into the bridge.
pub(crate) fn connect(slot: Slot, index: u8, pid: u32) -> Result<()> {
    disconnect(slot, index)?;
    let cable = slot.cable(index);
    tool::run(&format!("ip link add {cable} type veth peer name eth0 netns {pid}"))?;
    tool::run(&format!("ip link set {cable} master {} up", slot.bridge()))?;
    tool::run(&format!("ip route replace {} via {}", slot.pod_subnet(index), slot.node_address(index)))?;
    Ok(())
}

/// Unplugs a node; that it is not plugged in is fine.
pub(crate) fn disconnect(slot: Slot, index: u8) -> Result<()> {
    let cable = slot.cable(index);
    if links()?.iter().any(|link| link.ifname == cable) {
        delete_link(&cable)?;
    }
    let subnet = slot.pod_subnet(index).to_string();
    if routes()?.iter().any(|route| route.dst == subnet && route.dev == slot.bridge()) {
        tool::run(&format!("ip route delete {subnet} dev {}", slot.bridge()))?;
    }
    Ok(())
}

/// Deletes a link. When a network namespace ends, the kernel deletes the far end of its cable by itself, at any moment.
fn delete_link(name: &str) -> Result<()> {
    let deleted = tool::run(&format!("ip link delete {name}"));
    if deleted.is_err() && !links()?.iter().any(|link| link.ifname == name) {
        return Ok(());
    }
    deleted.map(drop)
}

/// Cuts or mends a node's cable.
pub(crate) fn switch(slot: Slot, index: u8, on: bool) -> Result<()> {
    let state = if on { "up" } else { "down" };
    tool::run(&format!("ip link set {} {state}", slot.cable(index))).map(drop)
}

/// Whether a node's cable is plugged in and not cut.
pub(crate) fn is_connected(slot: Slot, index: u8) -> bool {
    let flags = fs::read_to_string(format!("/sys/class/net/{}/flags", slot.cable(index))).unwrap_or_default();
    u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 == 1)
}

/// Removes everything of the slot.
pub(crate) fn remove(slot: Slot) -> Result<()> {
    let (bridge, cables) = (slot.bridge(), format!("{}n", slot.bridge()));
    for link in links()? {
        let ours = link.ifname == bridge
            || link.ifname.strip_prefix(&cables).is_some_and(|rest| rest.parse::<u8>().is_ok());
        if ours {
            delete_link(&link.ifname)?;
        }
    }
    for rule in firewall_rules(slot) {
        while tool::run(&format!("iptables -w -C FORWARD {rule}")).is_ok() {
            tool::run(&format!("iptables -w -D FORWARD {rule}"))?;
        }
    }
    let table = slot.filter_table();
    let rules = format!("add table ip {table}\ndelete table ip {table}\n");
    tool::output(Command::new("nft").args(["-f", "-"]).env("PATH", tool::PATH), Some(&rules)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(dst: &str, dev: &str) -> Route {
        Route { dst: dst.into(), dev: dev.into() }
    }

    #[test]
    fn a_foreign_network_inside_ours_is_a_conflict() {
        let slot = Slot::all().next().unwrap();
        let found = overlap(slot, &[route("default", "eth0"), route("10.96.5.0/24", "vpn0")]);
        assert_eq!(found, Some((slot.service_network(), "10.96.5.0/24 dev vpn0".into())));
    }

    #[test]
    fn the_clusters_own_routes_and_default_routes_are_none() {
        let slot = Slot::all().next().unwrap();
        let own = slot.bridge();
        let routes = [
            route("10.233.0.0/24", &own),
            route("0.0.0.0/1", "tun0"),
            route("192.0.2.0/24", "eth0"),
            route("10.233.1.0/24", "srtc1"),
        ];
        assert_eq!(overlap(slot, &routes), None);
    }
}
