//! One snapshot per shape of pod: a changed line here is a changed pod on every node of every user.

use k8s_openapi::api::core::v1::VolumeProjection;
use serde_json::json;

use super::*;
use crate::{
    adopt::pod_difference,
    validate::{AllowedImages, Sources, validate},
};

fn object(spec: &str) -> ObjectFacts {
    ObjectFacts {
        resource_version: "1".into(),
        namespace: "ns".into(),
        name: "a.long.name".into(),
        uid: "0c2c6f3e-0000-4000-8000-000000000001".into(),
        generation: 1,
        created: None,
        seen_since: None,
        requested_by: None,
        deleting: false,
        other_bytes: 0,
        spec: serde_saphyr::from_str(spec).unwrap(),
    }
}

fn pod(spec: &str, by_scheduler: bool) -> Pod {
    pod_with(spec, by_scheduler, None)
}

/// The pod of an operator that has a door for runners.
fn pod_with_session(spec: &str) -> Pod {
    let session = SessionSettings {
        address: "10.96.0.7:8443".into(),
        name: "scriptrunner-operator.scriptrunner.svc".into(),
        authorities: vec!["b2xk".into(), "bmV3".into()],
    };
    pod_with(spec, false, Some(session))
}

fn pod_with(spec: &str, by_scheduler: bool, session: Option<SessionSettings>) -> Pod {
    let object = object(spec);
    let valid = validate(&object.spec, &Sources::default()).unwrap();
    let target = Target {
        node: "n1".into(),
        node_uid: "node-uid".into(),
        run: 3,
        attempt: 2,
        first_serial: 5,
        last_start_seconds: Some(1_800_000_000),
        remaining: valid.pinned.executions(),
        failures_before: 4,
        by_scheduler,
        shape: None,
    };
    let settings = PodSettings {
        runner_image: "runner:1".into(),
        allowed_images: AllowedImages::default(),
        default_memory: Some("256Mi".into()),
        default_ephemeral_storage: Some("1Gi".into()),
        times: RunnerTimes::DEFAULT,
        session,
    };
    let target = Target { shape: shape(&object, &valid, &settings), ..target };
    build_pod(&object, &valid, &target, &settings)
}

#[test]
fn normal_pod() {
    insta::assert_yaml_snapshot!(pod(
        "{script: x, nodeLabelSelector: {}, env: [{name: A, value: b}, {name: C, valueFrom: {secretKeyRef: {name: s, key: k}}}]}",
        false
    ));
}

#[test]
fn normal_pod_as_root_through_the_scheduler() {
    insta::assert_yaml_snapshot!(pod(
        "{script: x, nodeLabelSelector: {}, runAs: Root, executionDeadlineSeconds: 30}",
        true
    ));
}

#[test]
fn privileged_pod_with_the_host_read_only() {
    insta::assert_yaml_snapshot!(pod(
        "{script: x, nodeLabelSelector: {}, mode: PrivilegedWithHostFS, hostFileSystem: {accessMode: ReadOnly}, repeat: {periodSeconds: 5}, terminationGracePeriodSeconds: 0}",
        false
    ));
}

#[test]
fn normal_pod_with_a_session() {
    insta::assert_yaml_snapshot!(pod_with_session("{script: x, nodeLabelSelector: {}}"));
}

#[test]
fn privileged_pod_with_a_session() {
    insta::assert_yaml_snapshot!(pod_with_session(
        "{script: x, nodeLabelSelector: {}, mode: Privileged, parallelism: 1, executionDeadlineSeconds: 9}"
    ));
}

#[test]
fn privileged_pod_with_the_host_and_a_session() {
    insta::assert_yaml_snapshot!(pod_with_session(
        "{script: x, nodeLabelSelector: {}, mode: PrivilegedWithHostFS, repeat: {periodSeconds: 5}}"
    ));
}

/// The specs whose pods the API server has seen, and what it returned.
const WITH_IMAGE: &str = "{script: x, nodeLabelSelector: {}, image: 'python:3.13', imagePullPolicy: Always, imagePullSecrets: [{name: registry}], resources: {requests: {cpu: 50m}, limits: {cpu: '0.5', memory: 1024Mi}}, envFrom: [{configMapRef: {name: settings}}, {prefix: P_, secretRef: {name: keys, optional: true}}], env: [{name: EMPTY, value: ''}], dependencies: {installTimeoutSeconds: 60}, output: {truncation: Head, keep: DigestOnly}}";
const WITH_HOST_NAMESPACES: &str = "{script: x, nodeLabelSelector: {}, mode: Privileged, parallelism: 1, executionDeadlineSeconds: 9, hostPID: true, hostNetwork: true, hostIPC: true}";
const WITH_TEMPLATE: &str = "{script: x, nodeLabelSelector: {}, podTemplate: {labels: {team: a, sidecar.istio.io/inject: 'true'}, annotations: {example.com/note: b, cluster-autoscaler.kubernetes.io/safe-to-evict: 'false'}, priorityClassName: low, runtimeClassName: gvisor, volumes: [{name: settings, configMap: {name: c, items: [{key: k, path: a/b, mode: 256}], defaultMode: 292}}, {name: keys, secret: {secretName: s, optional: false}}, {name: scratch, emptyDir: {medium: Memory, sizeLimit: 1024Mi}}, {name: shared, persistentVolumeClaim: {claimName: p, readOnly: false}}, {name: big, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], storageClassName: fast, resources: {requests: {storage: 1024Gi}}}}}}], volumeMounts: [{name: settings, mountPath: /etc/settings, readOnly: true}, {name: keys, mountPath: /keys, readOnly: false, subPath: a}, {name: scratch, mountPath: /tmp/scratch}, {name: shared, mountPath: /shared}, {name: big, mountPath: /big}]}}";

#[test]
fn normal_pod_with_an_image_of_the_user() {
    insta::assert_yaml_snapshot!(pod_with_session(WITH_IMAGE));
}

#[test]
fn privileged_pod_in_the_namespaces_of_the_host() {
    insta::assert_yaml_snapshot!(pod(WITH_HOST_NAMESPACES, false));
}

#[test]
fn normal_pod_with_a_template() {
    insta::assert_yaml_snapshot!(pod(WITH_TEMPLATE, true));
}

#[test]
fn what_a_user_states_of_a_resource_replaces_its_default() {
    for (stated, requests, limits) in [
        (
            "{}",
            json!({"memory": "256Mi", "ephemeral-storage": "1Gi"}),
            json!({"memory": "256Mi", "ephemeral-storage": "1Gi"}),
        ),
        // No default limit, which could be below it.
        (
            "{requests: {memory: 1Gi}}",
            json!({"memory": "1Gi", "ephemeral-storage": "1Gi"}),
            json!({"ephemeral-storage": "1Gi"}),
        ),
        // The API server fills in the request.
        (
            "{limits: {memory: 64Mi, cpu: 1}}",
            json!({"ephemeral-storage": "1Gi"}),
            json!({"memory": "64Mi", "cpu": "1", "ephemeral-storage": "1Gi"}),
        ),
        (
            "{requests: {ephemeral-storage: 0}, limits: {memory: 1Gi}}",
            json!({"ephemeral-storage": "0"}),
            json!({"memory": "1Gi"}),
        ),
    ] {
        let spec = format!("{{script: x, nodeLabelSelector: {{}}, image: a, resources: {stated}}}");
        let spec = pod(&spec, false).spec.unwrap();
        for container in spec.containers.iter().chain(&spec.init_containers.unwrap()) {
            let resources = container.resources.clone().unwrap();
            assert_eq!(serde_json::to_value(resources.requests).unwrap(), requests, "{stated}");
            assert_eq!(serde_json::to_value(resources.limits).unwrap(), limits, "{stated}");
        }
    }
}

#[test]
fn whatever_pods_that_stay_are_made_of_is_their_shape() {
    let shape = |more: &str| {
        let spec = format!("{{script: x, nodeLabelSelector: {{}}, runnerIdleSeconds: 9{more}}}");
        pod_with_session(&spec).metadata.annotations.unwrap()[labels::SHAPE].clone()
    };
    let plain = shape("");
    for more in [
        "image: a",
        "imagePullPolicy: Never",
        "imagePullSecrets: [{name: a}]",
        "resources: {limits: {memory: 1Gi}}",
        "envFrom: [{secretRef: {name: a}}]",
        "podTemplate: {labels: {a: b}}",
        "podTemplate: {annotations: {a: b}}",
        "podTemplate: {priorityClassName: a}",
        "podTemplate: {runtimeClassName: a}",
        "podTemplate: {volumes: [{name: a, emptyDir: {}}]}",
        "dependencies: {installTimeoutSeconds: 60}",
        "output: {truncation: Head}",
    ] {
        assert_ne!(shape(&format!(", {more}")), plain, "{more}");
    }
    for more in ["output: {keep: DigestOnly}", "output: {groupBy: ExitCode}", "args: [a]"] {
        assert_eq!(shape(&format!(", {more}")), plain, "{more}");
    }
}

#[test]
fn claims_are_placed_by_the_scheduler_from_the_start() {
    for (volume, is_by_scheduler) in [
        ("emptyDir: {}", false),
        ("persistentVolumeClaim: {claimName: a}", true),
        (
            "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1}}}}}",
            true,
        ),
    ] {
        let spec = format!(
            "{{script: x, nodeLabelSelector: {{}}, podTemplate: {{volumes: [{{name: a, {volume}}}]}}}}"
        );
        let valid = validate(&object(&spec).spec, &Sources::default()).unwrap();
        assert_eq!(valid.is_by_scheduler(), is_by_scheduler, "{volume}");
    }
}

#[test]
fn what_installs_has_its_time_on_top() {
    for (what, seconds) in [
        ("script: x", 19),
        ("script: x, dependencies: {pip: [six]}", 619),
        ("script: x, runAs: Root, dependencies: {packages: [jq], installTimeoutSeconds: 60}", 79),
        ("script: \"#!/usr/bin/env python3\\n# /// script\\n# ///\"", 619),
        ("script: \"echo '# /// script'\"", 19),
    ] {
        let spec = format!("{{{what}, nodeLabelSelector: {{}}, executionDeadlineSeconds: 9}}");
        let valid = validate(&object(&spec).spec, &Sources::default()).unwrap();
        assert_eq!(longest_seconds(&valid, 1, Some(1)), Some(seconds), "{what}");
    }
}

/// What a real API server (1.36) returns for two of these pods: `kubectl create --dry-run=server -o json`.
#[test]
fn what_the_api_server_fills_in_leaves_the_pod_ours() {
    let cases = [
        ("{script: x, nodeLabelSelector: {}}", include_str!("stored/normal.json")),
        (
            "{script: x, nodeLabelSelector: {}, mode: PrivilegedWithHostFS, repeat: {periodSeconds: 5}}",
            include_str!("stored/privileged_with_host.json"),
        ),
    ];
    for (spec, stored) in cases {
        assert!(stored.contains("\"defaultMode\""), "the kubelet's default of the token's file is filled in");
        let stored: Pod = serde_json::from_str(stored).unwrap();
        assert_eq!(pod_difference(&pod_with_session(spec), &stored), None);
        let of_another_door = pod_with(spec, false, None);
        assert!(pod_difference(&of_another_door, &stored).is_some());
        let mut with_secret = stored.clone();
        let volumes = with_secret.spec.as_mut().unwrap().volumes.as_mut().unwrap();
        let token = volumes.iter_mut().find_map(|volume| volume.projected.as_mut()).unwrap();
        token.sources.get_or_insert_default().push(VolumeProjection::default());
        assert!(pod_difference(&pod_with_session(spec), &with_secret).unwrap().contains("sources"));
    }
}

/// The same for pods of which users say more. RuntimeClass `gvisor` had an overhead, a selector and a toleration.
#[test]
fn what_the_api_server_makes_of_a_users_wishes_leaves_the_pod_ours() {
    let cases = [
        (pod_with_session(WITH_IMAGE), include_str!("stored/with_image.json")),
        (pod(WITH_HOST_NAMESPACES, false), include_str!("stored/with_host_namespaces.json")),
        (pod(WITH_TEMPLATE, true), include_str!("stored/with_template.json")),
    ];
    for (ours, stored) in cases {
        assert_eq!(pod_difference(&ours, &serde_json::from_str(stored).unwrap()), None);
    }
    let ours = pod_with_session(WITH_IMAGE);
    for (from, to, difference) in [
        ("\"name\": \"copy-runner\"", "\"name\": \"copy-evil\"", "spec.initContainers[0].name differs"),
        ("\"memory\": \"1Gi\"", "\"memory\": \"2Gi\"", "spec.containers[0].resources.limits.memory differs"),
        ("scriptrunner-runner", "sh", "spec.containers[0].command differs"),
        ("\"name\": \"registry\"", "\"name\": \"other\"", "spec.imagePullSecrets[0].name differs"),
    ] {
        let stored = include_str!("stored/with_image.json");
        assert!(stored.contains(from), "{from}");
        let theirs: Pod = serde_json::from_str(&stored.replace(from, to)).unwrap();
        let found = pod_difference(&ours, &theirs).unwrap();
        assert!(found.starts_with(difference.trim_end_matches(" differs")), "{found}");
    }
}

#[test]
fn runner_is_told_what_exit_codes_mean_and_another_meaning_is_another_shape() {
    let told = |exit_codes: &str| {
        let pod = pod_with_session(&format!(
            "{{script: x, nodeLabelSelector: {{}}, runnerIdleSeconds: 9, backoffLimit: 1, exitCodes: {exit_codes}}}"
        ));
        let args = pod.spec.unwrap().containers[0].args.clone().unwrap();
        let codes = ["--success-codes", "--skipped-codes"]
            .map(|name| args.iter().skip_while(|arg| *arg != name).nth(1).cloned().unwrap_or_default());
        (codes, pod.metadata.annotations.unwrap()[labels::SHAPE].clone())
    };
    let (codes, shape) = told("{success: [3, 2], skipped: [4], retry: [9]}");
    assert_eq!(codes, ["2,3", "4"]);
    assert_eq!(
        told("{success: [2, 3], skipped: [4]}").1,
        shape,
        "what is tried again is the operator's part"
    );
    assert_ne!(told("{success: [2], skipped: [4]}").1, shape);
    let (codes, other) = told("{}");
    assert_eq!(codes, ["", ""]);
    assert_ne!(other, shape);
}

#[test]
fn host_is_mounted_only_in_its_mode() {
    for (mode, mounted) in [("Normal", false), ("Privileged", false), ("PrivilegedWithHostFS", true)] {
        let pod = pod(
            &format!("{{script: x, nodeLabelSelector: {{}}, mode: {mode}, repeat: {{periodSeconds: 5}}}}"),
            false,
        );
        let spec = pod.spec.unwrap();
        assert_eq!(spec.volumes.unwrap().iter().any(|volume| volume.host_path.is_some()), mounted, "{mode}");
        let privileged = spec.containers[0].security_context.as_ref().unwrap().privileged == Some(true);
        assert_eq!(privileged, mode != "Normal");
        assert_eq!(spec.automount_service_account_token, Some(false));
    }
}

#[test]
fn config_map_holds_the_script_byte_for_byte() {
    let script = "#!/bin/sh\r\necho \"$HOME\" '\\n' `x` é\u{1f600}\u{2028}\t\u{0}\n";
    let mut object = object("{script: x, nodeLabelSelector: {}}");
    object.spec.script = Some(script.into());
    let valid = validate(&object.spec, &Sources::default()).unwrap();
    let config_map = build_config_map(&object, 1, &valid);
    let data = config_map.data.unwrap();
    assert_eq!(data["script"], script);
    assert_eq!(
        format!("1:{}", scriptrunner_api::digest::sha256_hex(data["spec.json"].as_bytes())),
        valid.spec_hash
    );
    assert_eq!(config_map.immutable, Some(true));
}

#[test]
fn nothing_of_a_user_reaches_the_arguments() {
    let pod = pod(
        "{script: x, nodeLabelSelector: {}, args: ['$(HOME)'], interpreter: ['$(A)'], env: [{name: A, value: '$(B)'}]}",
        false,
    );
    let args = pod.spec.unwrap().containers[0].args.clone().unwrap();
    assert!(args.iter().all(|arg| !arg.contains('$')), "{args:?}");
}
