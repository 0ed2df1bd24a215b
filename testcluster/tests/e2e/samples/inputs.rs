//! Samples about what a script is given: packages, an image, an environment, an index, a text that is pinned by its digest.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::DeleteParams;
use scriptrunner_api::digest::sha256_hex;
use serde_json::json;

use super::{apply, apply_all, assert_whole, documents};
use crate::{
    answer::{newest, state, status},
    claim, images,
    package_archive::{PackageArchive, let_apt_get_read},
    python_index::PythonIndex,
    stage::{beside_others, in_given_namespace},
};

/// A module with the one function of `humanize` that samples call.
const HUMANIZE: &str = "def naturalsize(size):\n    return f'{size} bytes'\n";

#[tokio::test]
async fn packages_are_installed_before_the_script_runs() {
    in_given_namespace("default", async |stage| {
        let archive = PackageArchive::debian_with(&stage.cluster, "pciutils", "lspci").await;
        stage.put_config_map("e2e-apt-packages", archive.settings_for_apt_get()).await;
        let packages = apply(&stage.client, "packages.yaml", |object| {
            let_apt_get_read("e2e-apt-packages", &mut object["spec"]);
        })
        .await;
        let object = packages.until_complete().await;
        assert_whole(&stage, &object);
        assert_eq!(newest(&object, &stage.node(1)).stdout, "from a package\n");
        packages.delete().await;
    })
    .await;
}

#[tokio::test]
async fn image_has_nothing_but_the_interpreter() {
    in_given_namespace("default", async |stage| {
        let busybox = images::busybox(&stage.cluster).await;
        let image =
            apply(&stage.client, "image.yaml", |object| object["spec"]["image"] = busybox.into()).await;
        let object = image.until_complete().await;
        assert_whole(&stage, &object);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let said = format!("kernel {}, user 65532\n", kernel.trim());
        assert_eq!(newest(&object, &stage.node(1)).stdout, said);
        image.delete().await;
    })
    .await;
}

#[tokio::test]
async fn environment_comes_from_a_config_map_and_a_secret() {
    in_given_namespace("default", async |stage| {
        let environment = apply(&stage.client, "environment.yaml", |_| {}).await;
        let object = environment.until_complete().await;
        assert_whole(&stage, &object);
        let said = "https://inventory.example.com, 5 s, a password of 9 characters\n";
        assert_eq!(newest(&object, &stage.node(1)).stdout, said);
        environment.delete().await;
        let params = DeleteParams::default();
        stage.api::<ConfigMap>().delete("inventory", &params).await.unwrap();
        stage.api::<Secret>().delete("inventory", &params).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn own_index_is_trusted_by_its_authority() {
    in_given_namespace("default", async |stage| {
        let (index, authority) = PythonIndex::start_with_tls(&stage.cluster, "humanize", HUMANIZE).await;
        let own = apply_all(&stage.client, "own-index.yaml", |documents| {
            let [authorities, object] = documents else { panic!("{documents:?}") };
            let example = authorities["data"]["ca.pem"].as_str().unwrap();
            assert!(example.starts_with("-----BEGIN CERTIFICATE-----\n"), "{example}");
            authorities["data"]["ca.pem"] = authority.into();
            object["spec"]["dependencies"]["indexURL"] = index.url().into();
            object["spec"]["env"] = json!([{"name": "NO_PROXY", "value": "*"}]);
        })
        .await;
        let object = own.until_complete().await;
        assert_whole(&stage, &object);
        assert_eq!(newest(&object, &stage.node(1)).stdout, "1000000000 bytes\n");
        own.delete().await;
    })
    .await;
}

/// In a namespace of its own, because claim and volume go with it.
#[tokio::test]
async fn pip_cache_serves_pods_that_come_later() {
    beside_others("samples::pip_cache", &[], async |stage| {
        let mut documents = documents("pip-cache.yaml");
        let mut spec = documents.pop().unwrap()["spec"].take();
        let claimed = documents.pop().unwrap();
        assert_eq!(
            (&claimed["kind"], &claimed["spec"]["accessModes"]),
            (&json!("PersistentVolumeClaim"), &json!(["ReadWriteMany"]))
        );
        claim::create(&stage, claimed["metadata"]["name"].as_str().unwrap()).await;
        let index = PythonIndex::start(&stage.cluster, "humanize", HUMANIZE).await;
        let served = index.environment();
        spec["env"].as_array_mut().unwrap().extend(served.as_array().unwrap().iter().cloned());
        let object = stage.submit("first", spec.clone()).await.until_complete().await;
        assert_whole(&stage, &object);
        assert_eq!(newest(&object, &stage.node(1)).stdout, "1000000000 bytes\n");
        // The volume is a folder of each node, and each has what it needs.
        spec["env"].as_array_mut().unwrap().push(json!({"name": "UV_OFFLINE", "value": "1"}));
        let object = stage.submit("later", spec).await.until_complete().await;
        assert_eq!(status(&object).succeeded, 3);
        for node in stage.cluster.node_names() {
            assert_eq!(state(&object, &node).0, "Succeeded");
        }
    })
    .await;
}

#[tokio::test]
async fn script_from_privileged_runs_the_text_of_its_digest() {
    in_given_namespace("scriptrunner-samples", async |stage| {
        let pinned = apply(&stage.client, "script-from-privileged.yaml", |_| {}).await;
        let object = pinned.until_complete().await;
        assert_whole(&stage, &object);
        let capabilities =
            newest(&object, &stage.node(1)).stdout.trim_start_matches("CapEff:").trim().to_owned();
        assert!(u64::from_str_radix(&capabilities, 16).unwrap().count_ones() > 30, "{capabilities}");
        pinned.delete().await;
    })
    .await;
}

#[test]
fn script_from_privileged_states_the_digest_of_its_text() {
    let documents = documents("script-from-privileged.yaml");
    let [_, texts, object] = &documents[..] else { panic!("{documents:?}") };
    let from = &object["spec"]["scriptFrom"];
    let text = texts["data"][from["configMapKeyRef"]["key"].as_str().unwrap()].as_str().unwrap();
    assert_eq!(from["sha256"], sha256_hex(text.as_bytes()));
}
