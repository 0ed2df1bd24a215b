//! The admission policies of the operator: who may write which spec, status, pod and input, and what the operator's own account
//! may ask for. Pure.
//!
//! RBAC cannot look into an object, so the mode is judged here. Rules for whoever edits an expression:
//! at most two authorizer checks per expression (a third exceeds the cost limit and then denies everybody);
//! `request.subResource` and other optional parts only through `.?` and `orValue` (an absent one is an error, and an error
//! denies); every validation has reason `Forbidden` (else the answer is 422) and a text that begins with the policy's name.

mod config_maps;
mod operator;
#[cfg(test)]
mod page;
mod place;
mod pods;
pub mod requested_by;
mod spec;
mod status;
mod tokens;

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
        ValidatingAdmissionPolicySpec, Validation, Variable,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use scriptrunner_api::GROUP;
use scriptrunner_core::names::{NORMAL_POD_PREFIX, PRIVILEGED_POD_PREFIX};

use crate::manifests::operator_user;

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
/// Policy: who may write a status.
pub const STATUS: &str = "scriptrunner-status";
/// Policy: who makes, marks and edits runner pods.
pub const PODS: &str = "scriptrunner-pods";
/// Policy: who enters runner pods of a privileged mode.
pub const EXEC: &str = "scriptrunner-exec";
/// Policy: what the binding of a runner pod to its node may write.
pub const POD_BINDING: &str = "scriptrunner-pod-binding";
/// Policy: who says how a runner's container ended.
pub const POD_OUTCOME: &str = "scriptrunner-pod-outcome";
/// Policy: who asks for tokens that runners are known by.
pub const TOKENS: &str = "scriptrunner-tokens";
/// Policy: who makes and edits the inputs of runs.
pub const CONFIG_MAPS: &str = "scriptrunner-configmaps";
/// Policy: what the operator's own account asks for.
pub const OPERATOR_REQUESTS: &str = "scriptrunner-operator";
/// Policy: who makes and edits pods in a namespace for privileged runs.
pub const PRIVILEGED_NAMESPACE: &str = "scriptrunner-privileged-namespace";
/// Policy: who makes a namespace one for privileged runs.
pub const NAMESPACE_LABEL: &str = "scriptrunner-namespace-label";

/// Names of all policies, each with a binding of the same name: what the operator may read of them.
pub const NAMES: &[&str] = &[
    SPEC,
    requested_by::REQUESTED_BY,
    STATUS,
    PODS,
    POD_BINDING,
    EXEC,
    POD_OUTCOME,
    TOKENS,
    CONFIG_MAPS,
    OPERATOR_REQUESTS,
    PRIVILEGED_NAMESPACE,
    NAMESPACE_LABEL,
];

/// Who takes owners from what they owned: the garbage collector, under its own account or that of all controllers.
const GARBAGE_COLLECTORS: &str =
    "['system:serviceaccount:kube-system:generic-garbage-collector', 'system:kube-controller-manager']";

/// Every policy, with every field as the API server would fill it, so that an installed one can be compared.
pub fn policies() -> Vec<ValidatingAdmissionPolicy> {
    vec![
        spec::policy(),
        requested_by::policy(),
        status::policy(),
        pods::marks(),
        pods::binding(),
        pods::entering(),
        pods::outcome(),
        tokens::policy(),
        config_maps::policy(),
        operator::policy(),
        place::privileged_namespace(),
        place::namespace_label(),
    ]
}

/// The binding of each policy, in their order. The refusal of a spec is also written to the audit log.
pub fn bindings() -> Vec<ValidatingAdmissionPolicyBinding> {
    vec![
        binding(SPEC, &["Deny", "Audit"]),
        binding(requested_by::REQUESTED_BY, &["Deny"]),
        binding(STATUS, &["Deny"]),
        binding(PODS, &["Deny"]),
        binding(POD_BINDING, &["Deny"]),
        binding(EXEC, &["Deny"]),
        binding(POD_OUTCOME, &["Deny"]),
        binding(TOKENS, &["Deny"]),
        binding(CONFIG_MAPS, &["Deny"]),
        binding(OPERATOR_REQUESTS, &["Deny"]),
        binding(PRIVILEGED_NAMESPACE, &["Deny"]),
        binding(NAMESPACE_LABEL, &["Deny"]),
    ]
}

fn binding(name: &str, actions: &[&str]) -> ValidatingAdmissionPolicyBinding {
    ValidatingAdmissionPolicyBinding {
        metadata: named(name),
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(name.to_owned()),
            validation_actions: Some(strings(actions)),
            ..Default::default()
        }),
    }
}

/// Whether the operator asks.
fn is_operator() -> String {
    format!("request.userInfo.username == '{}'", operator_user())
}

/// Whether the object `o` has a name, or an owner, that only our children have.
fn is_child(prefixes: &[&str]) -> String {
    let names: Vec<_> = prefixes
        .iter()
        .map(|prefix| format!("o.metadata.?name.orValue('').startsWith('{prefix}')"))
        .collect();
    format!(
        "{}\n|| o.metadata.?ownerReferences.orValue([]).exists(r, r.apiVersion.startsWith('{GROUP}/'))",
        names.join("\n|| ")
    )
}

/// Whether the name is that of a runner pod.
fn is_runner_pod(name: &str) -> String {
    format!("{name}.startsWith('{NORMAL_POD_PREFIX}') || {name}.startsWith('{PRIVILEGED_POD_PREFIX}')")
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

fn when(name: &str, expression: String) -> MatchCondition {
    MatchCondition { name: name.to_owned(), expression }
}

/// A validation with a fixed text, which begins with the policy's name.
fn demand(policy: &str, text: &str, expression: &str) -> Validation {
    Validation { message: Some(format!("{policy}: {text}")), ..forbidden(expression) }
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
        policies().into_iter().chain([requested_by::needed().0]).flat_map(of).collect()
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
    fn what_the_operator_reads_is_what_is_installed() {
        let names: Vec<_> = policies().into_iter().map(|it| it.metadata.name.unwrap()).collect();
        let bound: Vec<_> = bindings().into_iter().map(|it| it.metadata.name.unwrap()).collect();
        assert_eq!((names, bound), (strings(NAMES), strings(NAMES)));
    }

    #[test]
    fn every_policy_is_bound_and_fails_closed() {
        let bound: Vec<_> = bindings().into_iter().map(|binding| binding.spec.unwrap().policy_name).collect();
        for policy in policies() {
            assert!(bound.contains(&policy.metadata.name));
            assert!(policy.metadata.name.unwrap().starts_with("scriptrunner-"));
            assert_eq!(policy.spec.unwrap().failure_policy.as_deref(), Some("Fail"));
        }
    }
}
