//! The words of ScriptRunner: the custom resource, its status, and what operator and runner say to each other. Types only.
//!
//! ```yaml
//! apiVersion: scriptrunner.io/v1alpha1
//! kind: ScriptRunner
//! metadata: {name: hello, namespace: default}
//! spec:
//!   nodeLabelSelector: {}          # every node
//!   script: |
//!     import platform
//!     print(platform.release())
//! ```

pub mod condition;
pub mod digest;
pub mod hostile;
pub mod labels;
pub mod pinned;
pub mod reason;
pub mod result;
pub mod session;
pub mod snapshot;
pub mod text;
pub mod v1alpha1;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// API group of every kind of this project.
pub const GROUP: &str = "scriptrunner.io";
/// The served version.
pub const VERSION: &str = "v1alpha1";
/// Number of the status schema. The CRD carries it as annotation [`labels::SCHEMA`]; an operator whose own number is
/// higher writes nothing until the CRD is updated, because an older CRD would prune its results and answer 200.
pub const SCHEMA: u32 = 6;

/// Every custom resource definition of the project, ready to be written as a manifest.
pub fn all_crds() -> Vec<CustomResourceDefinition> {
    let mut crd = v1alpha1::ScriptRunner::crd();
    crd.metadata.annotations.get_or_insert_default().insert(labels::SCHEMA.to_owned(), SCHEMA.to_string());
    vec![crd]
}
