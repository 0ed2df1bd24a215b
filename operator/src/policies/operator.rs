//! What the operator's own account may ask for, whatever rights it is given. Pure.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation,
};
use scriptrunner_api::{
    GROUP,
    labels::{MODE, PRIVILEGED, PRIVILEGED_ALLOWED, UID},
    session::AUDIENCE,
};
use scriptrunner_core::names::{CONFIG_MAP_PREFIX, NORMAL_POD_PREFIX, PRIVILEGED_POD_PREFIX};

use super::{OPERATOR_REQUESTS, demand, forbidden, is_operator, matching, rule, variable, when};
use crate::{leader::LEASE_NAME, manifests::NAMESPACE, proof::RECORD_NAME, sessions::SECRET_NAME};

/// What it asks for: `OPERATION group/resource/subresource`. Reviews of tokens are not among it, because no policy sees them.
const REQUESTS: [&str; 8] = [
    "CREATE pods",
    "DELETE pods",
    "CREATE configmaps",
    "DELETE configmaps",
    "UPDATE scriptrunner.io/scriptrunners/status",
    "DELETE scriptrunner.io/scriptrunners",
    "CREATE events.k8s.io/events",
    "UPDATE events.k8s.io/events",
];

/// Everything that is not on the list is refused, and so is a child of another shape than ours. That a policy is deleted no
/// policy can see: RBAC must not give it.
pub(super) fn policy() -> ValidatingAdmissionPolicy {
    let is_pod = "variables.what == 'CREATE pods'";
    super::policy(
        OPERATOR_REQUESTS,
        ValidatingAdmissionPolicySpec {
            match_constraints: Some(matching(None, &rule("*", "*", &["*"], &["*/*"]))),
            match_conditions: Some(vec![when("operator", is_operator())]),
            variables: Some(vec![
                variable(
                    "what",
                    "request.operation + ' '\n+ (request.resource.group == '' ? '' : request.resource.group + '/') + request.resource.resource\n+ (request.?subResource.orValue('') == '' ? '' : '/' + request.?subResource.orValue(''))"
                        .to_owned(),
                ),
                variable("isRecord", is_record()),
                variable(
                    "mode",
                    format!("{is_pod} ? object.metadata.?labels[?'{MODE}'].orValue('') : ''"),
                ),
                variable(
                    "isPrivileged",
                    "variables.mode in ['Privileged', 'PrivilegedWithHostFS']".to_owned(),
                ),
                variable(
                    "containers",
                    format!(
                        "{is_pod} ? object.spec.containers + object.spec.?initContainers.orValue([]) : []"
                    ),
                ),
                variable("volumes", format!("{is_pod} ? object.spec.?volumes.orValue([]) : []")),
            ]),
            validations: Some([requests(), children(), pods()].concat()),
            ..Default::default()
        },
    )
}

/// Whether it keeps what it knows of the policies: a ConfigMap that belongs to no run, of that one name.
fn is_record() -> String {
    format!(
        "variables.what in ['CREATE configmaps', 'UPDATE configmaps']\n&& object.metadata.?name.orValue('') == '{RECORD_NAME}' && !request.namespace.startsWith('kube-')"
    )
}

fn requests() -> Vec<Validation> {
    let list = REQUESTS.map(|request| format!("'{request}'")).join(", ");
    vec![
        Validation {
            message_expression: Some(format!(
                "'{OPERATOR_REQUESTS}: ' + variables.what + ' is not among the requests of the operator'"
            )),
            // RBAC narrows a namespace, and no creation by name.
            ..forbidden(&format!(
                "variables.what in [{list}]\n|| (variables.what == 'CREATE {GROUP}/scriptrunners' && request.?dryRun.orValue(false))\n|| (variables.what in ['CREATE coordination.k8s.io/leases', 'UPDATE coordination.k8s.io/leases']\n  && object.metadata.?name.orValue('') == '{LEASE_NAME}')\n|| (variables.what in ['CREATE secrets', 'UPDATE secrets']\n  && object.metadata.?name.orValue('') == '{SECRET_NAME}' && object.?type.orValue('') == 'Opaque')\n|| variables.isRecord"
            ))
        },
        demand(
            OPERATOR_REQUESTS,
            "it deletes no pod or ConfigMap but its children",
            &format!(
                "!(variables.what in ['DELETE pods', 'DELETE configmaps'])\n|| oldObject.metadata.?labels[?'{UID}'].hasValue()"
            ),
        ),
    ]
}

fn children() -> Vec<Validation> {
    vec![
        demand(
            OPERATOR_REQUESTS,
            "a child has one owner, the ScriptRunner that its label names, and no child is in the operator's or a system namespace",
            &format!(
                "!(variables.what in ['CREATE pods', 'CREATE configmaps']) || variables.isRecord\n|| (object.metadata.?ownerReferences.orValue([]).size() == 1\n  && object.metadata.ownerReferences[0].apiVersion.startsWith('{GROUP}/')\n  && object.metadata.ownerReferences[0].kind == 'ScriptRunner'\n  && object.metadata.ownerReferences[0].?controller.orValue(false)\n  && object.metadata.?labels[?'{UID}'].orValue('') == object.metadata.ownerReferences[0].uid\n  && request.namespace != '{NAMESPACE}' && !request.namespace.startsWith('kube-'))"
            ),
        ),
        demand(
            OPERATOR_REQUESTS,
            &format!("the ConfigMap of a run is named {CONFIG_MAP_PREFIX}* and immutable"),
            &format!(
                "variables.what != 'CREATE configmaps' || variables.isRecord\n|| (object.metadata.name.startsWith('{CONFIG_MAP_PREFIX}') && object.?immutable.orValue(false))"
            ),
        ),
    ]
}

/// Label, name and shape of a pod agree with one mode.
fn pods() -> Vec<Validation> {
    let any_mode = format!(
        "variables.what != 'CREATE pods'\n|| (object.spec.?automountServiceAccountToken.orValue(true) == false\n  && object.spec.?serviceAccountName.orValue('default') == 'default'\n  && !has(object.spec.ephemeralContainers)\n  && variables.containers.all(c, c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0))\n  && variables.volumes.all(v, has(v.emptyDir) || has(v.configMap) || has(v.secret) || has(v.downwardAPI)\n    || has(v.persistentVolumeClaim) || has(v.ephemeral)\n    || (has(v.hostPath) && v.hostPath.path == '/' && variables.mode == 'PrivilegedWithHostFS')\n    || (has(v.projected) && v.projected.?sources.orValue([]).all(s,\n      !has(s.serviceAccountToken) || s.serviceAccountToken.?audience.orValue('') == '{AUDIENCE}'))))"
    );
    let normal = "variables.what != 'CREATE pods' || variables.isPrivileged\n|| (!object.spec.?hostPID.orValue(false) && !object.spec.?hostIPC.orValue(false) && !object.spec.?hostNetwork.orValue(false)\n  && !object.spec.?securityContext.?windowsOptions.?hostProcess.orValue(false)\n  && object.spec.?securityContext.?sysctls.orValue([]).size() == 0\n  && object.spec.?securityContext.?seccompProfile.?type.orValue('') == 'RuntimeDefault'\n  && object.spec.?securityContext.?appArmorProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault'\n  && variables.containers.all(c, !c.?securityContext.?privileged.orValue(false)\n    && !c.?securityContext.?windowsOptions.?hostProcess.orValue(false)\n    && c.?securityContext.?capabilities.?add.orValue([]).size() == 0\n    && c.?securityContext.?procMount.orValue('Default') == 'Default'\n    && c.?securityContext.?seccompProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault'\n    && c.?securityContext.?appArmorProfile.?type.orValue('RuntimeDefault') == 'RuntimeDefault'))";
    vec![
        demand(
            OPERATOR_REQUESTS,
            &format!(
                "label and name of a pod name one mode ({NORMAL_POD_PREFIX}*, {PRIVILEGED_POD_PREFIX}*), and a privileged one is in a namespace labelled {PRIVILEGED}={PRIVILEGED_ALLOWED}"
            ),
            &format!(
                "variables.what != 'CREATE pods'\n|| (variables.mode == 'Normal' && object.metadata.name.startsWith('{NORMAL_POD_PREFIX}'))\n|| (variables.isPrivileged && object.metadata.name.startsWith('{PRIVILEGED_POD_PREFIX}')\n  && namespaceObject.metadata.?labels[?'{PRIVILEGED}'].orValue('') == '{PRIVILEGED_ALLOWED}')"
            ),
        ),
        demand(
            OPERATOR_REQUESTS,
            &format!(
                "a pod has the account default, no port of the node, no token but for audience {AUDIENCE}, and no other kind of volume"
            ),
            &any_mode,
        ),
        demand(OPERATOR_REQUESTS, "a pod in mode Normal has no privilege on the node", normal),
    ]
}
