//! Privileged scripts in the node's namespaces: what they see, that they report live, and that nothing of them stays.

use scriptrunner_api::v1alpha1::{Mode, ScriptRunner};
use serde_json::{Value, json};

use crate::{
    answer::{newest, status},
    processes,
    stage::{PRIVILEGED, beside_others},
};

fn privileged_on(node: &str, script: &str) -> Value {
    json!({"nodeNames": [node], "mode": Mode::Privileged, "parallelism": "100%", "executionDeadlineSeconds": 60,
        "interpreter": ["bash"], "script": script})
}

#[tokio::test]
async fn a_script_sees_the_namespaces_that_it_asked_for_and_no_others() {
    beside_others("host::namespaces", PRIVILEGED, async |stage| {
        let node = stage.some_node();
        let script =
            "for space in pid net ipc; do readlink /proc/self/ns/$space; done; readlink /proc/1/ns/net";
        let own = stage.submit("own", privileged_on(&node, script)).await;
        let mut spec = privileged_on(&node, script);
        for field in ["hostPID", "hostNetwork", "hostIPC"] {
            spec[field] = true.into();
        }
        let host = stage.submit("host", spec).await;
        let (own, host) = (own.until_complete().await, host.until_complete().await);
        let lines = |object: &ScriptRunner| -> Vec<String> {
            newest(object, &node).stdout.lines().map(str::to_owned).collect()
        };
        let (own, host) = (lines(&own), lines(&host));
        assert_eq!((own.len(), host.len()), (4, 4));
        assert!(own.iter().zip(&host).take(3).all(|(own, host)| own != host), "{own:?} {host:?}");
        // The first process that it sees is the node's, and in the node's network.
        assert_eq!(host[1], host[3]);
    })
    .await;
}

#[tokio::test]
async fn a_pod_in_the_nodes_network_reports_while_it_runs() {
    beside_others("host::live", PRIVILEGED, async |stage| {
        let node = stage.some_node();
        let mut spec = privileged_on(&node, "echo $SCRIPTRUNNER_SERIAL");
        let fields = spec.as_object_mut().unwrap();
        fields.remove("parallelism");
        fields.insert("hostNetwork".into(), true.into());
        fields.insert("repeat".into(), json!({"periodSeconds": 1}));
        let subject = stage.submit("subject", spec).await;
        let is_live = |object: &ScriptRunner| {
            let Some(status) = &object.status else { return false };
            status.connected == 1 && status.nodes.get(&node).is_some_and(|entry| entry.executions > 2)
        };
        let object = subject.until("live answers", is_live).await;
        assert_eq!(status(&object).active, 1);
    })
    .await;
}

#[tokio::test]
async fn nothing_of_a_script_among_the_nodes_processes_stays() {
    beside_others("host::left", PRIVILEGED, async |stage| {
        let node = stage.some_node();
        // A process that left its group and its parent.
        let mark = format!("86400.{}", stage.namespace.bytes().map(u32::from).sum::<u32>());
        let mut spec =
            privileged_on(&node, &format!("setsid bash -c 'sleep {mark} & disown' & wait; echo begun"));
        spec["hostPID"] = true.into();
        let object = stage.submit("subject", spec).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "begun\n");
        processes::until_none(&stage.cluster, "sleep", &mark).await;
    })
    .await;
}
