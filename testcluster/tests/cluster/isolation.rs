//! What a pod with every right sees of the machine below its node.

use std::{fs::File, os::unix::fs::MetadataExt, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{LogParams, PostParams},
};
use scriptrunner_testcluster::{Error, namespace::in_namespace, wait::until};
use serde_json::json;

use crate::owned::{Owned, up};

/// What the pod does: each line's answer begins with a word to look for.
const SCRIPT: &str = "
echo written > /host/etc/testcluster-probe && echo etc: $(cat /host/etc/testcluster-probe)
touch /host/usr/testcluster-probe && echo usr: written
echo hostname: $(cat /host/etc/hostname)
echo home: $(ls -A /host/root /host/home /host/etc/ssh | grep -v : )
echo disks: $(ls /host/dev | grep -E '^(vd|sd|nvme|xvd|loop)')
mknod /host/tmp/disk b MAJOR MINOR
head -c 1 /host/tmp/disk > /dev/null 2> /tmp/error && echo disk: read || echo disk: $(cat /tmp/error)
echo allow: $(sh -c 'echo b *:* rwm > /host/sys/fs/cgroup/devices/devices.allow' 2>&1)
head -c 1 /host/tmp/disk > /dev/null 2>&1 && echo again: read || echo again: denied
echo name: $(getent hosts kubernetes.default.svc.cluster.local)
";

#[tokio::test]
async fn a_privileged_pod_reaches_neither_files_nor_disks_of_the_machine() {
    let _owned = Owned::new(&["tc-apart"]);
    let cluster = up("tc-apart");
    let client = cluster.client().await.unwrap();
    let (major, minor) = first_disk();
    let script = SCRIPT.replace("MAJOR", &major.to_string()).replace("MINOR", &minor.to_string());
    let log = in_namespace(&client, "apart", &[], async |namespace| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        pods.create(&PostParams::default(), &pod("tc-apart-node1", &script)).await.unwrap();
        until("the pod to end", Duration::from_mins(1), async |seen| {
            let status = pods.get("probe").await?.status.unwrap_or_default();
            seen.note(format!("{status:?}"));
            let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
            Ok::<_, kube::Error>(ended.then_some(()))
        })
        .await?;
        Ok::<_, Error>(pods.logs("probe", &LogParams::default()).await.unwrap())
    })
    .await
    .unwrap();
    let answer = |word: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(": "));
        line.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(answer("etc"), "written", "{log}");
    assert_eq!(answer("usr"), "written", "{log}");
    assert!(!Path::new("/etc/testcluster-probe").exists() && !Path::new("/usr/testcluster-probe").exists());
    assert_eq!(answer("hostname"), "tc-apart-node1", "{log}");
    assert_eq!((answer("home"), answer("disks")), (String::new(), String::new()), "{log}");
    assert!(answer("name").contains("10."), "{log}");
    assert!(answer("disk").contains("not permitted"), "{log}");
    assert_eq!(answer("again"), "denied", "{log}");
}

/// The numbers of a disk that the machine itself can open, or else the denial would prove nothing.
fn first_disk() -> (u64, u64) {
    let table = std::fs::read_to_string("/proc/partitions").unwrap();
    let names = table.lines().skip(2).filter_map(|line| line.split_whitespace().nth(3)).chain(["loop0"]);
    let open = |name: &str| File::open(Path::new("/dev").join(name)).ok()?.metadata().ok();
    let device =
        names.into_iter().find_map(open).expect("the machine should have a disk that root can read").rdev();
    (nix::sys::stat::major(device), nix::sys::stat::minor(device))
}

/// A pod with every right. Its image has but one program, so it takes those of its node.
fn pod(node: &str, script: &str) -> Pod {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
        "spec": {
            "nodeName": node, "restartPolicy": "Never", "hostPID": true,
            "containers": [{
                "name": "probe", "image": "localhost/scriptrunner/pause:1", "imagePullPolicy": "IfNotPresent",
                "command": ["/bin/sh", "-c", script],
                "securityContext": {"privileged": true},
                "volumeMounts": [
                    {"name": "usr", "mountPath": "/usr"},
                    {"name": "usr", "mountPath": "/bin", "subPath": "bin"},
                    {"name": "usr", "mountPath": "/lib", "subPath": "lib"},
                    {"name": "loader", "mountPath": "/lib64"},
                    {"name": "tmp", "mountPath": "/tmp"},
                    {"name": "root", "mountPath": "/host"},
                ],
            }],
            "volumes": [
                {"name": "usr", "hostPath": {"path": "/usr"}},
                {"name": "loader", "hostPath": {"path": "/lib64"}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "root", "hostPath": {"path": "/"}},
            ],
        },
    }))
    .expect("the pod should be well-formed")
}
