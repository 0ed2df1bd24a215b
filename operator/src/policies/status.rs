//! Who may write a status. Pure.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec};
use scriptrunner_api::GROUP;

use super::{STATUS, demand, is_operator, matching, rule, when};

/// The status is the operator's, and there is no other subresource: one that is added later would move fields past the
/// policy of the spec.
pub(super) fn policy() -> ValidatingAdmissionPolicy {
    super::policy(
        STATUS,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(None, &rule(GROUP, "*", &["*"], &["scriptrunners/*"]))),
            // The rule matches the object itself too.
            match_conditions: Some(vec![when(
                "subresource",
                "request.?subResource.orValue('') != ''".to_owned(),
            )]),
            validations: Some(vec![demand(
                STATUS,
                "only the operator writes the status, and no other subresource is used; write the spec",
                &format!("request.?subResource.orValue('') == 'status' && {}", is_operator()),
            )]),
            ..Default::default()
        },
    )
}
