//! Images of users: one that has nothing but busybox, one that makes demands, one that is not there.

use k8s_openapi::api::{node::v1::RuntimeClass, scheduling::v1::PriorityClass};
use scriptrunner_api::condition::ConditionType;
use scriptrunner_testcluster::Cluster;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    answer::{entry, message, newest, says, state},
    claim, packed,
    stage::{PRIVILEGED, beside_others},
};

/// Loading takes its time, and one after the other.
pub(crate) async fn busybox(cluster: &Cluster) -> String {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    IMAGE.get_or_init(async || packed::busybox(cluster)).await.clone()
}

fn shell_on(node: &str, image: &str, script: &str) -> Value {
    json!({"nodeNames": [node], "image": image, "interpreter": ["/bin/busybox", "sh"], "script": script})
}

#[tokio::test]
async fn an_image_needs_no_more_than_the_interpreter() {
    // The init container passes as well.
    let restricted = &[("pod-security.kubernetes.io/enforce", "restricted")];
    beside_others("images::busybox", restricted, async |stage| {
        let (node, image) = (stage.some_node(), busybox(&stage.cluster).await);
        let script = "busybox() { /bin/busybox \"$@\"; }\nbusybox id -u; busybox pwd; echo x >/tmp/there && echo y >here; busybox ls /\n\
            echo '{\"a\": [1, 2]}' >\"$SCRIPTRUNNER_RESULT_FILE\"; echo z >/nowhere";
        let object = stage.submit("subject", shell_on(&node, &image, script)).await.until_failed().await;
        let answer = newest(&object, &node);
        assert!(answer.stdout.starts_with("65532\n/scriptrunner/work\nbin\n"), "{:?}", answer.stdout);
        assert!(answer.stderr.contains("Read-only file system"), "{:?}", answer.stderr);
        assert_eq!(answer.result, Some(json!({"a": [1, 2]})));
    })
    .await;
}

#[tokio::test]
async fn what_an_image_demands_of_its_container_does_not_matter() {
    beside_others("images::demanding", &[], async |stage| {
        let node = stage.some_node();
        let image = packed::demanding(&stage.cluster);
        let spec = shell_on(&node, &image, "echo \"$FROM_IMAGE $HOME\"");
        let object = stage.submit("subject", spec).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "1 /scriptrunner/work\n");
    })
    .await;
}

#[tokio::test]
async fn repetitions_and_warm_runs_work_in_any_image() {
    beside_others("images::warm", &[], async |stage| {
        let (node, image) = (stage.some_node(), busybox(&stage.cluster).await);
        let mut spec = shell_on(&node, &image, "echo one");
        spec["repeat"] = json!({"count": 2, "periodSeconds": 1});
        spec["runnerIdleSeconds"] = 60.into();
        let subject = stage.submit("subject", spec).await;
        let object = subject.until_complete().await;
        assert_eq!(entry(&object, &node).executions, 2);
        let pod = stage.until_pods(1).await.remove(0).metadata.uid;
        subject.edit(json!({"spec": {"script": "echo two"}})).await;
        let object = subject.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "two\n");
        assert_eq!(stage.until_pods(1).await.remove(0).metadata.uid, pod);
    })
    .await;
}

#[tokio::test]
async fn a_privileged_script_runs_in_an_image_that_is_named_by_its_digest() {
    beside_others("images::digest", PRIVILEGED, async |stage| {
        let (node, image) = (stage.some_node(), busybox(&stage.cluster).await);
        let mut spec = shell_on(&node, &image, "echo normal");
        spec["runnerIdleSeconds"] = 60.into();
        stage.submit("normal", spec).await.until_complete().await;
        let status = stage.until_pods(1).await.remove(0).status.unwrap();
        // What a user copies.
        let by_digest = status.container_statuses.unwrap().remove(0).image_id;
        assert!(by_digest.contains("/busybox@sha256:"), "{by_digest}");
        let script = "/bin/busybox grep CapEff /proc/self/status";
        let mut spec = shell_on(&node, &by_digest, script);
        spec["mode"] = "Privileged".into();
        spec["parallelism"] = "100%".into();
        spec["executionDeadlineSeconds"] = 60.into();
        let object = stage.submit("privileged", spec).await.until_complete().await;
        let capabilities = newest(&object, &node).stdout.trim_start_matches("CapEff:").trim();
        assert!(u64::from_str_radix(capabilities, 16).unwrap().count_ones() > 30, "{capabilities}");
    })
    .await;
}

#[tokio::test]
async fn an_image_without_the_interpreter_says_so() {
    beside_others("images::no_interpreter", &[], async |stage| {
        let (node, image) = (stage.some_node(), busybox(&stage.cluster).await);
        let spec = json!({"nodeNames": [node], "image": image, "script": "print(1)"});
        let object = stage.submit("subject", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "InterpreterNotStarted"));
        let told = &entry(&object, &node).message;
        assert!(told.contains("python3"), "{told}");
    })
    .await;
}

#[tokio::test]
async fn an_image_that_is_not_there_says_so() {
    beside_others("images::missing", &[], async |stage| {
        let node = stage.some_node();
        let image = "localhost/scriptrunner-test/missing:1";
        let mut spec = shell_on(&node, image, "echo never");
        spec["imagePullPolicy"] = "Never".into();
        // The kubelet tells what a second container waits for only when it next looks at the pod.
        spec["podStartDeadlineSeconds"] = 40.into();
        let object = stage.submit("subject", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "ImagePullFailed"));
        let told = &entry(&object, &node).message;
        assert!(told.contains(image), "{told}");
        assert_eq!(entry(&object, &node).executions, 0);
    })
    .await;
}

#[tokio::test]
async fn what_a_pod_names_and_is_not_there_is_told() {
    beside_others("images::missing_parts", &[], async |stage| {
        let node = stage.some_node();
        let with = |part: Value| {
            let mut spec = json!({"nodeNames": [node], "script": "print(1)", "podStartDeadlineSeconds": 40});
            spec.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            spec
        };
        let secret =
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no-secret", "key": "a"}}}]});
        let secret = stage.submit("secret", with(secret)).await;
        let from = json!({"envFrom": [{"configMapRef": {"name": "no-config-map"}}]});
        let from = stage.submit("from", with(from)).await;
        let volumes = json!([{"name": "a", "secret": {"secretName": "no-volume"}}]);
        let mounts = json!([{"name": "a", "mountPath": "/a"}]);
        let template = json!({"podTemplate": {"volumes": volumes, "volumeMounts": mounts}});
        let volume = stage.submit("volume", with(template)).await;
        let optional =
            json!({"envFrom": [{"prefix": "A_", "secretRef": {"name": "no-secret", "optional": true}}]});
        let optional = stage.submit("optional", with(optional)).await;
        for (subject, name) in [(secret, "no-secret"), (from, "no-config-map")] {
            let object = subject.until_failed().await;
            assert_eq!(state(&object, &node), ("Failed", "ContainerNotStarted"), "{name}");
            let told = &entry(&object, &node).message;
            assert!(told.contains(name), "{told}");
        }
        let object = volume.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "StartDeadlineExceeded"));
        let told = &entry(&object, &node).message;
        assert!(told.contains("Secret \"no-volume\""), "{told}");
        optional.until_complete().await;
    })
    .await;
}

#[tokio::test]
async fn priority_and_runtime_class_of_the_cluster_are_those_of_the_pods() {
    beside_others("images::classes", &[], async |stage| {
        let node = stage.some_node();
        let name = stage.namespace.as_str();
        let class = json!({"metadata": {"name": name}, "value": 1234, "preemptionPolicy": "Never"});
        claim::create_of_cluster::<PriorityClass>(&stage, class).await;
        // What the nodes' container runtime knows; its overhead shows that the class was looked up.
        let class = json!({"metadata": {"name": name}, "handler": "runc", "overhead": {"podFixed": {"memory": "1Mi"}}});
        claim::create_of_cluster::<RuntimeClass>(&stage, class).await;
        let template = json!({"priorityClassName": name, "runtimeClassName": name});
        let mut spec = json!({"nodeNames": [node], "script": "print(1)", "podTemplate": template});
        spec["runnerIdleSeconds"] = 60.into();
        stage.submit("subject", spec.clone()).await.until_complete().await;
        let pod = stage.until_pods(1).await.remove(0).spec.unwrap();
        assert_eq!((pod.priority, pod.preemption_policy.as_deref()), (Some(1234), Some("Never")));
        assert!(pod.overhead.is_some_and(|overhead| overhead.contains_key("memory")));
        spec["podTemplate"]["priorityClassName"] = "no-such-class".into();
        let subject = stage.submit("missing", spec).await;
        let is_told = |object: &_| {
            says(object, ConditionType::Progressing, "True", "PodsRefused")
                && message(object, ConditionType::Progressing).contains("no-such-class")
        };
        subject.until("the missing class", is_told).await;
    })
    .await;
}
