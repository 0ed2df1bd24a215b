//! The pods that are made of specs, against the policies under which the operator makes them: each shape is admitted, and no
//! change of a container that is not the script's passes either.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use scriptrunner_api::{
    labels::{INIT_CONTAINER, PRIVILEGED, PRIVILEGED_ALLOWED},
    v1alpha1::ScriptRunnerSpec,
};
use scriptrunner_core::{
    observed::ObjectFacts,
    pod::{PodSettings, RunnerTimes, SessionSettings, Target, build_pod},
    validate::{AllowedImages, Sources, validate},
};
use scriptrunner_testcluster::{Error, bindings, namespace::in_namespace};
use serde_json::{Value, json};

use crate::{
    children::{self, Owner},
    cluster::{acting_as_operator, admin},
    people::{
        Answer::{No, Yes},
        ask, dry_create,
    },
};

/// Together everything that a spec can put into a pod, but for classes of pods and runtimes, which this cluster does not have.
const SPECS: [(&str, bool); 6] = [
    ("{script: x, nodeNames: [a]}", false),
    ("{script: x, nodeNames: [a], runAs: Root, tolerations: [{operator: Exists}]}", true),
    (
        "{script: x, nodeNames: [a], image: 'python:3.13', imagePullSecrets: [{name: registry}], resources: {limits: {memory: 1024Mi}}, envFrom: [{configMapRef: {name: settings}}, {prefix: P_, secretRef: {name: keys, optional: true}}], env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}",
        false,
    ),
    (
        "{script: x, nodeNames: [a], image: 'python:3.13', runAs: Root, podTemplate: {labels: {team: a}, annotations: {example.com/note: b}, volumes: [{name: settings, configMap: {name: c}}, {name: keys, secret: {secretName: s}}, {name: scratch, emptyDir: {medium: Memory}}, {name: shared, persistentVolumeClaim: {claimName: p}}, {name: big, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}], volumeMounts: [{name: settings, mountPath: /settings}, {name: big, mountPath: /big}]}}",
        false,
    ),
    (
        "{script: x, nodeNames: [a], mode: Privileged, parallelism: 1, executionDeadlineSeconds: 9, hostPID: true, hostNetwork: true, hostIPC: true, image: 'a/b@sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881', podTemplate: {volumes: [{name: keys, secret: {secretName: s}}]}}",
        true,
    ),
    (
        "{script: x, nodeNames: [a], mode: PrivilegedWithHostFS, repeat: {periodSeconds: 5}, hostFileSystem: {accessMode: ReadOnly}}",
        false,
    ),
];

fn settings() -> PodSettings {
    PodSettings {
        runner_image: "none.invalid/runner:1".to_owned(),
        allowed_images: AllowedImages::default(),
        default_memory: Some("256Mi".to_owned()),
        default_ephemeral_storage: Some("1Gi".to_owned()),
        times: RunnerTimes::DEFAULT,
        session: Some(SessionSettings {
            address: "192.0.2.1:8443".to_owned(),
            name: "scriptrunner-operator.scriptrunner-system.svc".to_owned(),
            authorities: vec!["b2xk".to_owned()],
        }),
    }
}

/// The pod of a spec, for a node that does not exist.
fn built(spec: &str, by_scheduler: bool, namespace: &str, owner: &Owner) -> Value {
    let spec: ScriptRunnerSpec = serde_saphyr::from_str(spec).unwrap();
    let valid = validate(&spec, &Sources::default()).unwrap();
    let object = ObjectFacts {
        namespace: namespace.to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        resource_version: "1".to_owned(),
        generation: 1,
        created: None,
        seen_since: None,
        requested_by: None,
        deleting: false,
        other_bytes: 0,
        spec,
    };
    let target = Target {
        node: "nobody".to_owned(),
        node_uid: "nobody".to_owned(),
        run: 1,
        attempt: 1,
        first_serial: 1,
        last_start_seconds: None,
        remaining: valid.pinned.executions(),
        failures_before: 0,
        by_scheduler,
        shape: None,
    };
    serde_json::to_value(build_pod(&object, &valid, &target, &settings())).unwrap()
}

#[tokio::test]
async fn every_shape_of_pod_is_admitted_and_none_with_a_privilege_more() {
    let _whole = bindings::whole().await;
    let client = admin().await;
    let labels = [(PRIVILEGED, PRIVILEGED_ALLOWED), ("pod-security.kubernetes.io/enforce", "privileged")];
    in_namespace(&client, "built", &labels, async |namespace| {
        let owner = children::owner(&client, &namespace, "owner").await;
        let pods = Api::namespaced(acting_as_operator().await, &namespace);
        let create = async |pod: &Value| {
            let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
            pods.create(&dry_create(), &pod).await.map(drop)
        };
        let mut with_init = 0;
        for (spec, by_scheduler) in SPECS {
            let pod = built(spec, by_scheduler, &namespace, &owner);
            ask(&format!("the operator makes the pod of {spec}"), Yes, async || create(&pod).await).await;
            let is_normal = pod["metadata"]["labels"]["scriptrunner.io/mode"] == "Normal";
            let Some(init) = pod["spec"]["initContainers"].as_array().filter(|_| is_normal) else { continue };
            assert_eq!((init.len(), &init[0]["name"]), (1, &json!(INIT_CONTAINER)));
            with_init += 1;
            for (field, value) in [
                ("privileged", json!(true)),
                ("capabilities", json!({"add": ["SYS_ADMIN"]})),
                ("procMount", json!("Unmasked")),
                ("seccompProfile", json!({"type": "Unconfined"})),
            ] {
                let mut changed = pod.clone();
                changed["spec"]["initContainers"][0]["securityContext"] = json!({field: value});
                // Without it the API server itself refuses the mount.
                changed["spec"]["hostUsers"] = json!(field != "procMount");
                let refused =
                    No("denied request: scriptrunner-operator: a pod in mode Normal has no privilege on the node");
                ask(&format!("the same with {field} of its init container"), refused, async || create(&changed).await)
                    .await;
            }
            let mut changed = pod;
            changed["spec"]["initContainers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
            let refused = No("denied request: scriptrunner-operator: a pod has the account default, no port of the node");
            ask("the same with a port of the node", refused, async || create(&changed).await).await;
        }
        assert_eq!(with_init, 2);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}
