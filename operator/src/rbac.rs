//! The single list of what the operator may ask of the API server, with the reason of each. Pure.
//!
//! `deploy/` is generated from it, and the integration tests run with nothing else: a missing rule fails there.
//!
//! **Invariant:** no Secrets outside its own namespace, no exec, no logs, no impersonation, no wildcard, and never an edit of
//! a pod, a namespace, a spec or an admission policy.

use k8s_openapi::api::rbac::v1::PolicyRule;
use scriptrunner_api::GROUP;

use crate::{
    leader::LEASE_NAME,
    policies,
    proof::RECORD_NAME,
    sessions::{SECRET_NAME, SERVICE_NAME},
};

/// Name of the custom resource definition that the operator reads.
pub const CRD_NAME: &str = "scriptrunners.scriptrunner.io";

/// One thing that the operator may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, or resource and subresource.
    pub resource: &'static str,
    /// The only names it is for; empty for every name.
    pub names: &'static [&'static str],
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// What it is needed for. Stands as a comment in the manifest.
    pub why: &'static str,
}

impl Rule {
    /// The rule as RBAC has it.
    pub fn policy_rule(&self) -> PolicyRule {
        let Self { group, resource, names, verbs, why: _ } = self;
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(vec![(*group).to_owned()]),
            resources: Some(vec![(*resource).to_owned()]),
            resource_names: (!names.is_empty()).then(|| strings(names)),
            verbs: strings(verbs),
            non_resource_urls: None,
        }
    }
}

/// What it may do in the whole cluster.
pub const CLUSTER: &[Rule] = &[
    Rule {
        group: GROUP,
        resource: "scriptrunners",
        names: &[],
        verbs: &["get", "list", "watch", "delete"],
        why: "What users ask for. The spec is theirs, never written; delete: what has ended goes after ttlSecondsAfterFinished.",
    },
    Rule {
        group: GROUP,
        resource: "scriptrunners/status",
        names: &[],
        verbs: &["patch"],
        why: "The answers of the nodes. Patches only, each with a test on UID and resourceVersion.",
    },
    Rule {
        group: "",
        resource: "pods",
        names: &[],
        verbs: &["get", "list", "watch", "create", "delete"],
        why: "The runners. Get: before a pod that the watch called deleted is replaced, and before one with its name is adopted. Never an update.",
    },
    Rule {
        group: "",
        resource: "configmaps",
        names: &[],
        verbs: &["get", "list", "watch", "create", "delete"],
        why: "The immutable inputs of each run. Get: before one with its name is adopted, and to read back what a run that goes on is pinned to. List and watch: of ours by our label, metadata only; and those of users that have the label scriptrunner.io/source=true, for scriptFrom and trustedCA.",
    },
    Rule {
        group: "",
        resource: "nodes",
        names: &[],
        verbs: &["list", "watch"],
        why: "Where scripts run: labels, taints and readiness of each node.",
    },
    Rule {
        group: "",
        resource: "namespaces",
        names: &[],
        verbs: &["list", "watch"],
        why: "Which namespaces admit privileged runs. Metadata only.",
    },
    Rule {
        group: "events.k8s.io",
        resource: "events",
        names: &[],
        verbs: &["create", "patch"],
        why: "What happened, for kubectl describe. Patch: a repeated event is counted, not written again.",
    },
    Rule {
        group: "authentication.k8s.io",
        resource: "tokenreviews",
        names: &[],
        verbs: &["create"],
        why: "Which pod a runner's token is bound to: nothing that a runner says of itself is believed.",
    },
    Rule {
        group: "apiextensions.k8s.io",
        resource: "customresourcedefinitions",
        names: &[CRD_NAME],
        verbs: &["get"],
        why: "The number of the installed schema: an older one would drop results without a word.",
    },
    Rule {
        group: "admissionregistration.k8s.io",
        resource: "validatingadmissionpolicies",
        names: policies::NAMES,
        verbs: &["get"],
        why: "Whether its own policies are there and unchanged: without them nothing privileged is started.",
    },
    Rule {
        group: "admissionregistration.k8s.io",
        resource: "validatingadmissionpolicybindings",
        names: policies::NAMES,
        verbs: &["get"],
        why: "The same of their bindings: a narrowed one would fail silently.",
    },
];

/// Resources on the list of [`CLUSTER`] that are in no namespace.
const OF_NO_NAMESPACE: [&str; 6] = [
    "nodes",
    "namespaces",
    "tokenreviews",
    "customresourcedefinitions",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
];

/// What an operator that is for some namespaces may do in each of them.
pub fn in_each_namespace() -> Vec<Rule> {
    CLUSTER.iter().filter(|rule| !OF_NO_NAMESPACE.contains(&rule.resource)).copied().collect()
}

/// What it may do beside that: the rest of [`CLUSTER`], which is in no namespace.
pub fn in_no_namespace() -> Vec<Rule> {
    CLUSTER.iter().filter(|rule| OF_NO_NAMESPACE.contains(&rule.resource)).copied().collect()
}

/// What it may do in its own namespace, where it has no right to ConfigMaps everywhere.
pub fn in_own_namespace() -> Vec<Rule> {
    let record = Rule {
        group: "",
        resource: "configmaps",
        names: &[],
        verbs: &["create"],
        why: "To keep since when the policies are known to hold, at the first start. It gives nothing to read.",
    };
    OWN_NAMESPACE.iter().copied().chain([record]).collect()
}

/// What it may do in its own namespace only.
pub const OWN_NAMESPACE: &[Rule] = &[
    Rule {
        group: "coordination.k8s.io",
        resource: "leases",
        names: &[LEASE_NAME],
        verbs: &["get", "update"],
        why: "One operator at a time writes. This lease and no other.",
    },
    Rule {
        group: "coordination.k8s.io",
        resource: "leases",
        names: &[],
        verbs: &["create"],
        why: "To make that lease at the first start. RBAC cannot narrow a create by name, so the namespace narrows it.",
    },
    Rule {
        group: "",
        resource: "secrets",
        names: &[SECRET_NAME],
        verbs: &["get", "update"],
        why: "The certificate that runners know the operator by, and its authority. This Secret and no other.",
    },
    Rule {
        group: "",
        resource: "secrets",
        names: &[],
        verbs: &["create"],
        why: "To make that Secret at the first start. RBAC cannot narrow a create by name; it gives nothing to read.",
    },
    Rule {
        group: "",
        resource: "services",
        names: &[SERVICE_NAME],
        verbs: &["get"],
        why: "The address at which runners find the operator.",
    },
    Rule {
        group: GROUP,
        resource: "scriptrunners",
        names: &[],
        verbs: &["create"],
        why: "Only ever as a dry run, to see that the policy refuses it: nothing else proves that it is enforced. It refuses every one here.",
    },
    Rule {
        group: "",
        resource: "configmaps",
        names: &[RECORD_NAME],
        verbs: &["get", "update"],
        why: "Since when the policies are known to hold, over restarts. It is made with the right to the inputs of runs.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = &'static Rule> {
        CLUSTER.iter().chain(OWN_NAMESPACE)
    }

    #[test]
    fn nothing_is_asked_for_by_wildcard_or_without_a_reason() {
        for rule in all() {
            let words = [rule.group, rule.resource].into_iter().chain(rule.verbs.iter().copied());
            assert!(words.into_iter().all(|word| !word.contains('*')), "{rule:?}");
            assert!(rule.why.ends_with('.') && !rule.why.contains('\n'), "{rule:?}");
            assert!(!rule.verbs.is_empty(), "{rule:?}");
        }
    }

    #[test]
    fn rights_in_namespaces_and_in_none_are_all_rights() {
        let (within, outside) = (in_each_namespace(), in_no_namespace());
        assert_eq!(within.len() + outside.len(), CLUSTER.len());
        assert!(
            outside
                .iter()
                .all(|rule| rule.verbs.iter().all(|verb| ["get", "list", "watch", "create"].contains(verb)))
        );
        let creates: Vec<_> = outside.iter().filter(|rule| rule.verbs.contains(&"create")).collect();
        assert_eq!(
            creates.iter().map(|rule| rule.resource).collect::<Vec<_>>(),
            ["tokenreviews"],
            "and that stores nothing"
        );
    }

    #[test]
    fn what_would_make_the_operator_a_way_to_more_rights_is_absent() {
        for rule in all() {
            assert!(!["serviceaccounts/token", "pods/exec", "pods/log"].contains(&rule.resource));
            assert_ne!(rule.group, "rbac.authorization.k8s.io");
            let reads_by_name = rule.verbs == ["get"] && !rule.names.is_empty();
            assert!(rule.group != "admissionregistration.k8s.io" || reads_by_name, "{rule:?}");
            for verb in ["impersonate", "escalate", "bind", "use", "deletecollection"] {
                assert!(!rule.verbs.contains(&verb), "{rule:?}");
            }
            assert!(
                rule.resource != "pods" || !rule.verbs.contains(&"patch") && !rule.verbs.contains(&"update")
            );
        }
    }

    #[test]
    fn secrets_are_read_in_the_operators_namespace_and_by_name_only() {
        assert!(CLUSTER.iter().all(|rule| rule.resource != "secrets"));
        for rule in OWN_NAMESPACE.iter().filter(|rule| rule.resource == "secrets") {
            assert!(rule.names == [SECRET_NAME] || rule.verbs == ["create"], "{rule:?}");
            assert!(rule.verbs.iter().all(|verb| ["get", "update", "create"].contains(verb)), "{rule:?}");
        }
    }

    #[test]
    fn the_definition_that_is_read_is_the_one_that_is_installed() {
        let names: Vec<_> =
            scriptrunner_api::all_crds().into_iter().map(|crd| crd.metadata.name.unwrap()).collect();
        assert_eq!(names, [CRD_NAME]);
    }

    #[test]
    fn each_resource_stands_once_for_the_same_names() {
        for list in [CLUSTER, OWN_NAMESPACE] {
            let mut keys: Vec<_> = list.iter().map(|rule| (rule.group, rule.resource, rule.names)).collect();
            let count = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), count);
        }
    }
}
