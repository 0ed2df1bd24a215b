//! Rights of an operator that is for some namespaces only (`--watch-namespaces`), under the same names as those of one that is
//! for all, so that applying the one takes back the other. Pure.

use k8s_openapi::{api::rbac::v1::RoleBinding, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{OPERATOR, role_ref, subject, yaml};
use crate::rbac;

/// In place of `deploy/10-rbac.yaml`.
pub(super) fn rbac_documents() -> Vec<String> {
    let mut documents = super::rbac_documents(&rbac::in_no_namespace(), &rbac::in_own_namespace());
    let comment = yaml::comment(
        "In place of deploy/10-rbac.yaml, for an operator with --watch-namespaces: what it may do in the whole cluster and in its own namespace. Its rights in the namespaces that it watches are in each-namespace.yaml.",
    );
    documents[0].insert_str(0, &comment);
    documents
}

/// For each namespace that it watches. No namespace stands in it: `kubectl apply --namespace` gives it.
pub(super) fn namespace_documents() -> Vec<String> {
    let binding = RoleBinding {
        metadata: ObjectMeta { name: Some(OPERATOR.to_owned()), ..Default::default() },
        role_ref: role_ref("Role"),
        subjects: Some(vec![subject()]),
    };
    vec![
        yaml::comment(
            "For each namespace that an operator with --watch-namespaces is to watch, before it is told to: kubectl apply --namespace NAME -f deploy/namespaced/each-namespace.yaml",
        ) + &yaml::role("Role", OPERATOR, None, &rbac::in_each_namespace()),
        yaml::document(&binding),
    ]
}
