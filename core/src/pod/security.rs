//! Who the script is and what it may, by mode. Pure.

use k8s_openapi::api::core::v1::{Capabilities, PodSecurityContext, SeccompProfile, SecurityContext};
use scriptrunner_api::v1alpha1::{Mode, RunAs};

use crate::validate::ValidRun;

/// The numeric user of mode Normal: the usual number of `nonroot` in minimal images.
const NON_ROOT_USER: i64 = 65532;

pub(super) fn pod_security(valid: &ValidRun) -> PodSecurityContext {
    let seccomp_profile =
        Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None });
    match (valid.pinned.mode, valid.pinned.run_as) {
        (Mode::Normal, RunAs::NonRoot) => PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(NON_ROOT_USER),
            run_as_group: Some(NON_ROOT_USER),
            fs_group: Some(NON_ROOT_USER),
            seccomp_profile,
            ..PodSecurityContext::default()
        },
        (Mode::Normal, RunAs::Root) => {
            PodSecurityContext { run_as_user: Some(0), seccomp_profile, ..PodSecurityContext::default() }
        }
        (Mode::Privileged | Mode::PrivilegedWithHostFS, _) => {
            PodSecurityContext { run_as_user: Some(0), ..PodSecurityContext::default() }
        }
    }
}

pub(super) fn container_security(valid: &ValidRun) -> SecurityContext {
    match (valid.pinned.mode, valid.pinned.run_as) {
        (Mode::Normal, RunAs::NonRoot) => SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        },
        (Mode::Normal, RunAs::Root) => {
            SecurityContext { allow_privilege_escalation: Some(false), ..SecurityContext::default() }
        }
        (Mode::Privileged | Mode::PrivilegedWithHostFS, _) => {
            SecurityContext { privileged: Some(true), ..SecurityContext::default() }
        }
    }
}
