//! What is installed before the script runs: the types of `dependencies`.

#![expect(unreachable_pub, reason = "KubeSchema derives through private copies of the structs")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::TrustedCA;

/// Default of `dependencies.installTimeoutSeconds`.
pub const DEFAULT_INSTALL_TIMEOUT_SECONDS: u32 = 600;
/// Longest `dependencies.installTimeoutSeconds`: a day.
pub const MAX_INSTALL_TIMEOUT_SECONDS: u32 = 86_400;

/// What is installed before the script runs, see `dependencies`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Dependencies {
    /// Python requirements (PEP 508), one each, for example `requests==2.32.3`, installed into an environment of the
    /// run's own with uv, or with pip where there is no uv. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = Rule::new("self.all(p, !p.startsWith('-'))").message("a pip requirement cannot start with '-': options are not requirements; use indexURL, extraIndexURLs and trustedCA"))]
    pub pip: Vec<String>,

    /// Packages of the image's operating system, one each as its package program takes it, for example `smartmontools`,
    /// installed with the first of dnf, microdnf and apt-get that the image has; apt-get (2.2 and later) must reach all indexes that
    /// the image names. They need root: in mode `Normal` also `runAs: Root`. At most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 100),
        inner(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9/][A-Za-z0-9._+:=~*@/-]*$"))
    )]
    pub packages: Vec<String>,

    /// Package index that replaces the default one, an http or https URL of at most 2048 characters. Whoever may read the
    /// ScriptRunner reads a password in it: set `UV_INDEX_URL` and `PIP_INDEX_URL` in `env` from a Secret instead. Whoever may write that Secret then
    /// decides what is installed: in a privileged mode he is root on the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "indexURL")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[!-~]+$"))]
    pub index_url: Option<String>,

    /// Further package indexes, http or https URLs of at most 2048 characters. At most 10. What an index of your own has is
    /// better served by `indexURL` alone: of a name that several have, who wins depends on the installer.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "extraIndexURLs")]
    #[schemars(length(max = 10), inner(length(max = 2048), regex(pattern = r"^https?://[!-~]+$")))]
    pub extra_index_urls: Vec<String>,

    /// Certificate authorities that pip, uv, dnf and apt-get trust instead of those of the image, for indexes of your own. A change
    /// of their content starts a new run.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "trustedCA")]
    pub trusted_ca: Option<TrustedCA>,

    /// How long all installing in a pod may take together, in seconds, 1 to 86400, default 600. A change applies to pods
    /// that start later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub install_timeout_seconds: Option<u32>,
}
