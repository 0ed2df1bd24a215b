//! How a process performs the actions of a plan, as operator/src/apply.rs does.

use std::{collections::VecDeque, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use scriptrunner_core::{
    adopt::{config_map_difference, pod_difference},
    observed::{ConfigMapFacts, PodConflict, PodFacts},
    plan::Action,
};

use super::{Basis, Deed, Process};
use crate::api_server::{ApiServer, Created, uid_of};

impl Process {
    /// Performs one action. False if the server refused a pod, and no further one is to be created.
    pub(super) fn perform(
        &mut self,
        action: Action,
        basis: &Arc<Basis>,
        server: &mut ApiServer,
        deeds: &mut Vec<Deed>,
    ) -> bool {
        match action {
            Action::CreateConfigMap(config_map) => {
                let name = config_map.metadata.name.clone().unwrap();
                let made = match server.create_config_map(&config_map) {
                    Created::Done(made) => Ok(made),
                    Created::AlreadyExists => {
                        let found = server.config_maps[&name].clone();
                        config_map_difference(&config_map, &found).map_or(Ok(found), Err)
                    }
                    Created::Refused(message) => {
                        self.refusal = Some(message);
                        return true;
                    }
                };
                match made {
                    Ok(made) => {
                        (self.refusal, self.config_map_conflict) = (None, None);
                        self.config_maps
                            .extend(ConfigMapFacts::of(&made.metadata).map(|facts| (name, facts)));
                    }
                    Err(message) => self.config_map_conflict = Some(message),
                }
            }
            Action::DeleteConfigMap { name, uid } => {
                server.delete_config_map(&name, Some(&uid));
                self.config_maps.remove(&name);
            }
            Action::CreatePod { node, pod } => return self.create_pod(&node, &pod, basis, server, deeds),
            Action::DeletePod { name, uid, why, is_over } => {
                let is_over = is_over && self.pods.has_ended(&uid);
                let found = server.pods.get(&name).filter(|found| uid_of(found) == uid).cloned();
                if server.delete_pod(&name, &uid) {
                    self.pods.mark_deleting(&uid);
                } else {
                    self.pods.confirm_gone(&uid);
                }
                deeds.extend(found.map(|pod| Deed::Deleted {
                    pod: Box::new(pod),
                    why,
                    is_over,
                    basis: basis.clone(),
                }));
            }
            Action::DeleteObject { uid, resource_version } => {
                let object = server.object.clone();
                if server.delete_object(&uid, &resource_version) {
                    deeds.extend(object.map(|object| Deed::Ended { object }));
                }
            }
            Action::SendRun { .. } | Action::HandOver { .. } => {}
        }
        true
    }

    fn learn_pod(&mut self, pod: &Pod) {
        if let Some(facts) = PodFacts::of(pod) {
            self.pods.put(facts);
        }
    }

    fn create_pod(
        &mut self,
        node: &str,
        pod: &Pod,
        basis: &Arc<Basis>,
        server: &mut ApiServer,
        deeds: &mut Vec<Deed>,
    ) -> bool {
        let name = pod.metadata.name.clone().unwrap();
        let conflict = match server.create_pod(pod) {
            Created::Done(made) => {
                self.refusal = None;
                self.learn_pod(&made);
                deeds.push(Deed::Created { pod: Box::new(made), basis: basis.clone() });
                None
            }
            Created::AlreadyExists => {
                let found = server.pods[&name].clone();
                let difference = pod_difference(pod, &found);
                if difference.is_none() {
                    self.learn_pod(&found);
                }
                difference
            }
            Created::Refused(message) => {
                self.refusal = Some(message);
                return false;
            }
        };
        match conflict {
            Some(message) => {
                let since = self.pod_conflicts.get(node).map_or(server.now, |known| known.since);
                self.pod_conflicts.insert(node.to_owned(), PodConflict { pod: name, message, since });
            }
            None => _ = self.pod_conflicts.remove(node),
        }
        true
    }
}

/// As `apply` performs them: ConfigMaps, pods that must end, new pods, and what is over.
pub(super) fn in_order(actions: Vec<Action>) -> VecDeque<Action> {
    let mut actions: Vec<Action> = actions;
    actions.sort_by_key(|action| match action {
        Action::CreateConfigMap(_)
        | Action::DeleteConfigMap { .. }
        | Action::DeleteObject { .. }
        | Action::SendRun { .. }
        | Action::HandOver { .. } => 0,
        Action::DeletePod { is_over: false, .. } => 1,
        Action::CreatePod { .. } => 2,
        Action::DeletePod { is_over: true, .. } => 3,
    });
    actions.into()
}
