//! The machines behind the nodes: kubelets that start, report and end pods, and what can befall them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, Pod, PodCondition,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use scriptrunner_api::labels;
use serde_json::Value;

use crate::{
    api_server::{ApiServer, has_ended, uid_of},
    ledger::Ledger,
    runner::{End, Runner},
};

/// A container as it really is, whatever the API server knows of it.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) runner: Runner,
    /// Reason and message of its end, once it has ended.
    exit: Option<Exit>,
    started: Time,
    is_start_reported: bool,
    is_end_reported: bool,
}

#[derive(Clone)]
struct Exit {
    code: i32,
    reason: &'static str,
    message: String,
    at: Time,
}

impl Container {
    /// Whether it runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.exit.is_none()
    }

    /// It ends with what its runner left.
    fn end(&mut self, reason: &'static str, now: Time) {
        let code = if reason == "Unknown" { 255 } else { self.runner.exit_code() };
        self.exit.get_or_insert(Exit { code, reason, message: self.runner.message.clone(), at: now });
    }
}

/// A machine.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) is_up: bool,
    /// Cut off from the API server.
    pub(crate) is_cut: bool,
    /// Nothing on it goes on, though nobody notices.
    pub(crate) is_frozen: bool,
    /// By UID of the pod.
    pub(crate) containers: BTreeMap<String, Container>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self { is_up: true, is_cut: false, is_frozen: false, containers: BTreeMap::new() }
    }

    /// Whether its kubelet does anything that the API server sees.
    pub(crate) fn is_reachable(&self) -> bool {
        self.is_up && !self.is_cut && !self.is_frozen
    }

    /// Its kubelet ends containers whose pods are gone.
    pub(crate) fn collect_garbage(&mut self, server: &ApiServer, ledger: &mut Ledger) {
        if !self.is_reachable() {
            return;
        }
        let live: Vec<&str> = server.pods.values().map(uid_of).collect();
        self.containers.retain(|uid, container| {
            let is_kept = live.contains(&uid.as_str());
            if !is_kept {
                container.runner.stop();
                ledger.end(uid, &container.runner);
            }
            is_kept
        });
    }

    /// Its kubelet brings one pod a step further. Whether there was anything to do.
    pub(crate) fn sync(&mut self, pod_name: &str, server: &mut ApiServer, ledger: &mut Ledger) -> bool {
        if !self.is_reachable() {
            return false;
        }
        let Some(pod) = server.pods.get(pod_name).cloned() else { return false };
        let is_deleting = pod.metadata.deletion_timestamp.is_some();
        let now = Time(server.now);
        let Some(container) = self.containers.get_mut(uid_of(&pod)) else {
            if is_deleting {
                ledger.remove(&pod, server.object.as_deref());
                server.remove_pod(pod_name);
                return true;
            }
            self.collect_garbage(server, ledger);
            return !has_ended(&pod) && self.start(&pod, server, ledger);
        };
        if is_deleting && container.is_alive() {
            container.runner.stop();
            ledger.end(uid_of(&pod), &container.runner);
            container.end("Error", now);
            return true;
        }
        if let Some(exit) = container.exit.clone().filter(|_| !container.is_end_reported) {
            container.is_end_reported = true;
            let is_success = exit.code == 0;
            ledger.tell(uid_of(&pod));
            server.change_pod(pod_name, |pod| report(pod, terminated(exit), Some(is_success)));
            return true;
        }
        if container.is_alive() && !container.is_start_reported {
            container.is_start_reported = true;
            let running = ContainerStateRunning { started_at: Some(container.started.clone()) };
            let state = ContainerState { running: Some(running), ..ContainerState::default() };
            server.change_pod(pod_name, |pod| report(pod, state, None));
            return true;
        }
        if is_deleting && container.is_end_reported {
            ledger.remove(&pod, server.object.as_deref());
            server.remove_pod(pod_name);
            return true;
        }
        false
    }

    /// Starts the container, if its inputs can be mounted.
    fn start(&mut self, pod: &Pod, server: &mut ApiServer, ledger: &mut Ledger) -> bool {
        let volumes = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap();
        let input = &volumes.iter().find(|volume| volume.name == "scriptrunner-input").unwrap().config_map;
        let Some(data) =
            server.config_maps.get(&input.as_ref().unwrap().name).and_then(|map| map.data.clone())
        else {
            return false;
        };
        let pinned: Value = serde_json::from_str(&data[labels::SPEC_FILE]).unwrap();
        let stop_on = pinned["repeat"]["stopOn"].as_str().unwrap_or_default();
        let runner = Runner::start(pod, &data[labels::SCRIPT_FILE], stop_on);
        ledger.start(pod, &runner);
        let container = Container {
            runner,
            exit: None,
            started: Time(server.now),
            is_start_reported: false,
            is_end_reported: false,
        };
        self.containers.insert(uid_of(pod).to_owned(), container);
        true
    }

    /// The runner of a container goes on. What is wrong with an execution that began.
    pub(crate) fn work(
        &mut self,
        uid: &str,
        server: &ApiServer,
        ledger: &mut Ledger,
    ) -> Result<bool, String> {
        if !self.is_up || self.is_frozen {
            return Ok(false);
        }
        let Some(container) = self.containers.get_mut(uid).filter(|container| container.is_alive()) else {
            return Ok(false);
        };
        let begun = container.runner.work();
        if container.runner.end.is_some() {
            ledger.end(uid, &container.runner);
            let reason = if container.runner.exit_code() == 0 { "Completed" } else { "Error" };
            container.end(reason, Time(server.now));
        }
        begun.map_or(Ok(true), |serial| ledger.begin(uid, serial).map(|()| true))
    }

    /// The container is killed.
    pub(crate) fn kill(&mut self, uid: &str, end: End, server: &ApiServer, ledger: &mut Ledger) {
        if let Some(container) = self.containers.get_mut(uid).filter(|container| container.is_alive()) {
            container.runner.die(end);
            ledger.end(uid, &container.runner);
            container.end(if end == End::Starved { "OOMKilled" } else { "Error" }, Time(server.now));
        }
    }

    /// A script writes over the message of its runner.
    pub(crate) fn scribble(&mut self, uid: &str, ledger: &mut Ledger) {
        if let Some(container) = self.containers.get_mut(uid).filter(|container| container.is_alive()) {
            container.runner.message = "scribbled".to_owned();
            container.runner.die(End::Killed);
            ledger.end(uid, &container.runner);
            ledger.hide(uid);
            container.end("Error", container.started.clone());
        }
    }

    /// The kubelet evicts the pod; it may fail to say how its container ended.
    pub(crate) fn evict(&mut self, pod: &Pod, says_end: bool, server: &mut ApiServer, ledger: &mut Ledger) {
        let now = Time(server.now);
        let mut state = None;
        if let Some(container) = self.containers.get_mut(uid_of(pod)) {
            if !container.is_alive() {
                return;
            }
            container.runner.stop();
            ledger.end(uid_of(pod), &container.runner);
            container.end("Error", now);
            container.is_end_reported = true;
            state = container.exit.clone().map(terminated);
            if says_end {
                ledger.tell(uid_of(pod));
            }
        }
        server.change_pod(pod.metadata.name.as_deref().unwrap(), |pod| {
            if let Some(state) = state.filter(|_| says_end) {
                report(pod, state, Some(false));
            }
            let status = pod.status.get_or_insert_default();
            status.phase = Some("Failed".to_owned());
            status.reason = Some("Evicted".to_owned());
        });
    }

    /// The machine goes down, and everything on it.
    pub(crate) fn go_down(&mut self, server: &ApiServer, ledger: &mut Ledger) {
        self.is_up = false;
        for (uid, container) in self.containers.iter_mut().filter(|(_, container)| container.is_alive()) {
            container.runner.die(End::Killed);
            ledger.end(uid, &container.runner);
            container.end("Unknown", Time(server.now));
        }
    }

    /// The machine is up again. Its kubelet may start a container again whose end it has not reported.
    pub(crate) fn come_up(&mut self, starts_again: bool, server: &ApiServer, ledger: &mut Ledger) {
        self.is_up = true;
        let unreported = self.containers.iter_mut().filter(|(_, container)| !container.is_end_reported);
        for (uid, container) in unreported.filter(|_| starts_again) {
            if container.exit.as_ref().is_some_and(|exit| exit.reason == "Unknown") {
                container.runner.restart();
                ledger.end(uid, &container.runner);
                container.exit = None;
                container.end("Error", Time(server.now));
            }
        }
    }
}

/// A pod that is refused before anything of it started.
pub(crate) fn refuse(pod: &mut Pod, reason: &str) {
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Failed".to_owned());
    status.reason = Some(reason.to_owned());
}

/// An image that cannot be pulled for now.
pub(crate) fn wait_for_image(pod: &mut Pod) {
    let waiting =
        ContainerStateWaiting { reason: Some("ImagePullBackOff".to_owned()), message: Some("no".to_owned()) };
    report(pod, ContainerState { waiting: Some(waiting), ..ContainerState::default() }, None);
}

/// The scheduler makes room for somebody else.
pub(crate) fn preempt(pod: &mut Pod, now: Time) {
    let condition = PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("PreemptionByScheduler".to_owned()),
        ..PodCondition::default()
    };
    pod.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    pod.metadata.deletion_timestamp.get_or_insert(now);
}

fn terminated(exit: Exit) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: exit.code,
        reason: Some(exit.reason.to_owned()),
        message: Some(exit.message),
        finished_at: Some(exit.at),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// Puts the container's state into the pod's status. `is_success` is of one that ended.
fn report(pod: &mut Pod, state: ContainerState, is_success: Option<bool>) {
    let status = pod.status.get_or_insert_default();
    let phase = match is_success {
        None if state.waiting.is_some() => "Pending",
        None => "Running",
        Some(true) => "Succeeded",
        Some(false) => "Failed",
    };
    status.phase = Some(phase.to_owned());
    status.container_statuses = Some(vec![ContainerStatus {
        name: labels::CONTAINER.to_owned(),
        state: Some(state),
        ..ContainerStatus::default()
    }]);
}
