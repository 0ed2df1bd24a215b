//! What a process knows at one moment, as operator/src/observe.rs puts it together.

use scriptrunner_core::validate::Sources;
use scriptrunner_core::validate::spec_hash;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use scriptrunner_api::{
    labels,
    v1alpha1::{Mode, ScriptRunner, ScriptRunnerStatus, UpdatePolicy},
};
use scriptrunner_core::{
    names::{config_map_name, pod_name, short_id},
    observed::{Marks, ObjectFacts, Observed, PodFacts, PolicyProof, Presence, StoredStatus, requested_by},
    validate::Pinned,
};

use super::{Process, version};
use crate::api_server::{ApiServer, NAME, NAMESPACE, uid_of};

/// Most pods that wait for the scheduler.
const MOST_UNBOUND: usize = 2;

/// Everything that is known of the object, and the object as it is stored.
pub(super) struct Sight {
    pub(super) observed: Observed,
    pub(super) object: Arc<ScriptRunner>,
}

impl Process {
    /// Everything that is known; none if the object is gone.
    pub(super) fn observe(&mut self, server: &ApiServer) -> Option<Sight> {
        let cached = self.cached.clone()?;
        let object =
            self.latest.clone().filter(|latest| version(latest) >= version(&cached)).unwrap_or(cached);
        let own = self.own.clone().filter(|own| own.status.is_some());
        assert!(own.as_ref().is_none_or(|own| own.status == object.status), "nobody else writes the status");
        let stored = StoredStatus::of(own.as_ref().unwrap_or(&object));
        self.confirm_missing_pods(server, &object, stored.as_deref());
        let pinned = self.read_pinned(server, &object, stored.as_deref());
        let pods = self.pods.all();
        let unbound = pods.iter().filter(|pod| pod.is_unbound()).count();
        let observed = Observed {
            object: ObjectFacts {
                namespace: NAMESPACE.to_owned(),
                name: NAME.to_owned(),
                uid: object.metadata.uid.clone()?,
                generation: object.metadata.generation?,
                created: None,
                seen_since: None,
                requested_by: requested_by(&object.metadata),
                deleting: false,
                other_bytes: self.other_bytes,
                resource_version: object.metadata.resource_version.clone()?,
                spec: object.spec.clone(),
            },
            previous: stored,
            nodes: self.nodes.clone(),
            pods,
            occupied_nodes: BTreeSet::new(),
            config_maps: self.config_maps.values().cloned().collect(),
            pinned,
            unbound_room: MOST_UNBOUND.saturating_sub(unbound),
            sources: Sources::default(),
            namespace_privileged: false,
            known_answers: self.known_answers.clone(),
            refusal: self.refusal.clone(),
            config_map_conflict: self.config_map_conflict.clone(),
            pod_conflicts: self.pod_conflicts.clone(),
            sessions: BTreeMap::new(),
            since: self.since,
            policy_proof: PolicyProof::Awaited,
        };
        Some(Sight { observed, object })
    }

    /// What the current run is pinned to, where an edit of what runs waits for a rerun.
    fn read_pinned(
        &mut self,
        server: &ApiServer,
        object: &ScriptRunner,
        stored: Option<&ScriptRunnerStatus>,
    ) -> Option<(u64, Arc<Pinned>)> {
        let run = stored?.run.as_ref()?;
        let waits = object.spec.update_policy == Some(UpdatePolicy::OnRerun)
            && run.spec_hash != spec_hash(&object.spec, &Sources::default()).unwrap_or_default();
        if !waits {
            return None;
        }
        if self.pinned.as_ref().is_none_or(|(number, _)| *number != run.number) {
            let uid = object.metadata.uid.as_deref()?;
            let found = server.config_maps.get(&config_map_name(uid, run.number, &run.spec_hash));
            let data = found.and_then(|found| found.data.clone()).unwrap_or_default();
            let texts = data.get(labels::SPEC_FILE).zip(data.get(labels::SCRIPT_FILE));
            let read = texts.and_then(|(spec, script)| Pinned::read(spec, script, None, &run.spec_hash));
            self.pinned = read.map(|pinned| (run.number, Arc::new(pinned)));
        }
        self.pinned.clone()
    }

    /// Asks by name for every pod that the status names and the watch does not show.
    fn confirm_missing_pods(
        &mut self,
        server: &ApiServer,
        object: &ScriptRunner,
        stored: Option<&ScriptRunnerStatus>,
    ) {
        let Some(stored) = stored else { return };
        let known = self.pods.all();
        for (node, entry) in &stored.nodes {
            let Some(pod_id) = entry.pod_id.as_deref() else { continue };
            match known.iter().find(|pod| pod.id == pod_id) {
                Some(pod) if pod.presence != Presence::Unconfirmed => {}
                Some(pod) => {
                    let found = server.pods.get(&pod.name).filter(|found| uid_of(found) == pod.uid);
                    match found.map(|found| PodFacts::with_marks(found, &pod.marks())) {
                        None => self.pods.confirm_gone(&pod.uid),
                        Some(facts) => self.put_unconfirmed(facts),
                    }
                }
                None => {
                    let node_uid = self.nodes.get(node).filter(|facts| facts.id == entry.node_id);
                    let Some(node_uid) = node_uid.map(|facts| facts.uid.clone()) else { continue };
                    let uid = object.metadata.uid.clone().unwrap();
                    let name = pod_name(Mode::Normal, &uid, &node_uid, entry.run, entry.attempts);
                    let found = server.pods.get(&name).filter(|found| short_id(uid_of(found)) == pod_id);
                    let marks = Marks {
                        owner_uid: uid,
                        owner_name: NAME.to_owned(),
                        node: node.clone(),
                        node_uid,
                        run: entry.run,
                        attempt: entry.attempts,
                    };
                    if let Some(found) = found {
                        self.put_unconfirmed(PodFacts::with_marks(found, &marks));
                    }
                }
            }
        }
    }

    fn put_unconfirmed(&mut self, facts: Option<PodFacts>) {
        if let Some(facts) = facts {
            self.pods.put(PodFacts { presence: Presence::Unconfirmed, ..facts });
        }
    }
}
