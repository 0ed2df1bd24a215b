//! Who may make, mark, edit and enter runner pods, and say how they ended. Pure.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation,
};
use scriptrunner_api::{GROUP, session::AUDIENCE};
use scriptrunner_core::names::{NORMAL_POD_PREFIX, PRIVILEGED_POD_PREFIX};

use super::{
    ACCESS_GROUP, EXEC, EXECUTION_MODES, GARBAGE_COLLECTORS, POD_BINDING, POD_OUTCOME, PODS, USE, demand,
    is_child, is_operator, is_runner_pod, matching, may_use, policy, rule, variable, when,
};

/// Nobody but the operator makes a pod that looks like ours, and nobody edits one, or takes its marks.
pub(super) fn marks() -> ValidatingAdmissionPolicy {
    // Labels, annotations and finalizers can also be written through the status.
    let resources = ["pods", "pods/status", "pods/ephemeralcontainers", "pods/resize"];
    let child = is_child(&[NORMAL_POD_PREFIX, PRIVILEGED_POD_PREFIX]);
    let token = format!(
        "o.spec.?volumes.orValue([]).exists(v, has(v.projected) && v.projected.?sources.orValue([]).exists(s,\n  has(s.serviceAccountToken) && s.serviceAccountToken.?audience.orValue('') == '{AUDIENCE}'))"
    );
    let of = |object: &str, field: &str| format!("{object}.metadata.?{field}.orValue({{}})");
    let of_old = |field: &str| format!("oldObject == null ? {{}} : {}", of("oldObject", field));
    policy(
        PODS,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(None, &rule("", "v1", &["CREATE", "UPDATE"], &resources))),
            match_conditions: Some(vec![when(
                "ours",
                format!(
                    "!({}) && [object, oldObject].exists(o, o != null && (\n{child}\n|| o.metadata.?labels.orValue({{}}).exists(k, k.startsWith('{GROUP}/'))\n|| {token}))",
                    is_operator()
                ),
            )]),
            variables: Some(vec![
                variable("oldLabels", of_old("labels")),
                variable("newLabels", of("object", "labels")),
                variable("oldNotes", of_old("annotations")),
                variable("newNotes", of("object", "annotations")),
            ]),
            validations: Some(kept()),
            ..Default::default()
        },
    )
}

fn kept() -> Vec<Validation> {
    let made = format!(
        "names {NORMAL_POD_PREFIX}* and {PRIVILEGED_POD_PREFIX}*, labels {GROUP}/*, owner ScriptRunner and tokens for audience {AUDIENCE} are the operator's; make the pod without them"
    );
    let marks_stay = |old: &str, new: &str| {
        format!(
            "request.operation != 'UPDATE'\n|| (variables.{old}.all(k, !k.startsWith('{GROUP}/') || (k in variables.{new} && variables.{new}[k] == variables.{old}[k]))\n  && variables.{new}.all(k, !k.startsWith('{GROUP}/') || k in variables.{old}))"
        )
    };
    let owners = |object: &str| format!("{object}.metadata.?ownerReferences.orValue([])");
    let finalizers = |object: &str| format!("{object}.metadata.?finalizers.orValue([])");
    vec![
        demand(PODS, &made, "request.operation != 'CREATE'"),
        demand(
            PODS,
            "a runner pod is not edited; edit its ScriptRunner, or delete the pod",
            "request.operation != 'UPDATE'\n|| (request.?subResource.orValue('') in ['', 'status'] && object.spec == oldObject.spec)",
        ),
        demand(
            PODS,
            &format!("labels {GROUP}/* of a runner pod stay; delete the pod instead"),
            &marks_stay("oldLabels", "newLabels"),
        ),
        demand(
            PODS,
            &format!("annotations {GROUP}/* of a runner pod stay; delete the pod instead"),
            &marks_stay("oldNotes", "newNotes"),
        ),
        demand(
            PODS,
            "the owner of a runner pod stays; delete the pod instead",
            &format!(
                "request.operation != 'UPDATE' || {} == {}\n|| request.userInfo.username in {GARBAGE_COLLECTORS}",
                owners("object"),
                owners("oldObject")
            ),
        ),
        demand(
            PODS,
            "a runner pod gets no finalizer, which would keep it from ending",
            &format!(
                "request.operation != 'UPDATE'\n|| {}.all(f, f in {} || f in ['orphan', 'foregroundDeletion'])",
                finalizers("object"),
                finalizers("oldObject")
            ),
        ),
    ]
}

/// A binding writes its annotations, and from Kubernetes 1.35 on its labels, over those of the pod, which no policy of pods sees. The
/// scheduler's has none.
pub(super) fn binding() -> ValidatingAdmissionPolicy {
    policy(
        POD_BINDING,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(
                None,
                &rule("", "v1", &["CREATE"], &["bindings", "pods/binding"]),
            )),
            match_conditions: Some(vec![when(
                "ours",
                format!(
                    "[dyn(request.?name.orValue('')), object.metadata.?name.orValue('')].exists(n, {})",
                    is_runner_pod("n")
                ),
            )]),
            validations: Some(vec![demand(
                POD_BINDING,
                &format!("the binding of a runner pod has no label or annotation {GROUP}/*; leave them out"),
                &format!(
                    "[object.metadata.?labels.orValue({{}}), object.metadata.?annotations.orValue({{}})]\n.all(m, m.all(k, !k.startsWith('{GROUP}/')))"
                ),
            )]),
            ..Default::default()
        },
    )
}

/// Whoever enters a privileged runner is root on its node.
pub(super) fn entering() -> ValidatingAdmissionPolicy {
    let resources = ["pods/exec", "pods/attach", "pods/portforward", "pods/proxy"];
    policy(
        EXEC,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(None, &rule("", "v1", &["CONNECT"], &resources))),
            // Only the name is known here. A proxied one may stand behind a scheme, as in `https:NAME:443`.
            match_conditions: Some(vec![when(
                "privileged-runner",
                format!(
                    "request.name.startsWith('{PRIVILEGED_POD_PREFIX}') || request.name.contains(':{PRIVILEGED_POD_PREFIX}')"
                ),
            )]),
            validations: Some(vec![demand(
                EXEC,
                &format!(
                    "entering a privileged runner pod needs verb {USE} on {EXECUTION_MODES}.{ACCESS_GROUP}/<namespace>:privileged (cluster scope)"
                ),
                &may_use("request.namespace", "'privileged'"),
            )]),
            ..Default::default()
        },
    )
}

/// Controllers that say that a pod has failed whose node is gone.
const COLLECTORS: [&str; 2] =
    ["system:serviceaccount:kube-system:pod-garbage-collector", "system:kube-controller-manager"];

/// How a runner ended is a result: only the kubelet of the pod's node says it, and of a pod without a node the garbage collector
/// that it has failed. Not for clusters whose nodes are played.
pub(super) fn outcome() -> ValidatingAdmissionPolicy {
    // One of an init container's is a result too: without the runner beside its image a script cannot start.
    let differs = |fields: &[&str], none: &str| {
        let of = |object: &str, field: &str| format!("{object}.?status.?{field}.orValue({none})");
        let differs = |field: &&str| format!("{} != {}", of("object", field), of("oldObject", field));
        fields.iter().map(differs).collect::<Vec<_>>().join("\n|| ")
    };
    let containers = differs(&["containerStatuses", "initContainerStatuses"], "[]");
    let words = differs(&["phase", "reason", "message"], "''");
    let collectors = COLLECTORS.map(|user| format!("'{user}'")).join(", ");
    policy(
        POD_OUTCOME,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(None, &rule("", "v1", &["UPDATE"], &["pods/status"]))),
            match_conditions: Some(vec![
                when("ours", is_runner_pod("oldObject.metadata.name")),
                when("outcome", format!("{containers}\n|| {words}")),
            ]),
            validations: Some(vec![demand(
                POD_OUTCOME,
                "only the kubelet of its node says how a runner pod and its containers are",
                &format!(
                    "request.userInfo.username == 'system:node:' + object.spec.?nodeName.orValue('')\n|| request.userInfo.username in [{collectors}] && !({containers})"
                ),
            )]),
            ..Default::default()
        },
    )
}
