//! Who asked for a spec, as an annotation: an optional part, for clusters that serve mutating admission policies. Pure.
//!
//! The mutating policy only helps; what makes the annotation true is the validating one.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicySpec,
};
use scriptrunner_api::{GROUP, VERSION};
use serde_json::{Value, json};

use super::{binding, demand, matching, rule, variable};

/// Name of both policies and both bindings.
pub const REQUESTED_BY: &str = "scriptrunner-requested-by";
/// Annotation of a ScriptRunner: the name of the user who last changed its spec.
pub const ANNOTATION: &str = scriptrunner_api::labels::REQUESTED_BY;

const CHANGED: &str = "oldObject == null || object.spec != oldObject.spec";

fn annotation(object: &str) -> String {
    format!("{object}.metadata.?annotations[?'{ANNOTATION}']")
}

/// Refuses a stamp that is not true, and a privileged spec without one.
pub fn validating() -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let mode = |object: &str| format!("has({object}.spec.mode) ? {object}.spec.mode : 'Unknown'");
    let policy = super::policy(
        REQUESTED_BY,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(
                None,
                &rule(GROUP, VERSION, &["CREATE", "UPDATE"], &["scriptrunners"]),
            )),
            variables: Some(vec![
                variable("changed", CHANGED.to_owned()),
                variable("who", annotation("object")),
                variable(
                    "oldWho",
                    format!("oldObject == null ? optional.none() : {}", annotation("oldObject")),
                ),
                variable("mode", mode("object")),
                variable("oldMode", format!("oldObject == null ? 'Normal' : {}", mode("oldObject"))),
            ]),
            validations: Some(vec![
                demand(
                    REQUESTED_BY,
                    &format!(
                        "annotation {ANNOTATION} is the name of who last changed the spec; leave it out"
                    ),
                    "variables.changed\n? variables.who.orValue(request.userInfo.username) == request.userInfo.username\n: variables.who.orValue('') == variables.oldWho.orValue('')",
                ),
                demand(
                    REQUESTED_BY,
                    &format!(
                        "a privileged spec needs annotation {ANNOTATION} with your user name, which the mutating policy of the same name sets"
                    ),
                    "!variables.changed || (variables.mode == 'Normal' && variables.oldMode == 'Normal') || variables.who.hasValue()",
                ),
            ]),
            ..Default::default()
        },
    );
    (policy, binding(REQUESTED_BY, &["Deny"]))
}

/// Sets the annotation, and gives it back to whoever writes an object without it. As plain data, because the API types of
/// the lowest supported Kubernetes do not have it.
pub fn mutating() -> [Value; 2] {
    let api = "admissionregistration.k8s.io/v1";
    let (who, old_who) = ("request.userInfo.username", annotation("oldObject"));
    let stamp = format!("{CHANGED} ? {who} : {old_who}.orValue('')");
    let constraints = matching(None, &rule(GROUP, VERSION, &["CREATE", "UPDATE"], &["scriptrunners"]));
    // Not an apply configuration: that reads the whole object by its schema first, and whoever has a field of a wrong type
    // is told so in words of this policy, in place of the API server's own sentence.
    let key = ANNOTATION.replace('/', "~1");
    let expression = format!(
        "(has(object.metadata.annotations) ? [] : [JSONPatch{{op: 'add', path: '/metadata/annotations', value: dyn({{}})}}])\n+ [JSONPatch{{op: 'add', path: '/metadata/annotations/{key}', value: {stamp}}}]"
    );
    let policy = json!({"apiVersion": api, "kind": "MutatingAdmissionPolicy", "metadata": {"name": REQUESTED_BY},
        "spec": {"failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded", "matchConstraints": constraints,
            // An object that has none, as one from before, gets none by a change of its labels.
            "matchConditions": [{"name": "stamp", "expression": format!("{CHANGED} || {old_who}.hasValue()")}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}]}});
    let binding = json!({"apiVersion": api, "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": REQUESTED_BY}, "spec": {"policyName": REQUESTED_BY}});
    [policy, binding]
}
