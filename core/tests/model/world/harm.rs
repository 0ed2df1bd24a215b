//! What goes wrong: with pods, with nodes, with the operator.

use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use scriptrunner_api::labels;

use super::{World, described};
use crate::{
    api_server::{has_ended, uid_of},
    kubelet::{Container, Machine, preempt, refuse, wait_for_image},
    operator::Kind,
    runner::End,
};

impl World {
    /// Something befalls a pod.
    pub(super) fn harm_pod(&mut self) {
        let all = || self.server.pods.values();
        // Most of what can befall a pod needs one that has not ended.
        let alive: Vec<Pod> = all().filter(|pod| !has_ended(pod)).cloned().collect();
        let pods = if alive.is_empty() { all().cloned().collect() } else { alive };
        let Some(pod) = self.random.pick_any(&pods) else { return };
        let (name, uid) = (pod.metadata.name.clone().unwrap(), uid_of(&pod).to_owned());
        let node = pod.metadata.annotations.as_ref().unwrap()[labels::NODE].clone();
        let Self { server, machines, ledger, .. } = self;
        let Some(machine) = machines.get_mut(&node) else { return };
        let container = machine.containers.get(&uid).map(Container::is_alive);
        let is_bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        let now = Time(server.now);
        let what = match (self.random.below(10), container) {
            (0, Some(true)) => {
                machine.kill(&uid, End::Killed, server, ledger);
                "killed"
            }
            (1, Some(true)) => {
                machine.kill(&uid, End::Starved, server, ledger);
                "starved"
            }
            (2, Some(true)) => {
                machine.scribble(&uid, ledger);
                "scribbled"
            }
            (3 | 4, None) if !has_ended(&pod) && pod.metadata.deletion_timestamp.is_none() => {
                let reason = self.random.pick(&["OutOfcpu", "NodeAffinity", "Preempting"]);
                server.change_pod(&name, |pod| refuse(pod, reason));
                reason
            }
            (5, None) if !has_ended(&pod) => {
                server.change_pod(&name, wait_for_image);
                "waits for its image"
            }
            (6, Some(true) | None) if !has_ended(&pod) && machine.is_reachable() => {
                let says_end = self.random.chance(70);
                machine.evict(&pod, says_end, server, ledger);
                "evicted"
            }
            (7, _) if !has_ended(&pod) && is_bound => {
                server.change_pod(&name, |pod| preempt(pod, now));
                "preempted"
            }
            (8, _) => {
                ledger.remove(&pod, server.object.as_deref());
                server.remove_pod(&name);
                machine.collect_garbage(server, ledger);
                "removed by force"
            }
            (9, _) => {
                if server.delete_pod(&name, &uid) && !server.pods.contains_key(&name) {
                    ledger.remove(&pod, server.object.as_deref());
                }
                "deleted by somebody"
            }
            _ => return,
        };
        self.tell(|| format!("{} {what}", described(&pod)));
    }

    /// Something befalls a node.
    pub(super) fn harm_node(&mut self) {
        let names: Vec<String> = self.machines.keys().cloned().collect();
        let name = self.random.pick(&names);
        let now = Time(self.server.now);
        let Self { server, machines, ledger, random, .. } = self;
        let machine = machines.get_mut(&name).unwrap();
        let exists = server.nodes.contains_key(&name);
        let what = match random.below(14) {
            0 => {
                machine.is_cut ^= true;
                "cut or joined"
            }
            1 => {
                machine.is_frozen ^= true;
                "frozen or thawed"
            }
            2 if machine.is_up => {
                machine.go_down(server, ledger);
                "goes down"
            }
            2 | 3 if !machine.is_up => {
                machine.come_up(random.chance(30), server, ledger);
                "comes up"
            }
            4 | 5 => {
                let is_ready = machine.is_reachable() || random.chance(20);
                server.change_node(&name, |node| set_ready(node, is_ready, &now));
                "is ready or not"
            }
            6 => {
                server.change_node(&name, |node| cordon(node, now));
                "cordoned or not"
            }
            7 => {
                server.change_node(&name, |node| toggle_taint(node, "busy", "NoSchedule", now));
                "busy or not"
            }
            8 => {
                let zone = random.pick(&[Some("a"), Some("b"), None]);
                server.change_node(&name, |node| set_label(node, "zone", zone));
                "moves"
            }
            9 => {
                let value = random.pick(&[Some("true"), None]);
                server.change_node(&name, |node| set_label(node, labels::EXCLUDE, value));
                "opts out or in"
            }
            10 if exists => {
                server.delete_node(&name);
                "deleted"
            }
            11 if exists => {
                server.delete_node(&name);
                server.create_node(&name);
                "made again at once"
            }
            10..=12 if !exists => {
                *machine = Machine { containers: std::mem::take(&mut machine.containers), ..Machine::new() };
                machine.collect_garbage(server, ledger);
                server.create_node(&name);
                "made again"
            }
            _ => return,
        };
        self.tell(|| format!("{name} {what}"));
    }

    /// Something befalls the operator.
    pub(super) fn harm_operator(&mut self) -> Result<(), String> {
        let what = match self.random.below(8) {
            0 | 1 => {
                self.replace_process();
                "dies"
            }
            2 => {
                let new = self.next_process();
                self.former = Some(std::mem::replace(&mut self.process, new));
                "is paused, and another one leads"
            }
            3 | 4 => {
                let kind = self.random.pick(&Kind::ALL);
                self.process.break_watch(kind);
                "loses a watch"
            }
            5 => {
                if self.random.chance(50) {
                    self.server.is_full ^= true;
                } else {
                    self.server.is_full_of_config_maps ^= true;
                }
                "meets a quota, or none"
            }
            _ => {
                let Some(mut former) = self.former.take() else { return Ok(()) };
                let deeds = former.step(&mut self.server, self.line, &mut self.random);
                self.take_down(deeds)?;
                "that was paused goes on"
            }
        };
        self.tell(|| format!("the operator {what}"));
        Ok(())
    }
}

pub(super) fn set_label(node: &mut Node, key: &str, value: Option<&str>) {
    let labels = node.metadata.labels.get_or_insert_default();
    match value {
        Some(value) => _ = labels.insert(key.to_owned(), value.to_owned()),
        None => _ = labels.remove(key),
    }
}

pub(super) fn set_ready(node: &mut Node, is_ready: bool, now: &Time) {
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    let status = if is_ready { "True" } else { "Unknown" };
    for condition in conditions.iter_mut().filter(|condition| condition.status != status) {
        condition.status = status.to_owned();
        condition.last_transition_time = Some(now.clone());
    }
}

fn toggle_taint(node: &mut Node, key: &str, effect: &str, now: Time) {
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    let before = taints.len();
    taints.retain(|taint| taint.key != key);
    if taints.len() == before {
        let time_added = Some(now);
        taints.push(Taint { key: key.to_owned(), effect: effect.to_owned(), value: None, time_added });
    }
}

fn cordon(node: &mut Node, now: Time) {
    let spec = node.spec.get_or_insert_default();
    spec.unschedulable = Some(spec.unschedulable != Some(true));
    toggle_taint(node, "node.kubernetes.io/unschedulable", "NoSchedule", now);
}
