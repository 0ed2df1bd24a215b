//! The Secret that holds what the operator identifies itself with. Talks to the API server; decides nothing about time.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};

use super::authority::Material;

/// Name of the Secret.
pub const SECRET_NAME: &str = "scriptrunner-operator-session";
/// Its only key: a JSON document.
const KEY: &str = "material.json";

/// Why the Secret is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or failed.
    #[error("{doing} Secret {namespace}/{SECRET_NAME}: {source}")]
    Call {
        /// What was being done.
        doing: &'static str,
        /// The operator's namespace.
        namespace: String,
        /// What the client says.
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("{doing} Secret {namespace}/{SECRET_NAME}: no answer within {seconds} s")]
    AwaitAnswer {
        /// What was being done.
        doing: &'static str,
        /// The operator's namespace.
        namespace: String,
        /// The limit.
        seconds: u64,
    },
    /// Somebody else wrote it.
    #[error(
        "Secret {namespace}/{SECRET_NAME} is not what an operator wrote ({reason}); delete it, and it is made anew: runners that are under way then hand over when their pods end"
    )]
    Read {
        /// The operator's namespace.
        namespace: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The Secret as it was read.
pub(super) enum Found {
    /// There is none.
    Nothing,
    /// It holds nothing: somebody made it for the operator to fill.
    Empty {
        /// Its version.
        version: String,
    },
    /// What the operator wrote.
    Material {
        /// Its version.
        version: String,
        /// Its content.
        material: Box<Material>,
    },
    /// Something else.
    Foreign {
        /// Its version.
        version: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is stored.
    Stored {
        /// Its version now.
        version: String,
    },
    /// Somebody else was faster: what is there has to be read again.
    Outdated,
}

/// The Secret of one namespace.
pub(super) struct Store {
    api: Api<Secret>,
    namespace: String,
    timeout: Duration,
}

impl Store {
    pub(super) fn new(client: Client, namespace: &str, timeout: Duration) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned(), timeout }
    }

    /// Reads it.
    pub(super) async fn read(&self) -> Result<Found, Error> {
        let Some(secret) = self.call("get", self.api.get_opt(SECRET_NAME)).await? else {
            return Ok(Found::Nothing);
        };
        let version = secret.metadata.resource_version.unwrap_or_default();
        let data = secret.data.unwrap_or_default();
        if data.is_empty() {
            return Ok(Found::Empty { version });
        }
        let Some(ByteString(document)) = data.get(KEY) else {
            return Ok(Found::Foreign { version, reason: format!("there is no {KEY:?} in it") });
        };
        Ok(match serde_json::from_slice(document) {
            Ok(material) => Found::Material { version, material },
            // Without what the library says of the place: it can repeat parts of a key.
            Err(_) => Found::Foreign { version, reason: format!("{KEY:?} cannot be read") },
        })
    }

    /// Writes it: over the version that was read, or anew if there was none.
    pub(super) async fn write(&self, version: Option<String>, material: &Material) -> Result<Written, Error> {
        let secret = secret(version.clone(), material);
        let params = PostParams::default();
        let written = if version.is_some() {
            self.call("update", self.api.replace(SECRET_NAME, &params, &secret)).await
        } else {
            self.call("create", self.api.create(&params, &secret)).await
        };
        match written {
            Ok(stored) => {
                Ok(Written::Stored { version: stored.metadata.resource_version.unwrap_or_default() })
            }
            Err(Error::Call { source, .. }) if is_outdated(&source) => Ok(Written::Outdated),
            Err(error) => Err(error),
        }
    }

    /// The error for content that nobody here wrote.
    pub(super) fn foreign(&self, reason: String) -> Error {
        Error::Read { namespace: self.namespace.clone(), reason }
    }

    async fn call<T>(
        &self,
        doing: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let namespace = self.namespace.clone();
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map_err(|source| Error::Call { doing, namespace, source: Box::new(source) }),
            Err(_) => Err(Error::AwaitAnswer { doing, namespace, seconds: self.timeout.as_secs() }),
        }
    }
}

/// It was changed, made or deleted by somebody else since it was read.
fn is_outdated(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() || status.is_not_found())
}

fn secret(version: Option<String>, material: &Material) -> Secret {
    let document = serde_json::to_vec(material).expect("plain data should serialise");
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET_NAME.to_owned()),
            resource_version: version,
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/name".to_owned(),
                "scriptrunner-operator".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(document))])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}
