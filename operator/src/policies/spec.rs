//! Who may write which spec. Pure.

use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation,
};
use scriptrunner_api::{GROUP, VERSION};

use super::{
    ACCESS_GROUP, CONTROL_PLANE, CONTROL_PLANE_TAINT, EXECUTION_MODES, NODE_CLASSES, SPEC, USE, forbidden,
    matching, may_use, rule, variable,
};
use crate::manifests::{NAMESPACE, operator_user};

/// Judges every creation and every change of a spec.
pub(super) fn policy() -> ValidatingAdmissionPolicy {
    let operator = operator_user();
    let may_new = may_use("request.namespace", "variables.mode.lowerAscii()");
    let may_old = may_use("request.namespace", "variables.oldMode.lowerAscii()");
    super::policy(
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
                variable("usesTemplate", uses_template()),
                variable(
                    "mayCreatePods",
                    "authorizer.group('').resource('pods').namespace(request.namespace).check('create').allowed()"
                        .to_owned(),
                ),
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
            ..forbidden("!variables.changed || !variables.borrows || variables.mayCreatePods")
        },
        Validation {
            message: Some(format!(
                "{SPEC}: labels, annotations, priorityClassName and runtimeClassName of podTemplate may be set only by who may create pods in this namespace"
            )),
            ..forbidden("!variables.changed || !variables.usesTemplate || variables.mayCreatePods")
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

/// Whether the spec says how others treat its pods, which otherwise only who makes pods there says: by a label a pod joins a
/// Service or leaves a NetworkPolicy, by its priority it evicts pods of other tenants, also where it names its node and no
/// scheduler is asked. Untyped as above.
fn uses_template() -> String {
    let template = "dyn(object.spec).?podTemplate";
    let [labels, annotations] =
        ["labels", "annotations"].map(|field| format!("{template}.?{field}.orValue({{}}).size() > 0"));
    let [priority, runtime] =
        ["priorityClassName", "runtimeClassName"].map(|field| format!("{template}.?{field}.hasValue()"));
    [labels, annotations, priority, runtime].join("\n|| ")
}
