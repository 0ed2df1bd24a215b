//! Who may make and edit the ConfigMaps that runs are pinned in. Pure.

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec};
use scriptrunner_api::{GROUP, labels::SOURCE};
use scriptrunner_core::names::CONFIG_MAP_PREFIX;

use super::{CONFIG_MAPS, GARBAGE_COLLECTORS, demand, is_child, is_operator, matching, rule, when};

/// The operator only, but for the one label of ours that is the users': it marks what a spec names. Deleting one is never refused:
/// what is missing is not run.
pub(super) fn policy() -> ValidatingAdmissionPolicy {
    let child = is_child(&[CONFIG_MAP_PREFIX]);
    super::policy(
        CONFIG_MAPS,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(None, &rule("", "v1", &["CREATE", "UPDATE"], &["configmaps"]))),
            match_conditions: Some(vec![when(
                "ours",
                format!(
                    "!({}) && [object, oldObject].exists(o, o != null && (\n{child}\n|| o.metadata.?labels.orValue({{}}).exists(k, k.startsWith('{GROUP}/') && k != '{SOURCE}')))",
                    is_operator()
                ),
            )]),
            validations: Some(vec![demand(
                CONFIG_MAPS,
                &format!(
                    "names {CONFIG_MAP_PREFIX}*, labels {GROUP}/* and owner ScriptRunner are the operator's; choose another name, without them"
                ),
                &format!(
                    "request.operation == 'UPDATE' && request.userInfo.username in {GARBAGE_COLLECTORS}"
                ),
            )]),
            ..Default::default()
        },
    )
}
