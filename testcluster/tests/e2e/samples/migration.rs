//! The manifests of docs/migration.md: those of other tools, and the ScriptRunners that do the same job.

use std::{collections::BTreeSet, fs};

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};
use scriptrunner_api::{labels, v1alpha1::ScriptRunner};
use serde_json::{Value, json};

use super::{apply, documents, folder};
use crate::{
    answer::{entry, newest, status},
    package_archive::{PackageArchive, let_apt_get_read},
    python_index::PythonIndex,
    stage::{Stage, in_given_namespace},
};

/// What each tool's user wrote: the objects' API versions and kinds.
const BEFORE: [(&str, &[(&str, &str)]); 5] = [
    ("daemonjob", &[("dj.dysproz.io/v1", "DaemonJob")]),
    (
        "dispatcher",
        &[("dispatcher.ivan.vc/v1beta1", "JobTemplate"), ("dispatcher.ivan.vc/v1beta1", "JobExecution")],
    ),
    ("dist-exec", &[("exec.yuhong.test/v1", "DistExec")]),
    ("k8s-node-tasker", &[("v1", "ConfigMap")]),
    ("scriptrunner-operator", &[("scriptrunner.github.com/v1alpha1", "ScriptRunner")]),
];

/// Runs a sample to its end; `change` may adapt it to this cluster.
async fn migrated(
    stage: &Stage,
    file: &str,
    change: impl FnOnce(&mut Value),
    check: impl AsyncFnOnce(&ScriptRunner),
) {
    let sample = apply(&stage.client, &format!("migration/{file}.yaml"), change).await;
    let object = sample.until_complete().await;
    for node in status(&object).nodes.keys() {
        assert_eq!(entry(&object, node).state, "Succeeded", "{node}");
    }
    check(&object).await;
    sample.delete().await;
}

/// Takes the image out: no registry need answer where tests run, and the default one has the interpreter too.
fn without_image(object: &mut Value) {
    let image = object["spec"].as_object_mut().unwrap().remove("image");
    assert_eq!(image, Some(json!("docker.io/library/debian:12-slim")));
}

#[tokio::test]
async fn users_of_scriptrunner_operator_can_move() {
    in_given_namespace("default", async |stage| {
        let archive = PackageArchive::debian_with(&stage.cluster, "pciutils", "lspci").await;
        stage.put_config_map("e2e-apt-migration", archive.settings_for_apt_get()).await;
        let module = "def naturalsize(size):\n    return f'{size} bytes'\n";
        let index = PythonIndex::start(&stage.cluster, "humanize", module).await;
        let serve = |object: &mut Value| {
            object["spec"]["env"] = index.trust();
            object["spec"]["dependencies"]["indexURL"] = index.url().into();
            let_apt_get_read("e2e-apt-migration", &mut object["spec"]);
        };
        migrated(&stage, "scriptrunner-operator", serve, async |object| {
            assert_eq!(status(object).desired, 3);
            for node in stage.cluster.node_names() {
                assert_eq!(entry(object, &node).executions, 3);
                let said = &newest(object, &node).stdout;
                assert!(
                    said.starts_with("1 PCI devices and ") && said.ends_with(" bytes of memory\n"),
                    "{said:?}"
                );
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn users_of_dist_exec_can_move() {
    in_given_namespace("default", async |stage| {
        migrated(
            &stage,
            "dist-exec",
            |_| {},
            async |object| {
                let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
                assert_eq!(status(object).desired, 3);
                for node in stage.cluster.node_names() {
                    assert_eq!(newest(object, &node).stdout, kernel);
                }
            },
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn users_of_k8s_node_tasker_can_move() {
    in_given_namespace("default", async |stage| {
        migrated(
            &stage,
            "k8s-node-tasker",
            |_| {},
            async |object| {
                assert_eq!(status(object).desired, 3);
                for node in stage.cluster.node_names() {
                    let said = &newest(object, &node).stdout;
                    assert!(said.starts_with("load ") && said.split_whitespace().count() == 4, "{said:?}");
                }
            },
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn users_of_dispatcher_can_move() {
    in_given_namespace("default", async |stage| {
        migrated(&stage, "dispatcher", without_image, async |object| {
            assert_eq!(status(object).desired, 1);
            let node = status(object).nodes.keys().next().unwrap();
            assert_eq!(newest(object, node).stdout, "resize-1: payload 42\n");
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn users_of_daemonjob_can_move() {
    in_given_namespace("default", async |stage| {
        let keep = |object: &mut Value| {
            without_image(object);
            object["spec"]["podCleanupPolicy"] = "Never".into();
        };
        migrated(&stage, "daemonjob", keep, async |object| {
            assert_eq!(status(object).desired, 3);
            for node in stage.cluster.node_names() {
                let said = &newest(object, &node).stdout;
                let percent = said.strip_suffix("%\n").and_then(|number| number.parse::<u8>().ok());
                assert!(percent.is_some_and(|percent| percent <= 100), "{said:?}");
            }
            // Those of an earlier run of this test may not be gone yet.
            let labelled = format!("app=free-space,{}={}", labels::UID, object.uid().unwrap());
            let pods = stage.api::<Pod>().list(&ListParams::default().labels(&labelled)).await.unwrap().items;
            assert_eq!(pods.len(), 3, "{:?}", pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>());
            for pod in pods {
                assert_eq!(pod.annotations()["example.com/contact"], "storage team");
                let tolerated = pod.spec.unwrap().tolerations.unwrap_or_default();
                let is_it = tolerated.iter().any(|it| it.value.as_deref() == Some("storage"));
                assert!(is_it, "{tolerated:?}");
            }
        })
        .await;
    })
    .await;
}

/// The names of the manifests in a folder below `samples`.
fn tools(path: &str) -> BTreeSet<String> {
    let files = fs::read_dir(folder().join(path)).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| path.is_file())
        .map(|path| path.file_name().unwrap().to_str().unwrap().strip_suffix(".yaml").unwrap().to_owned())
        .collect()
}

fn kinds(file: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    documents(file).iter().map(|object| (text(&object["apiVersion"]), text(&object["kind"]))).collect()
}

#[test]
fn every_manifest_of_another_tool_has_its_script_runner_and_the_reverse() {
    let known: BTreeSet<String> = BEFORE.iter().map(|(tool, _)| (*tool).to_owned()).collect();
    assert_eq!((tools("migration/before"), tools("migration")), (known.clone(), known));
    for (tool, expected) in BEFORE {
        let expected: Vec<_> =
            expected.iter().map(|(version, kind)| ((*version).to_owned(), (*kind).to_owned())).collect();
        assert_eq!(kinds(&format!("migration/before/{tool}.yaml")), expected, "{tool}");
        let after = kinds(&format!("migration/{tool}.yaml"));
        let ours = ("scriptrunner.io/v1alpha1".to_owned(), "ScriptRunner".to_owned());
        assert_eq!(after.iter().filter(|it| **it == ours).count(), 1, "{tool}: {after:?}");
        assert_eq!(after.last(), Some(&ours), "{tool}");
    }
}

#[test]
fn every_tool_of_the_migration_page_has_its_sample() {
    let page = fs::read_to_string(folder().join("../docs/migration.md")).unwrap();
    let tools = tools("migration");
    for tool in &tools {
        for file in [format!("migration/before/{tool}.yaml"), format!("migration/{tool}.yaml")] {
            assert!(page.contains(&format!("(../samples/{file})")), "{file} is not on the page");
        }
    }
    assert_eq!(tools.len(), page.matches("\n[before](../samples/migration/before/").count());
}
