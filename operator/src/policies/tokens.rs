//! Who may ask for tokens that the operator knows runners by. Pure.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec};
use scriptrunner_api::session::AUDIENCE;

use super::{TOKENS, demand, matching, rule, when};

/// Kubelets, whom admission plugin `NodeRestriction` holds to pods of their own node. Whoever else may ask for tokens of an
/// account, as the stock role `edit` may, would have one that is bound to a runner's pod.
pub(super) fn policy() -> ValidatingAdmissionPolicy {
    super::policy(
        TOKENS,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(None, &rule("", "v1", &["CREATE"], &["serviceaccounts/token"]))),
            match_conditions: Some(vec![when(
                "our-audience",
                format!("object.spec.?audiences.orValue([]).exists(a, a == '{AUDIENCE}')"),
            )]),
            validations: Some(vec![demand(
                TOKENS,
                &format!("only kubelets ask for tokens with audience {AUDIENCE}; choose another audience"),
                "request.userInfo.username.startsWith('system:node:')\n&& request.userInfo.?groups.orValue([]).exists(g, g == 'system:nodes')",
            )]),
            ..Default::default()
        },
    )
}
