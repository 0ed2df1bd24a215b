//! The admission policies of the operator: who may write which spec, and what namespaces for privileged runs admit. Pure.
//!
//! RBAC cannot look into an object, so the mode is judged here. Rules for whoever edits an expression:
//! at most two authorizer checks per expression (a third exceeds the cost limit and then denies everybody);
//! `request.subResource` and other optional parts only through `.?` and `orValue` (an absent one is an error, and an error
//! denies); every validation has reason `Forbidden` (else the answer is 422) and a text that begins with the policy's name.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::admissionregistration::v1::{
        AuditAnnotation, MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
        ValidatingAdmissionPolicySpec, Validation, Variable,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use scriptrunner_api::{
    GROUP, VERSION,
    labels::{PRIVILEGED, PRIVILEGED_ALLOWED},
};

use crate::manifests::{NAMESPACE, operator_user};

/// Virtual API group in which rights to privileged modes are given; nothing is served there.
pub const ACCESS_GROUP: &str = "access.scriptrunner.io";
/// Virtual resource in [`ACCESS_GROUP`], one name per mode, alone or after `<namespace>:`.
pub const EXECUTION_MODES: &str = "executionmodes";
/// Virtual resource in [`ACCESS_GROUP`], one name per class of nodes.
pub const NODE_CLASSES: &str = "nodeclasses";
/// Name in [`NODE_CLASSES`] of nodes with taint [`CONTROL_PLANE_TAINT`].
pub const CONTROL_PLANE: &str = "control-plane";
/// Taint of a control-plane node; one without it is an ordinary node.
pub const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";
/// Verb on [`EXECUTION_MODES`] that a privileged mode needs, and on [`NODE_CLASSES`] the toleration of such a taint, at
/// cluster scope.
pub const USE: &str = "use";

/// Policy: who may write which spec.
pub const SPEC: &str = "scriptrunner-spec";
/// Policy: who makes and edits pods in a namespace for privileged runs.
pub const PRIVILEGED_NAMESPACE: &str = "scriptrunner-privileged-namespace";
/// Policy: who makes a namespace one for privileged runs.
pub const NAMESPACE_LABEL: &str = "scriptrunner-namespace-label";

/// Every policy, with every field as the API server would fill it, so that an installed one can be compared.
pub fn policies() -> Vec<ValidatingAdmissionPolicy> {
    vec![spec(), privileged_namespace(), namespace_label()]
}

/// The binding of each policy. The refusal of a spec is also written to the audit log.
pub fn bindings() -> Vec<ValidatingAdmissionPolicyBinding> {
    let binding = |name: &str, actions: &[&str]| ValidatingAdmissionPolicyBinding {
        metadata: named(name),
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(name.to_owned()),
            validation_actions: Some(strings(actions)),
            ..Default::default()
        }),
    };
    vec![
        binding(SPEC, &["Deny", "Audit"]),
        binding(PRIVILEGED_NAMESPACE, &["Deny"]),
        binding(NAMESPACE_LABEL, &["Deny"]),
    ]
}

fn spec() -> ValidatingAdmissionPolicy {
    let operator = operator_user();
    let may_new = may_use("request.namespace", "variables.mode.lowerAscii()");
    let may_old = may_use("request.namespace", "variables.oldMode.lowerAscii()");
    policy(
        SPEC,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(None, &rule(GROUP, VERSION, &["CREATE", "UPDATE"], &["scriptrunners"]))),
            variables: Some(vec![
                variable("isOperator", format!("request.userInfo.username == '{operator}'")),
                variable("changed", "oldObject == null || object.spec != oldObject.spec".to_owned()),
                variable("mode", "has(object.spec.mode) ? object.spec.mode : 'Unknown'".to_owned()),
                variable(
                    "oldMode",
                    "oldObject == null ? 'Normal' : has(oldObject.spec.mode) ? oldObject.spec.mode : 'Unknown'"
                        .to_owned(),
                ),
                variable("mayNew", format!("variables.mode == 'Normal'\n|| {may_new}")),
                variable(
                    "mayOld",
                    format!("variables.oldMode == 'Normal' || variables.oldMode == variables.mode\n|| {may_old}"),
                ),
                variable("borrows", borrows()),
                // A toleration without a key is for every taint.
                variable(
                    "controlPlane",
                    format!("object.spec.?tolerations.orValue([]).exists(t, t.?key.orValue('') in ['', '{CONTROL_PLANE_TAINT}'])"),
                ),
            ]),
            validations: Some(spec_validations()),
            audit_annotations: Some(vec![AuditAnnotation {
                key: "privileged-spec".to_owned(),
                value_expression: "variables.changed && variables.mode != 'Normal'\n? 'mode=' + variables.mode + ' by=' + request.userInfo.username\n: ''"
                    .to_owned(),
            }]),
            ..Default::default()
        },
    )
}

/// Whether the spec names something of its namespace that otherwise only who makes pods there reaches. Of each list that is
/// allowed which cannot; so a kind that is added later is refused, not let through. Untyped, because a schema that knows
/// none of these fields yet, or not any more, is no reason for a warning.
fn borrows() -> String {
    let spec = "dyn(object.spec)";
    [
        format!(
            "{spec}.?env.orValue([]).exists(e, e.?valueFrom.hasValue()\n  && (e.valueFrom.?configMapKeyRef.hasValue() || e.valueFrom.?secretKeyRef.hasValue()\n    || !(e.valueFrom.?fieldRef.hasValue() || e.valueFrom.?resourceFieldRef.hasValue())))"
        ),
        format!("{spec}.?envFrom.orValue([]).size() > 0"),
        format!("{spec}.?scriptFrom.hasValue()"),
        format!("{spec}.?dependencies.?trustedCA.hasValue()"),
        format!("{spec}.?imagePullSecrets.orValue([]).size() > 0"),
        // A claim that is made for the pod may be a copy of another claim.
        format!(
            "{spec}.?podTemplate.?volumes.orValue([]).exists(v,\n  v.?configMap.hasValue() || v.?secret.hasValue() || v.?persistentVolumeClaim.hasValue()\n  || v.?ephemeral.?volumeClaimTemplate.?spec.?dataSource.hasValue()\n  || v.?ephemeral.?volumeClaimTemplate.?spec.?dataSourceRef.hasValue()\n  || !(v.?emptyDir.hasValue() || v.?ephemeral.hasValue()))"
        ),
    ]
    .join("\n|| ")
}

fn spec_validations() -> Vec<Validation> {
    let needs = |what: &str, mode: &str| {
        format!(
            "'{SPEC}: {what} ' + {mode}\n+ ' needs verb {USE} on {EXECUTION_MODES}.{ACCESS_GROUP}/'\n+ request.namespace + ':' + {mode}.lowerAscii() + ' (cluster scope)'"
        )
    };
    vec![
        Validation {
            message_expression: Some(needs("mode", "variables.mode")),
            ..forbidden("!variables.changed || variables.mayNew")
        },
        Validation {
            message_expression: Some(needs("leaving mode", "variables.oldMode")),
            ..forbidden("!variables.changed || variables.mayOld")
        },
        Validation {
            message: Some(format!(
                "{SPEC}: Secrets, ConfigMaps, claims and pull secrets may be named only by who may create pods in this namespace"
            )),
            ..forbidden(
                "!variables.changed || !variables.borrows\n|| authorizer.group('').resource('pods').namespace(request.namespace).check('create').allowed()",
            )
        },
        Validation {
            message: Some(format!(
                "{SPEC}: a toleration of {CONTROL_PLANE_TAINT}, as one without a key is, needs verb {USE} on {NODE_CLASSES}.{ACCESS_GROUP}/{CONTROL_PLANE} (cluster scope)"
            )),
            ..forbidden(&format!(
                "!variables.changed || !variables.controlPlane\n|| authorizer.group('{ACCESS_GROUP}').resource('{NODE_CLASSES}').name('{CONTROL_PLANE}').check('{USE}').allowed()"
            ))
        },
        Validation {
            message: Some(format!("{SPEC}: the operator writes no spec")),
            ..forbidden("!variables.isOperator")
        },
        Validation {
            message: Some(format!(
                "{SPEC}: no ScriptRunner in the operator's own namespace; choose another one"
            )),
            ..forbidden(&format!("!variables.changed || request.namespace != '{NAMESPACE}'"))
        },
    ]
}

fn privileged_namespace() -> ValidatingAdmissionPolicy {
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

fn namespace_label() -> ValidatingAdmissionPolicy {
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

/// The right to a mode, for one namespace or for all. Asked without a namespace, so only a ClusterRoleBinding gives it:
/// the wildcard of a namespace's owner does not.
fn may_use(namespace: &str, mode: &str) -> String {
    let check = |name: &str| {
        format!(
            "authorizer.group('{ACCESS_GROUP}').resource('{EXECUTION_MODES}').name({name}).check('{USE}').allowed()"
        )
    };
    format!("{}\n|| {}", check(&format!("{namespace} + ':' + {mode}")), check(mode))
}

fn policy(name: &str, spec: ValidatingAdmissionPolicySpec) -> ValidatingAdmissionPolicy {
    ValidatingAdmissionPolicy {
        metadata: named(name),
        spec: Some(ValidatingAdmissionPolicySpec { failure_policy: Some("Fail".to_owned()), ..spec }),
        status: None,
    }
}

fn matching(namespaces: Option<LabelSelector>, rule: &NamedRuleWithOperations) -> MatchResources {
    MatchResources {
        // Other served versions are converted to the named one before they are judged.
        match_policy: Some("Equivalent".to_owned()),
        namespace_selector: Some(namespaces.unwrap_or_default()),
        object_selector: Some(LabelSelector::default()),
        resource_rules: Some(vec![rule.clone()]),
        exclude_resource_rules: None,
    }
}

fn rule(group: &str, version: &str, operations: &[&str], resources: &[&str]) -> NamedRuleWithOperations {
    NamedRuleWithOperations {
        api_groups: Some(strings(&[group])),
        api_versions: Some(strings(&[version])),
        operations: Some(strings(operations)),
        resource_names: None,
        resources: Some(strings(resources)),
        scope: Some("*".to_owned()),
    }
}

fn forbidden(expression: &str) -> Validation {
    Validation {
        expression: expression.to_owned(),
        reason: Some("Forbidden".to_owned()),
        message: None,
        message_expression: None,
    }
}

fn variable(name: &str, expression: String) -> Variable {
    Variable { name: name.to_owned(), expression }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..Default::default() }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validations() -> Vec<(String, Validation)> {
        let of = |policy: ValidatingAdmissionPolicy| {
            let name = policy.metadata.name.unwrap();
            policy.spec.unwrap().validations.unwrap().into_iter().map(move |rule| (name.clone(), rule))
        };
        policies().into_iter().flat_map(of).collect()
    }

    #[test]
    fn every_refusal_is_forbidden_and_says_which_policy() {
        for (name, rule) in validations() {
            assert_eq!(rule.reason.as_deref(), Some("Forbidden"));
            let text = rule.message.or(rule.message_expression).unwrap();
            assert!(text.trim_start_matches('\'').starts_with(&format!("{name}: ")), "{text}");
        }
    }

    #[test]
    fn no_expression_asks_the_authorizer_more_than_twice() {
        for policy in policies() {
            let spec = policy.spec.unwrap();
            let variables =
                spec.variables.unwrap_or_default().into_iter().map(|variable| variable.expression);
            let rules = spec.validations.unwrap().into_iter().map(|rule| rule.expression);
            for expression in variables.chain(rules) {
                assert!(expression.matches(".check(").count() <= 2, "{expression}");
            }
        }
    }

    #[test]
    fn every_policy_is_bound_and_fails_closed() {
        let bound: Vec<_> = bindings().into_iter().map(|binding| binding.spec.unwrap().policy_name).collect();
        for policy in policies() {
            assert!(bound.contains(&policy.metadata.name));
            assert_eq!(policy.spec.unwrap().failure_policy.as_deref(), Some("Fail"));
        }
    }
}
