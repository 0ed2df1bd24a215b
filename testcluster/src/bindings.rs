//! Admission policies that a test narrows: their bindings leave its own namespace out for a while.

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures::FutureExt;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Result};

/// Tests of one process that need every binding whole hold it for reading, those that narrow one for writing.
static BINDINGS: RwLock<()> = RwLock::const_new(());

/// A binding of an admission policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding<'a> {
    /// Of a validating policy.
    Validating(&'a str),
    /// Of a mutating policy.
    Mutating(&'a str),
}

impl Binding<'_> {
    fn api(&self, client: &Client) -> (&str, Api<DynamicObject>) {
        let (name, word) = match self {
            Self::Validating(name) => (name, "Validating"),
            Self::Mutating(name) => (name, "Mutating"),
        };
        let kind = format!("{word}AdmissionPolicyBinding");
        let resource = ApiResource {
            group: "admissionregistration.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "admissionregistration.k8s.io/v1".to_owned(),
            plural: format!("{}s", kind.to_lowercase()),
            kind,
        };
        (name, Api::all_with(client.clone(), &resource))
    }

    async fn set(&self, client: &Client, resources: &Value) -> Result<()> {
        let (name, api) = self.api(client);
        let patch = Patch::Merge(json!({"spec": {"matchResources": resources}}));
        let doing = format!("narrow or restore the binding {name:?}");
        api.patch(name, &PatchParams::default(), &patch).await.map(drop).map_err(Error::api(doing))
    }
}

/// Holds off those who narrow bindings.
pub async fn whole() -> RwLockReadGuard<'static, ()> {
    BINDINGS.read().await
}

/// Holds off everybody else who narrows bindings, or needs them whole.
pub async fn narrowing() -> Narrowing {
    Narrowing { _alone: BINDINGS.write().await }
}

/// The right to narrow bindings, see [`narrowing`].
#[derive(Debug)]
pub struct Narrowing {
    _alone: RwLockWriteGuard<'static, ()>,
}

impl Narrowing {
    /// Runs `body` while `bindings` leave `namespace` out, and makes them whole afterwards, also when `body` panics. The API
    /// server takes a moment to know of either.
    pub async fn without<T>(
        &self,
        client: &Client,
        bindings: &[Binding<'_>],
        namespace: &str,
        body: impl AsyncFnOnce() -> T,
    ) -> Result<T> {
        let elsewhere = json!({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [namespace]}]}});
        let mut narrowed = Ok(());
        for binding in bindings {
            narrowed = narrowed.and(binding.set(client, &elsewhere).await);
        }
        let outcome = match narrowed {
            Ok(()) => Ok(AssertUnwindSafe(body()).catch_unwind().await),
            Err(error) => Err(error),
        };
        let mut restored = Ok(());
        for binding in bindings {
            restored = restored.and(binding.set(client, &Value::Null).await);
        }
        match outcome? {
            Ok(value) => restored.map(|()| value),
            Err(panic) => resume_unwind(panic),
        }
    }
}
