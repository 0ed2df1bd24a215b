//! What namespaces for privileged runs admit, and who makes one. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use scriptrunner_api::labels::{PRIVILEGED, PRIVILEGED_ALLOWED};

use super::{
    ACCESS_GROUP, EXECUTION_MODES, NAMESPACE_LABEL, PRIVILEGED_NAMESPACE, USE, forbidden, matching, may_use,
    policy, rule, variable,
};
use crate::manifests::operator_user;

/// In a namespace for privileged runs nobody but the operator makes or edits pods.
pub(super) fn privileged_namespace() -> ValidatingAdmissionPolicy {
    let operator = operator_user();
    let labelled = LabelSelector {
        match_labels: Some(BTreeMap::from([(PRIVILEGED.to_owned(), PRIVILEGED_ALLOWED.to_owned())])),
        ..Default::default()
    };
    let pods = rule("", "v1", &["CREATE", "UPDATE"], &["pods", "pods/ephemeralcontainers", "pods/resize"]);
    policy(
        PRIVILEGED_NAMESPACE,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(Some(labelled), &pods)),
            match_conditions: Some(vec![MatchCondition {
                name: "spec-writes".to_owned(),
                expression: "request.operation == 'CREATE' || request.?subResource.orValue('') != ''\n|| object.spec != oldObject.spec".to_owned(),
            }]),
            validations: Some(vec![Validation {
                message: Some(format!(
                    "{PRIVILEGED_NAMESPACE}: in a namespace labelled {PRIVILEGED}={PRIVILEGED_ALLOWED} only the operator creates or edits pods; use another namespace"
                )),
                // Kubelets make the mirror pods of static pods; NodeRestriction holds them to their own node.
                ..forbidden(&format!(
                    "request.userInfo.username == '{operator}'\n|| request.userInfo.?groups.orValue([]).exists(g, g == 'system:nodes')"
                ))
            }]),
            ..Default::default()
        },
    )
}

/// That label is not for the owner of the namespace.
pub(super) fn namespace_label() -> ValidatingAdmissionPolicy {
    // Labels can also be written through both subresources.
    let namespaces =
        rule("", "v1", &["CREATE", "UPDATE"], &["namespaces", "namespaces/status", "namespaces/finalize"]);
    let label = |object: &str| format!("{object}.metadata.?labels[?'{PRIVILEGED}'].orValue('')");
    policy(
        NAMESPACE_LABEL,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(None, &namespaces)),
            variables: Some(vec![
                variable("newLabel", label("object")),
                variable("oldLabel", format!("oldObject == null ? '' : {}", label("oldObject"))),
            ]),
            validations: Some(vec![Validation {
                message: Some(format!(
                    "{NAMESPACE_LABEL}: label {PRIVILEGED} needs verb {USE} on {EXECUTION_MODES}.{ACCESS_GROUP}/<namespace>:privileged (cluster scope)"
                )),
                ..forbidden(&format!(
                    "variables.newLabel == variables.oldLabel\n|| {}",
                    may_use("object.metadata.name", "'privileged'")
                ))
            }]),
            ..Default::default()
        },
    )
}
