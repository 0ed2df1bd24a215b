//! One snapshot per shape of pod: a changed line here is a changed pod on every node of every user.

use super::*;
use crate::validate::validate;

fn object(spec: &str) -> ObjectFacts {
    ObjectFacts {
        namespace: "ns".into(),
        name: "a.long.name".into(),
        uid: "0c2c6f3e-0000-4000-8000-000000000001".into(),
        generation: 1,
        deleting: false,
        other_bytes: 0,
        spec: serde_saphyr::from_str(spec).unwrap(),
    }
}

fn pod(spec: &str, by_scheduler: bool) -> Pod {
    let object = object(spec);
    let valid = validate(&object.spec).unwrap();
    let target = Target {
        node: "n1".into(),
        node_uid: "node-uid".into(),
        run: 3,
        attempt: 2,
        first_serial: 5,
        last_start_seconds: Some(1_800_000_000),
        remaining: valid.pinned.executions(),
        by_scheduler,
    };
    let settings = PodSettings {
        runner_image: "runner:1".into(),
        default_memory: Some("256Mi".into()),
        default_ephemeral_storage: Some("1Gi".into()),
        handover_seconds: 600,
    };
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
    object.spec.script = script.into();
    let valid = validate(&object.spec).unwrap();
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
