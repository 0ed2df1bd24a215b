//! The roles to hand out to people. Pure.
//!
//! **Invariant:** none is aggregated into a role that people have already, and none names Secrets, logs or what enters pods.

use scriptrunner_api::GROUP;

use crate::{
    policies::{ACCESS_GROUP, CONTROL_PLANE, EXECUTION_MODES, NODE_CLASSES, USE},
    rbac::Rule,
};

/// A ClusterRole that nobody has until somebody binds it.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Its name.
    pub name: &'static str,
    /// For whom it is and how it is bound. Stands as a comment in the manifest.
    pub why: &'static str,
    /// What it gives.
    pub rules: &'static [Rule],
}

/// Sees ScriptRunners, and so what scripts print.
pub const VIEW: &str = "scriptrunner-view";
/// Writes ScriptRunners in mode Normal.
pub const AUTHOR: &str = "scriptrunner-author";
/// Writes them in mode Privileged too.
pub const USE_PRIVILEGED: &str = "scriptrunner-use-privileged";
/// Writes them in every mode.
pub const USE_PRIVILEGED_WITH_HOST_FS: &str = "scriptrunner-use-privilegedwithhostfs";
/// Reaches nodes of the control plane.
pub const USE_CONTROL_PLANE: &str = "scriptrunner-use-control-plane";

const SEE: Rule = Rule {
    group: GROUP,
    resource: "scriptrunners",
    names: &[],
    verbs: &["get", "list", "watch"],
    why: "What runs where, and what scripts printed.",
};

const WRITE: Rule = Rule {
    group: GROUP,
    resource: "scriptrunners",
    names: &[],
    verbs: &["get", "list", "watch", "create", "update", "patch", "delete"],
    why: "Scripts on all nodes that have room for pods, in mode Normal; the status is the operator's.",
};

const fn mode(names: &'static [&'static str], why: &'static str) -> Rule {
    Rule { group: ACCESS_GROUP, resource: EXECUTION_MODES, names, verbs: &[USE], why }
}

/// Every role to hand out.
pub const ROLES: &[Role] = &[
    Role { name: VIEW, why: "Sees ScriptRunners. By a RoleBinding or a ClusterRoleBinding.", rules: &[SEE] },
    Role {
        name: AUTHOR,
        why: "Runs scripts in mode Normal. By a RoleBinding for a namespace, or a ClusterRoleBinding for all.",
        rules: &[WRITE],
    },
    Role {
        name: USE_PRIVILEGED,
        why: "Runs scripts that are root on the node, with all that this reaches. Only a ClusterRoleBinding gives the mode; a RoleBinding gives no more than scriptrunner-author does.",
        rules: &[WRITE, mode(&["privileged"], "Mode Privileged in every namespace that admits it.")],
    },
    Role {
        name: USE_PRIVILEGED_WITH_HOST_FS,
        why: "The same, with the node's file system too. Only a ClusterRoleBinding gives the modes.",
        rules: &[
            WRITE,
            mode(
                &["privileged", "privilegedwithhostfs"],
                "Both privileged modes in every namespace that admits them.",
            ),
        ],
    },
    Role {
        name: USE_CONTROL_PLANE,
        why: "Added to one of the others: reaches nodes of the control plane. Only a ClusterRoleBinding gives it.",
        rules: &[Rule {
            group: ACCESS_GROUP,
            resource: NODE_CLASSES,
            names: &[CONTROL_PLANE],
            verbs: &[USE],
            why: "Tolerations of the control plane's taint.",
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac;

    #[test]
    fn none_of_our_roles_reads_secrets_or_enters_pods() {
        let handed_out = ROLES.iter().flat_map(|role| role.rules);
        for rule in handed_out.clone().chain(rbac::CLUSTER) {
            assert_ne!(rule.resource, "secrets", "{rule:?}");
        }
        for rule in handed_out.chain(rbac::CLUSTER).chain(rbac::OWN_NAMESPACE) {
            for entry in ["pods/log", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy"] {
                assert_ne!(rule.resource, entry, "{rule:?}");
            }
            let words = [rule.group, rule.resource].into_iter().chain(rule.verbs.iter().copied());
            assert!(words.into_iter().all(|word| !word.contains('*')), "{rule:?}");
        }
    }

    #[test]
    fn a_right_to_a_mode_always_names_it() {
        for rule in ROLES.iter().flat_map(|role| role.rules).filter(|rule| rule.group == ACCESS_GROUP) {
            assert!(!rule.names.is_empty() && rule.verbs == [USE], "{rule:?}");
        }
    }

    #[test]
    fn the_status_is_in_no_role() {
        assert!(ROLES.iter().flat_map(|role| role.rules).all(|rule| !rule.resource.contains('/')));
    }
}
