//! A node before a ScriptRunner came and after it has gone: no process, mount or file of it is left.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use kube::api::DeleteParams;
use scriptrunner_api::v1alpha1::{Mode, ScriptRunner};
use scriptrunner_testcluster::{Cluster, wait};
use serde_json::json;

use crate::{
    answer::newest,
    node::victim,
    processes,
    python_index::PythonIndex,
    stage::{PATIENCE, PRIVILEGED, Stage, alone},
};

/// What a script does that likes to leave things behind: a process that left its group, a mount, files where it may write.
const LITTER: &str = "mkdir /tmp/below && mount -t tmpfs litter /tmp/below && touch /tmp/below/file /tmp/file /scratch/file /root/file\n\
    setsid bash -c 'sleep 86397 & disown' &\nwait\nnsenter --target 1 --mount true\npython3 -c 'import srlitter; print(srlitter.word())'\n";

#[tokio::test]
async fn nothing_is_left_on_a_node_after_the_object_is_gone() {
    alone("leftovers::none", PRIVILEGED, async |stage| {
        let node = victim(&stage).await;
        let index =
            PythonIndex::start(&stage.cluster, "srlitter", "def word():\n    return 'littered'\n").await;
        let before = Seen::on(&stage.cluster, &node);
        let spec = json!({"nodeNames": [node], "mode": Mode::PrivilegedWithHostFS, "hostPID": true,
            "executionDeadlineSeconds": 60, "repeat": {"periodSeconds": 600},
            "interpreter": ["bash"], "script": LITTER, "env": index.trust(),
            "dependencies": {"pip": ["srlitter"], "indexURL": index.url()},
            "podTemplate": {"volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory"}}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}});
        let has_run = |object: &ScriptRunner| {
            let status = object.status.as_ref();
            status.and_then(|status| status.nodes.get(&node)).is_some_and(|entry| entry.executions == 1)
        };
        let object = stage.submit("subject", spec).await.until("a first answer", has_run).await;
        assert_eq!(newest(&object, &node).stdout, "littered\n");
        // The pod stays for its next execution, so there is something to be seen.
        let during = Seen::on(&stage.cluster, &node).beyond(&before);
        assert!(during.mounts.iter().any(|mount| mount.contains("/pods/")), "{during:?}");
        assert!(during.files.iter().any(|file| file.contains("/kubelet/pods/")), "{during:?}");
        assert!(during.processes.iter().any(|name| name.contains("scriptrunner")), "{during:?}");
        stage.api::<ScriptRunner>().delete("subject", &DeleteParams::default()).await.unwrap();
        until_nothing_is_left(&stage, &node, &before).await;
        processes::until_none(&stage.cluster, "sleep", "86397").await;
    })
    .await;
}

async fn until_nothing_is_left(stage: &Stage, node: &str, before: &Seen) {
    wait::until("nothing left on the node", PATIENCE, async |seen| {
        let left = Seen::on(&stage.cluster, node).beyond(before);
        seen.note(format!("{left:?}"));
        let is_clean = left.processes.is_empty() && left.mounts.is_empty() && left.files.is_empty();
        Ok::<_, kube::Error>(is_clean.then_some(()))
    })
    .await
    .unwrap();
}

/// What can be left on a node.
#[derive(Debug)]
struct Seen {
    /// `pid program` of each process.
    processes: BTreeSet<String>,
    /// Where something is mounted.
    mounts: BTreeSet<String>,
    /// Files and folders, and the layers of containers.
    files: BTreeSet<String>,
}

impl Seen {
    fn on(cluster: &Cluster, node: &str) -> Self {
        let first = cluster.node_process(node).unwrap().unwrap();
        let mounts = fs::read_to_string(format!("/proc/{first}/mounts")).unwrap();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect();
        let root = format!("/proc/{first}/root");
        let var = cluster.node_var(node).unwrap();
        let images = var.join("lib/containerd");
        let mut files = BTreeSet::new();
        for folder in ["run", "tmp", "etc", "root", "dev/shm"] {
            files.extend(below(Path::new(&root).join(folder).as_path(), &images, 99));
        }
        files.extend(below(&var, &images, 99));
        // Of what containerd keeps of images and containers: which layers there are.
        let layers = images.join("io.containerd.snapshotter.v1.overlayfs/snapshots");
        files.extend(below(&layers, Path::new("/none"), 1));
        Self { processes: processes::all_of(first), mounts, files }
    }

    fn beyond(&self, before: &Self) -> Self {
        let beyond =
            |now: &BTreeSet<String>, then: &BTreeSet<String>| now.difference(then).cloned().collect();
        Self {
            processes: beyond(&self.processes, &before.processes),
            mounts: beyond(&self.mounts, &before.mounts),
            files: beyond(&self.files, &before.files),
        }
    }
}

/// Paths in a folder and below it on the same file system, `except` left out.
fn below(folder: &Path, except: &Path, depth: u32) -> Vec<String> {
    let listed = Command::new("find")
        .arg(format!("{}/", folder.display()))
        .args(["-xdev", "-maxdepth", &depth.to_string(), "-path"])
        .arg(except)
        .args(["-prune", "-o", "-print"])
        .output()
        .unwrap();
    // Files that go while it looks make it complain; what it found counts.
    let paths = String::from_utf8_lossy(&listed.stdout);
    assert!(!paths.is_empty(), "{}: {}", folder.display(), String::from_utf8_lossy(&listed.stderr));
    paths.lines().map(str::to_owned).collect()
}
