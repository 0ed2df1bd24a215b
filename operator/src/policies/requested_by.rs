//! Who asked for a spec, as an annotation. Whoever writes it writes his own name: that holds in every cluster. That it is always
//! there is an optional part, for clusters that serve mutating admission policies. Pure.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    ValidatingAdmissionPolicySpec, Validation, Variable,
};
use scriptrunner_api::{GROUP, VERSION};
use serde_json::{Value, json};

use super::{binding, demand, matching, rule, variable};

/// Policy: whose name the annotation is. The mutating one that sets it, and its binding, have this name too.
pub const REQUESTED_BY: &str = "scriptrunner-requested-by";
/// Policy of the optional part: no privileged spec without the annotation.
pub const REQUESTED_BY_NEEDED: &str = "scriptrunner-requested-by-needed";
/// Annotation of a ScriptRunner: the name of the user who last changed its spec.
pub const ANNOTATION: &str = scriptrunner_api::labels::REQUESTED_BY;

const CHANGED: &str = "oldObject == null || object.spec != oldObject.spec";

fn annotation(object: &str) -> String {
    format!("{object}.metadata.?annotations[?'{ANNOTATION}']")
}

/// Refuses a stamp that is not true. One that is not there says nothing false.
pub(super) fn policy() -> ValidatingAdmissionPolicy {
    judging(
        REQUESTED_BY,
        vec![
            variable("who", annotation("object")),
            variable("oldWho", format!("oldObject == null ? optional.none() : {}", annotation("oldObject"))),
        ],
        demand(
            REQUESTED_BY,
            &format!("annotation {ANNOTATION} is the name of who last changed the spec; leave it out"),
            "variables.changed\n? variables.who.orValue(request.userInfo.username) == request.userInfo.username\n: variables.who.orValue('') == variables.oldWho.orValue('')",
        ),
    )
}

/// Refuses a privileged spec without a stamp.
pub fn needed() -> (ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding) {
    let mode = |object: &str| format!("has({object}.spec.mode) ? {object}.spec.mode : 'Unknown'");
    let policy = judging(
        REQUESTED_BY_NEEDED,
        vec![
            variable("who", annotation("object")),
            variable("mode", mode("object")),
            variable("oldMode", format!("oldObject == null ? 'Normal' : {}", mode("oldObject"))),
        ],
        demand(
            REQUESTED_BY_NEEDED,
            &format!(
                "a privileged spec needs annotation {ANNOTATION} with your user name, which the mutating policy {REQUESTED_BY} sets"
            ),
            "!variables.changed || (variables.mode == 'Normal' && variables.oldMode == 'Normal') || variables.who.hasValue()",
        ),
    );
    (policy, binding(REQUESTED_BY_NEEDED, &["Deny"]))
}

/// A policy for every write of a ScriptRunner, with one rule.
fn judging(name: &str, variables: Vec<Variable>, rule: Validation) -> ValidatingAdmissionPolicy {
    let changed = variable("changed", CHANGED.to_owned());
    super::policy(
        name,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(writes()),
            variables: Some([changed].into_iter().chain(variables).collect()),
            validations: Some(vec![rule]),
            ..Default::default()
        },
    )
}

fn writes() -> MatchResources {
    matching(None, &rule(GROUP, VERSION, &["CREATE", "UPDATE"], &["scriptrunners"]))
}

/// Sets the annotation, and gives it back to whoever writes an object without it. As plain data, because the API types of
/// the lowest supported Kubernetes do not have it.
pub fn mutating() -> [Value; 2] {
    let api = "admissionregistration.k8s.io/v1";
    let (who, old_who) = ("request.userInfo.username", annotation("oldObject"));
    let stamp = format!("{CHANGED} ? {who} : {old_who}.orValue('')");
    let constraints = writes();
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
