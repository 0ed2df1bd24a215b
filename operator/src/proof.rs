//! Proves that the admission policies are there, unchanged and enforced, and keeps since when. Talks to the API server.
//!
//! Three things at each attempt: every policy and binding is read and compared with the code; a canary, a dry run by the
//! operator's own account that the policies deny, is denied by them; and what is proven is compared with what is recorded in
//! a ConfigMap of the operator's namespace. A policy that nobody reads would fail silently: whoever removes a binding meets no
//! error.
//!
//! **Invariant:** an answer to [`Proofs::ask`] rests on reads that began after the question.

mod compare;
mod record;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use k8s_openapi::{
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        core::v1::ConfigMap,
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ObjectMeta, PostParams},
};
use scriptrunner_api::{labels, v1alpha1::ScriptRunner};
use scriptrunner_core::observed::PolicyProof;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use self::{
    compare::difference,
    record::{ENFORCED_AFTER, Mark, Record, Since},
};
use crate::{manifests::operator_user, metrics::Metrics, policies};

/// Name of the ConfigMap that keeps since when the policies hold.
pub const RECORD_NAME: &str = "scriptrunner-policy-proof";
/// Its one key.
const RECORD_KEY: &str = "proof.json";
/// Name of the canaries, which are never stored.
const CANARY: &str = "scriptrunner-policy-canary";

/// Why an attempt came to no answer: the API server was not to be reached, or failed. Nothing follows from that.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the admission policies could not be looked at: {0}")]
pub struct Unknown(String);

impl From<kube::Error> for Unknown {
    fn from(error: kube::Error) -> Self {
        Self(error.to_string())
    }
}

/// Proves, one attempt at a time, for whoever asks.
pub struct Proofs {
    client: Client,
    namespace: String,
    request_timeout: Duration,
    newest: watch::Sender<PolicyProof>,
    last: Mutex<Last>,
}

/// The last attempt that ended, and what is known to be stored.
#[derive(Default)]
struct Last {
    began: Option<Instant>,
    answer: Option<Result<PolicyProof, Unknown>>,
    kept: Option<Kept>,
}

/// The ConfigMap as it was last read or written.
#[derive(Clone, Default)]
struct Kept {
    /// None if there was none.
    version: Option<String>,
    /// None if there was none, or nothing that can be read.
    record: Option<Record>,
}

/// What one attempt found.
enum Found {
    Holds(Vec<Mark>),
    Broken(String),
}

impl Proofs {
    /// Nothing is asked yet.
    pub fn new(client: Client, namespace: String, request_timeout: Duration) -> Self {
        let (newest, _) = watch::channel(PolicyProof::Awaited);
        Self { client, namespace, request_timeout, newest, last: Mutex::default() }
    }

    /// The newest answer.
    pub fn newest(&self) -> PolicyProof {
        self.newest.borrow().clone()
    }

    /// Tells of every other answer.
    pub fn watch(&self) -> watch::Receiver<PolicyProof> {
        self.newest.subscribe()
    }

    /// Looks at the policies now. Whoever asks while others wait shares their answer if it rests on reads that begin later.
    pub async fn ask(&self, metrics: &Metrics) -> Result<PolicyProof, Unknown> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let (Some(began), Some(answer)) = (last.began, &last.answer)
            && began > asked
        {
            return answer.clone();
        }
        let began = Instant::now();
        // Boxed: every reconcile would hold room for it.
        let answer = Box::pin(self.attempt(&mut last.kept, metrics)).await;
        if let Err(error) = &answer {
            tracing::warn!(%error, "trying again");
        }
        // Only now: an attempt that was given up answers nobody.
        (last.began, last.answer) = (Some(began), Some(answer.clone()));
        answer
    }

    /// Says what changed, once.
    fn learn(&self, proof: &PolicyProof, metrics: &Metrics) {
        let is_new = self.newest.send_if_modified(|newest| {
            let is_new = newest != proof;
            newest.clone_from(proof);
            is_new
        });
        match proof {
            PolicyProof::Proven { since } => {
                metrics.policies_proven.set(1);
                if is_new {
                    tracing::info!(%since, "the admission policies are proven to hold");
                }
            }
            PolicyProof::NotProven { why } => {
                metrics.policies_proven.set(0);
                if is_new {
                    tracing::warn!(why, "the admission policies do not hold, nothing privileged is started");
                }
            }
            PolicyProof::Awaited => {}
        }
    }

    async fn attempt(&self, kept: &mut Option<Kept>, metrics: &Metrics) -> Result<PolicyProof, Unknown> {
        let known = match kept.take() {
            Some(known) => known,
            None => self.read().await?,
        };
        let (stored, proof) = match self.look().await? {
            Found::Holds(marks) => {
                let since = Since::of(known.record.as_ref(), &marks);
                let (stored, since) = self.keep(known, Record { since: None, objects: marks }, since).await?;
                let proof = PolicyProof::Proven { since };
                self.learn(&proof, metrics);
                (stored, proof)
            }
            Found::Broken(why) => {
                let proof = PolicyProof::NotProven { why };
                // Whether or not the record can be taken back.
                self.learn(&proof, metrics);
                (self.take_back(known).await?, proof)
            }
        };
        *kept = Some(stored);
        Ok(proof)
    }

    /// What is written from now on is judged by nobody, so the next proof begins anew, even with the same objects. Before
    /// anything was ever proven there is nothing to take back.
    async fn take_back(&self, known: Kept) -> Result<Kept, Unknown> {
        let nothing = Record::default();
        if known.record.as_ref().is_none_or(|record| *record == nothing) {
            return Ok(known);
        }
        self.write(&known, nothing).await
    }

    /// Stores what was proven, with the time from which it holds, and answers only then: before that, some API server may
    /// take in what no policy has judged, and what is seen of an object says nothing.
    async fn keep(&self, known: Kept, record: Record, since: Since) -> Result<(Kept, Timestamp), Unknown> {
        let with = |since| Record { since: Some(since), ..record.clone() };
        match since {
            Since::Known(since) if known.record.as_ref() == Some(&with(since)) => Ok((known, since)),
            Since::Known(since) => {
                let left = Timestamp::now().duration_until(since).clamp(SignedDuration::ZERO, ENFORCED_AFTER);
                tokio::time::sleep(left.unsigned_abs()).await;
                Ok((self.write(&known, with(since)).await?, since))
            }
            Since::Now => {
                tokio::time::sleep(ENFORCED_AFTER.unsigned_abs()).await;
                // The API server's clock says when objects were created, so its clock says when this was. A write that changes
                // nothing does not tell it, and conditions have the operator's own clock, so the later of the two counts.
                let (begun, told) = self.write_and_tell(&known, record.clone()).await?;
                let now = told.into_iter().chain([Timestamp::now()]).max().unwrap_or(Timestamp::MAX);
                Ok((self.write(&begun, with(now)).await?, now))
            }
        }
    }

    async fn read(&self) -> Result<Kept, Unknown> {
        let found = self.in_time(self.config_maps().get_opt(RECORD_NAME)).await?;
        let Some(found) = found else { return Ok(Kept::default()) };
        let text = found.data.as_ref().and_then(|data| data.get(RECORD_KEY));
        // What cannot be read proves nothing, and is not the same as nothing.
        let record = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        Ok(Kept { version: found.metadata.resource_version, record: Some(record) })
    }

    async fn write(&self, known: &Kept, record: Record) -> Result<Kept, Unknown> {
        self.write_and_tell(known, record).await.map(|(kept, _)| kept)
    }

    /// Writes the record over the one that is known; also when that was, by the API server's clock.
    async fn write_and_tell(
        &self,
        known: &Kept,
        record: Record,
    ) -> Result<(Kept, Option<Timestamp>), Unknown> {
        let text = serde_json::to_string(&record).map_err(|error| Unknown(error.to_string()))?;
        let config_map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(RECORD_NAME.to_owned()),
                resource_version: known.version.clone(),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(RECORD_KEY.to_owned(), text)])),
            ..ConfigMap::default()
        };
        let (api, params) = (self.config_maps(), PostParams::default());
        let written = if known.version.is_some() {
            self.in_time(api.replace(RECORD_NAME, &params, &config_map)).await?
        } else {
            self.in_time(api.create(&params, &config_map)).await?
        };
        let managed = written.metadata.managed_fields.unwrap_or_default();
        let told = managed.into_iter().filter_map(|entry| entry.time).map(|time| time.0).max();
        Ok((Kept { version: written.metadata.resource_version, record: Some(record) }, told))
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn in_time<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, Unknown> {
        match tokio::time::timeout(self.request_timeout, call).await {
            Ok(answer) => answer.map_err(Unknown::from),
            Err(_) => Err(Unknown(format!("no answer within {} s", self.request_timeout.as_secs()))),
        }
    }

    /// Reads everything and tries the canaries.
    async fn look(&self) -> Result<Found, Unknown> {
        let policies = policies::policies();
        let bindings = policies::bindings();
        let policies =
            policies.iter().map(|it| self.compare::<ValidatingAdmissionPolicy>(&it.metadata, &it.spec));
        let bindings = bindings
            .iter()
            .map(|it| self.compare::<ValidatingAdmissionPolicyBinding>(&it.metadata, &it.spec));
        let (policies, bindings, spec, operator) = tokio::join!(
            try_join_all(policies),
            try_join_all(bindings),
            self.try_spec(),
            self.try_operator()
        );
        let mut marks = Vec::new();
        for compared in policies?.into_iter().chain(bindings?) {
            match compared {
                Ok(mark) => marks.push(mark),
                Err(why) => return Ok(Found::Broken(why)),
            }
        }
        for canary in [spec?, operator?] {
            if let Err(why) = canary {
                return Ok(Found::Broken(why));
            }
        }
        Ok(Found::Holds(marks))
    }

    /// The mark of an installed object of a kind, or what is wrong with it and what to do.
    async fn compare<K>(
        &self,
        metadata: &ObjectMeta,
        spec: &(impl Serialize + Sync),
    ) -> Result<Result<Mark, String>, Unknown>
    where
        K: Resource<DynamicType = ()>,
    {
        let name = metadata.name.clone().unwrap_or_default();
        let expected = serde_json::to_value(spec).map_err(|error| Unknown(error.to_string()))?;
        // Read as it stands: a type of today would drop what it does not know.
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::erase::<K>(&()));
        let kind = K::kind(&());
        let what = format!("{kind} {name:?}");
        let found = match self.answer(api.get_opt(&name)).await? {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Err(format!("{what} does not exist; apply deploy/ again"))),
            Err(refusal) => {
                return Ok(Err(format!("{what} cannot be read ({refusal}); apply deploy/ again")));
            }
        };
        if let Some(difference) = difference(&expected, found.data.get("spec").unwrap_or(&Value::Null)) {
            // What somebody has added no `kubectl apply` takes away.
            return Ok(Err(format!("{what} was changed ({difference}); delete it and apply deploy/ again")));
        }
        let ObjectMeta { uid, generation, creation_timestamp, .. } = found.metadata;
        let (Some(uid), Some(generation), Some(created)) = (uid, generation, creation_timestamp) else {
            return Ok(Err(format!("{what} has no UID, generation or time of creation")));
        };
        Ok(Ok(Mark { name: format!("{kind}/{name}"), uid, generation, created: created.0 }))
    }

    /// A privileged ScriptRunner, which the operator may not write.
    async fn try_spec(&self) -> Result<Result<(), String>, Unknown> {
        let spec = json!({"script": "true", "nodeNames": [CANARY], "mode": "Privileged", "parallelism": 1,
            "executionDeadlineSeconds": 1});
        let spec = serde_json::from_value(spec).map_err(|error| Unknown(error.to_string()))?;
        let mut canary = ScriptRunner::new(CANARY, spec);
        // Without it another policy may refuse the canary first (`requested_by.rs`).
        canary.annotations_mut().insert(labels::REQUESTED_BY.to_owned(), operator_user());
        self.try_canary(policies::SPEC, "a privileged ScriptRunner", &canary).await
    }

    /// A ConfigMap that belongs to no run, which the operator has no use for.
    async fn try_operator(&self) -> Result<Result<(), String>, Unknown> {
        let metadata = ObjectMeta { name: Some(CANARY.to_owned()), ..ObjectMeta::default() };
        let canary = ConfigMap { metadata, ..ConfigMap::default() };
        self.try_canary(policies::OPERATOR_REQUESTS, "a ConfigMap without an owner", &canary).await
    }

    /// Asks for something that is to be refused by a policy. Only as a dry run: nothing is left if it is not.
    async fn try_canary<K>(&self, policy: &str, what: &str, canary: &K) -> Result<Result<(), String>, Unknown>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Serialize
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        Ok(match self.answer(api.create(&dry, canary)).await? {
            Ok(_) => Err(format!(
                "{what}, asked for by the operator as a dry run, was not refused: policy {policy:?} is not enforced; see that the API servers have the admission plugin ValidatingAdmissionPolicy, and apply deploy/ again"
            )),
            Err(refusal) if refusal.contains(&format!("ValidatingAdmissionPolicy '{policy}'")) => Ok(()),
            Err(refusal) => Err(format!(
                "{what}, asked for by the operator as a dry run, was refused, but not by policy {policy:?} ({refusal}); apply deploy/ again"
            )),
        })
    }

    /// The answer of a call; as text what the API server says when it refuses it for good.
    async fn answer<T>(
        &self,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<Result<T, String>, Unknown> {
        match tokio::time::timeout(self.request_timeout, call).await {
            Ok(Ok(found)) => Ok(Ok(found)),
            Ok(Err(kube::Error::Api(status)))
                // 401: an API server that does not know the token yet, or any more.
                if (400..500).contains(&status.code) && ![401, 408, 429].contains(&status.code) =>
            {
                Ok(Err(status.message.clone()))
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Unknown(format!("no answer within {} s", self.request_timeout.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests;
