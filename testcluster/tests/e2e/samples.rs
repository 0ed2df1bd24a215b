//! Every file in samples/, applied as it stands and run to its end.

mod attempts;
mod inputs;
mod migration;
mod pods;

use std::{collections::BTreeSet, fs, path::PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Secret};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use scriptrunner_api::{condition::ConditionType, v1alpha1::ScriptRunner};
use serde_json::{Value, json};

use crate::{
    answer::{entry, message, newest, run_number, says, status},
    operator,
    python_index::PythonIndex,
    stage::{Stage, in_given_namespace},
    submitted::Submitted,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../samples")
}

fn documents(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

/// Applies the sample's documents; `change` may adapt the ScriptRunner to this cluster.
async fn apply(client: &Client, file: &str, change: impl FnOnce(&mut Value)) -> Submitted {
    apply_all(client, file, |documents| change(documents.last_mut().unwrap())).await
}

/// The same; `change` may adapt every document.
async fn apply_all(client: &Client, file: &str, change: impl FnOnce(&mut [Value])) -> Submitted {
    let mut documents = documents(file);
    change(&mut documents);
    let object = documents.pop().unwrap();
    let params = PatchParams::apply("e2e").force();
    for other in documents {
        let name = other["metadata"]["name"].as_str().unwrap();
        let namespace = other["metadata"]["namespace"].as_str();
        let patch = Patch::Apply(&other);
        match other["kind"].as_str().unwrap() {
            "Namespace" => {
                let api: Api<Namespace> = Api::all(client.clone());
                api.patch(name, &params, &patch).await.unwrap();
            }
            "ConfigMap" => {
                let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace.unwrap());
                api.patch(name, &params, &patch).await.unwrap();
            }
            "Secret" => {
                let api: Api<Secret> = Api::namespaced(client.clone(), namespace.unwrap());
                api.patch(name, &params, &patch).await.unwrap();
            }
            kind => panic!("{file} has a {kind}"),
        }
    }
    assert_eq!(object["kind"], "ScriptRunner");
    let name = object["metadata"]["name"].as_str().unwrap();
    let api: Api<ScriptRunner> =
        Api::namespaced(client.clone(), object["metadata"]["namespace"].as_str().unwrap());
    let submitted = Submitted::new(api.clone(), name);
    // What an earlier run of this test has left.
    submitted.delete().await;
    operator::until_it_admits_as_is(client, &object).await;
    api.patch(name, &params, &Patch::Apply(&object)).await.unwrap();
    submitted
}

/// What every sample that goes well must show.
fn assert_whole(stage: &Stage, object: &ScriptRunner) {
    let status = status(object);
    assert_eq!((status.desired, status.succeeded, status.progress.as_str()), (3, 3, "3/3"));
    assert_eq!(run_number(object), 1);
    assert!(says(object, ConditionType::Failed, "False", "NoFailure"));
    assert!(says(object, ConditionType::Progressing, "False", "AllNodesDone"));
    for node in stage.cluster.node_names() {
        let entry = entry(object, &node);
        assert_eq!(
            (entry.state.as_str(), entry.exit_code, entry.attempts),
            ("Succeeded", Some(0), 1),
            "{node}"
        );
    }
}

#[test]
fn every_sample_has_its_test() {
    let found: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let tested = [
        "bash",
        "careful",
        "cleanup",
        "deadline",
        "digest-only",
        "environment",
        "failing",
        "group-by-exit-code",
        "hello",
        "host-file-system",
        "host-network",
        "host-read-only",
        "image",
        "inline-metadata",
        "interruptions",
        "node-selector",
        "nsenter",
        "own-index",
        "packages",
        "pausable",
        "pip",
        "pip-cache",
        "privileged",
        "repeat",
        "rerun",
        "result",
        "retry",
        "script-from",
        "script-from-privileged",
        "skip",
        "targets",
        "volumes",
        "warm",
        "watch",
    ];
    assert_eq!(found, tested.map(str::to_owned).into());
    let table = fs::read_to_string(folder().join("README.md")).unwrap();
    for sample in tested {
        assert!(table.contains(&format!("[{sample}]({sample}.yaml)")), "{sample} is not in the table");
    }
}

#[tokio::test]
async fn hello_is_answered_by_each_node() {
    in_given_namespace("default", async |stage| {
        let hello = apply(&stage.client, "hello.yaml", |_| {}).await;
        let object = hello.until_complete().await;
        assert_whole(&stage, &object);
        assert_eq!(status(&object).output_group_count, 1, "the nodes agree");
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        for node in stage.cluster.node_names() {
            let answer = &newest(&object, &node).stdout;
            let start = format!("kernel {}, Python 3.", kernel.trim());
            assert!(answer.starts_with(&start) && answer.ends_with('\n'), "{answer:?}");
        }
        assert_eq!(
            columns(&stage.client, "default", "hello").await,
            [
                "Name=hello",
                "Mode=Normal",
                "Desired=3",
                "Active=0",
                "OK=3",
                "Failed=0",
                "Skipped=0",
                "Groups=1",
                "Progress=3/3"
            ]
        );
        hello.delete().await;
    })
    .await;
}

/// The columns that kubectl shows, but for the age.
async fn columns(client: &Client, namespace: &str, name: &str) -> Vec<String> {
    let path = format!("/apis/scriptrunner.io/v1alpha1/namespaces/{namespace}/scriptrunners/{name}");
    let request = http::Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    let names = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let pairs = names.iter().zip(cells).filter(|(column, _)| column["name"] != "Age");
    pairs
        .map(|(column, cell)| {
            let text = cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
            format!("{}={text}", column["name"].as_str().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn bash_gets_arguments_and_environment_as_they_are() {
    in_given_namespace("default", async |stage| {
        let bash = apply(&stage.client, "bash.yaml", |_| {}).await;
        let object = bash.until_complete().await;
        assert_whole(&stage, &object);
        let answer = &newest(&object, &stage.node(1)).stdout;
        let said = "2 arguments, the last is 'two words'\nit's $HOME, unexpanded\n";
        assert!(answer.starts_with("ID=") && answer.ends_with(said), "{answer:?}");
        let groups = &status(&object).output_groups;
        assert_eq!((groups.len(), groups[0].node_count, groups[0].exit_code), (1, 3, Some(0)));
        assert!(groups[0].nodes.ends_with("node[1-3]"), "{}", groups[0].nodes);
        bash.delete().await;
    })
    .await;
}

#[tokio::test]
async fn pip_installs_before_the_script_runs() {
    in_given_namespace("default", async |stage| {
        let module = "def naturalsize(size, binary=False):\n    return f'{size} bytes, {binary}'\n";
        let index = PythonIndex::start(&stage.cluster, "humanize", module).await;
        let pip =
            apply(&stage.client, "pip.yaml", |object| object["spec"]["env"] = index.environment()).await;
        let object = pip.until_complete().await;
        assert_whole(&stage, &object);
        let answer = &newest(&object, &stage.node(1)).stdout;
        assert!(
            answer.starts_with("this node has ") && answer.ends_with(" bytes, True of memory\n"),
            "{answer:?}"
        );
        pip.delete().await;
    })
    .await;
}

#[tokio::test]
async fn repeat_keeps_the_last_answers() {
    in_given_namespace("default", async |stage| {
        let repeat = apply(&stage.client, "repeat.yaml", |_| {}).await;
        let object = repeat.until_complete().await;
        assert_whole(&stage, &object);
        for node in stage.cluster.node_names() {
            let entry = entry(&object, &node);
            assert_eq!((entry.executions, entry.failures), (5, 0));
            let serials: Vec<u64> = entry.history.iter().map(|execution| execution.serial).collect();
            assert_eq!(serials, [3, 4, 5]);
            for execution in &entry.history {
                let start = format!("execution {}: load ", execution.serial);
                assert!(execution.stdout.starts_with(&start), "{:?}", execution.stdout);
            }
            let times: Vec<i64> = entry
                .history
                .iter()
                .map(|execution| execution.start_time.as_ref().unwrap().0.as_second())
                .collect();
            assert!(times[2] - times[0] >= 3, "two seconds apart: {times:?}");
        }
        repeat.delete().await;
    })
    .await;
}

#[tokio::test]
async fn node_selector_waits_for_a_node_and_leaves_out_the_others() {
    in_given_namespace("default", async |stage| {
        let (node, nodes) = (stage.node(2), Api::<Node>::all(stage.client.clone()));
        let label = async |node: &str, value: Value| {
            let patch = json!({"metadata": {"labels": {"disk": value}}});
            nodes.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        };
        for node in stage.cluster.node_names() {
            label(&node, Value::Null).await;
        }
        let selector = apply(&stage.client, "node-selector.yaml", |_| {}).await;
        let waits =
            |object: &ScriptRunner| says(object, ConditionType::Progressing, "True", "NoMatchingNodes");
        let object = selector.until("NoMatchingNodes", waits).await;
        assert_eq!(status(&object).desired, 0);
        assert!(!message(&object, ConditionType::Progressing).is_empty());
        label(&node, "ssd".into()).await;
        let object = selector.until_complete().await;
        label(&node, Value::Null).await;
        assert_eq!(status(&object).desired, 1);
        assert_eq!(status(&object).nodes.keys().collect::<Vec<_>>(), [&node]);
        assert!(newest(&object, &node).stdout.ends_with(" % free\n"));
        // The node that matches no more keeps its answer.
        let object = selector.get().await;
        assert_eq!(entry(&object, &node).state, "Succeeded");
        selector.delete().await;
    })
    .await;
}

#[tokio::test]
async fn privileged_reads_what_only_root_may() {
    in_given_namespace("scriptrunner-samples", async |stage| {
        let privileged = apply(&stage.client, "privileged.yaml", |_| {}).await;
        let object = privileged.until_complete().await;
        assert_whole(&stage, &object);
        let answer = &newest(&object, &stage.node(1)).stdout;
        assert!(answer.starts_with("uid 0, oldest kernel message: "), "{answer:?}");
        privileged.delete().await;
    })
    .await;
}

#[tokio::test]
async fn host_file_system_is_that_of_the_node() {
    in_given_namespace("scriptrunner-samples", async |stage| {
        let files = stage.cluster.node_names().into_iter().map(|node| {
            let file = stage.cluster.node_etc(&node).unwrap().join("scriptrunner-sample");
            (node, file)
        });
        let files: Vec<_> = files.collect();
        for (_, file) in &files {
            let _ = fs::remove_file(file);
        }
        let host = apply(&stage.client, "host-file-system.yaml", |_| {}).await;
        let object = host.until_complete().await;
        assert_whole(&stage, &object);
        for (node, file) in &files {
            assert_eq!(newest(&object, node).stdout, format!("{node}\nwritten by run 1\n"));
            assert_eq!(fs::read_to_string(file).unwrap(), "written by run 1\n");
        }
        assert!(!PathBuf::from("/etc/scriptrunner-sample").exists(), "the machine is not a node");
        host.delete().await;
    })
    .await;
}

#[tokio::test]
async fn careful_is_answered_by_each_node() {
    in_given_namespace("default", async |stage| {
        let careful = apply(&stage.client, "careful.yaml", |_| {}).await;
        let object = careful.until_complete().await;
        assert_whole(&stage, &object);
        careful.delete().await;
    })
    .await;
}

#[tokio::test]
async fn failing_tells_exit_code_and_last_words() {
    in_given_namespace("default", async |stage| {
        let failing = apply(&stage.client, "failing.yaml", |_| {}).await;
        let object = failing.until_failed().await;
        let status = status(&object);
        assert_eq!((status.desired, status.failed, status.succeeded), (3, 3, 0));
        assert!(says(&object, ConditionType::Failed, "True", "NodesFailed"));
        assert!(says(&object, ConditionType::Complete, "False", "NodesFailed"));
        for node in stage.cluster.node_names() {
            let entry = entry(&object, &node);
            assert_eq!((entry.state.as_str(), entry.reason.as_str()), ("Failed", "ScriptFailed"));
            assert_eq!((entry.exit_code, entry.failures), (Some(3), 1));
            let newest = newest(&object, &node);
            assert_eq!(newest.stdout, "the last words before the end\n");
            assert_eq!(newest.stderr, "disk /dev/sdb is missing\n");
        }
        assert_eq!((status.output_group_count, status.output_groups[0].exit_code), (1, Some(3)));
        failing.delete().await;
    })
    .await;
}

#[tokio::test]
async fn pausable_goes_on_where_it_was_paused() {
    in_given_namespace("default", async |stage| {
        let pausable = apply(&stage.client, "pausable.yaml", |_| {}).await;
        let has_begun = |object: &ScriptRunner| {
            let Some(status) = &object.status else { return false };
            status.connected == 3 && status.nodes.values().all(|entry| !entry.history.is_empty())
        };
        pausable.until("an answer of each node", has_begun).await;
        pausable.edit(json!({"spec": {"execution": "Paused"}})).await;
        let is_paused =
            |object: &ScriptRunner| object.status.as_ref().is_some_and(|status| status.pending == 3);
        let object = pausable.until("three paused nodes", is_paused).await;
        assert!(says(&object, ConditionType::Suspended, "True", "Paused"));
        pausable.edit(json!({"spec": {"execution": "Active"}})).await;
        let before = status(&object).nodes.clone();
        let goes_on = |object: &ScriptRunner| {
            let Some(status) = &object.status else { return false };
            status.nodes.iter().all(|(node, entry)| entry.serial > before[node].serial)
        };
        pausable.until("further executions on each node", goes_on).await;
        pausable.delete().await;
    })
    .await;
}

#[tokio::test]
async fn targets_are_half_of_the_nodes() {
    in_given_namespace("default", async |stage| {
        let targets = apply(&stage.client, "targets.yaml", |_| {}).await;
        let object = targets.until_complete().await;
        let status = status(&object);
        assert_eq!((status.desired, status.succeeded, status.nodes.len()), (2, 2, 2));
        for node in status.nodes.keys() {
            assert_eq!(newest(&object, node).stdout, format!("drawn: {node}\n"));
        }
        targets.delete().await;
    })
    .await;
}

#[tokio::test]
async fn script_from_runs_what_the_config_map_holds() {
    in_given_namespace("default", async |stage| {
        let shared = apply(&stage.client, "script-from.yaml", |_| {}).await;
        let object = shared.until_complete().await;
        assert_whole(&stage, &object);
        for node in stage.cluster.node_names() {
            let answer = &newest(&object, &node).stdout;
            assert!(answer.starts_with("run 1: up for ") && answer.ends_with(" seconds\n"), "{answer:?}");
        }
        shared.delete().await;
    })
    .await;
}

#[tokio::test]
async fn watch_is_answered_while_it_runs() {
    in_given_namespace("default", async |stage| {
        let watch = apply(&stage.client, "watch.yaml", |_| {}).await;
        let object = watch
            .until("an answer of each node, and all connected", |object| {
                let Some(status) = &object.status else { return false };
                status.connected == 3 && status.nodes.values().all(|entry| entry.exit_code.is_some())
            })
            .await;
        assert_eq!((status(&object).active, status(&object).progress.as_str()), (3, "0/3"));
        for node in stage.cluster.node_names() {
            assert!(
                newest(&object, &node).stdout.starts_with("memory free: "),
                "{:?}",
                entry(&object, &node)
            );
        }
        watch.delete().await;
    })
    .await;
}

#[tokio::test]
async fn warm_runs_an_edit_in_the_pods_that_stayed() {
    in_given_namespace("default", async |stage| {
        let warm = apply(&stage.client, "warm.yaml", |_| {}).await;
        let object = warm.until_complete().await;
        assert_whole(&stage, &object);
        warm.edit(json!({"spec": {"args": ["/tmp"]}})).await;
        let object = warm.until_complete().await;
        assert_eq!((run_number(&object), status(&object).succeeded), (2, 3));
        for node in stage.cluster.node_names() {
            let outputs: Vec<_> = entry(&object, &node).history.iter().map(|it| it.stdout.as_str()).collect();
            assert!(outputs[0].starts_with("/ has ") && outputs[1].starts_with("/tmp has "), "{outputs:?}");
            assert!(outputs.iter().all(|output| output.ends_with(" GiB\n")), "{outputs:?}");
        }
        warm.delete().await;
    })
    .await;
}
