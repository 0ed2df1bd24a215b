//! What is installed before a script runs: from indexes and archives that the tests serve themselves.

use scriptrunner_api::{condition::ConditionType, labels};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    answer::{entry, message, newest, says, state},
    claim,
    package_archive::{PackageArchive, let_apt_get_read},
    python_index::PythonIndex,
    stage::beside_others,
};

const MODULE: &str = "def word():\n    return 'installed'\n";

#[tokio::test]
async fn an_index_of_the_users_own_is_used_and_its_password_hidden() {
    beside_others("dependencies::index", &[], async |stage| {
        let node = stage.some_node();
        let index = PythonIndex::start(&stage.cluster, "srtestpackage", MODULE).await;
        let spec = json!({"nodeNames": [node], "env": index.trust(),
            "dependencies": {"pip": ["srtestpackage"], "indexURL": index.url_with("user:secret-word")},
            "script": "import srtestpackage; print(srtestpackage.word())"});
        let object = stage.submit("subject", spec).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "installed\n");
        let spec = json!({"nodeNames": [node], "env": index.trust(),
            "dependencies": {"pip": ["srnosuchpackage"], "indexURL": index.url_with("user:secret-word")}, "script": "print(1)"});
        let object = stage.submit("missing", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "DependencyInstallFailed"));
        let told = &entry(&object, &node).message;
        assert!(told.contains("srnosuchpackage") && !told.contains("secret-word"), "{told}");
        assert_eq!(entry(&object, &node).executions, 0, "the script is not run");
    })
    .await;
}

#[tokio::test]
async fn an_index_is_trusted_by_the_authority_that_the_spec_names() {
    beside_others("dependencies::tls", &[], async |stage| {
        let node = stage.some_node();
        let (index, authority) =
            PythonIndex::start_with_tls(&stage.cluster, "srtestpackage", MODULE).await;
        let is_source = json!({labels::SOURCE: labels::SOURCE_TRUE});
        let metadata = json!({"name": "authorities", "labels": is_source});
        stage.create_config_map(json!({"metadata": metadata, "data": {"ca.pem": authority}})).await;
        let spec = |trusted: Value| {
            let mut spec = json!({"nodeNames": [node],
                "env": [{"name": "NO_PROXY", "value": "*"}, {"name": "UV_HTTP_RETRIES", "value": "0"}],
                "dependencies": {"pip": ["srtestpackage"], "indexURL": index.url()},
                "script": "import os, srtestpackage; print(srtestpackage.word(), os.environ.get('SSL_CERT_FILE'))"});
            spec["dependencies"]["trustedCA"] = trusted;
            spec
        };
        let object = stage.submit("untrusted", spec(Value::Null)).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "DependencyInstallFailed"));
        let named = json!({"configMapKeyRef": {"name": "authorities", "key": "ca.pem"}});
        let object = stage.submit("trusted", spec(named.clone())).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "installed None\n");
        let mut pinned = named;
        pinned["sha256"] = "0".repeat(64).into();
        let subject = stage.submit("pinned", spec(pinned)).await;
        let is_told = |object: &_| says(object, ConditionType::Accepted, "False", "InputChanged");
        let object = subject.until("InputChanged", is_told).await;
        assert!(message(&object, ConditionType::Accepted).contains("dependencies.trustedCA"));
    })
    .await;
}

#[tokio::test]
async fn a_cache_in_a_volume_serves_the_pods_that_come_later() {
    beside_others("dependencies::cache", &[], async |stage| {
        let node = stage.some_node();
        let index = PythonIndex::start(&stage.cluster, "srtestpackage", MODULE).await;
        claim::create(&stage, "cache").await;
        let spec = |more: Value| {
            let mut env = index.trust();
            let wanted = [json!({"name": "UV_CACHE_DIR", "value": "/cache/uv"}), more];
            env.as_array_mut().unwrap().extend(wanted);
            json!({"nodeNames": [node], "env": env, "runAs": "Root",
                "podTemplate": {"volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}],
                    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]},
                "dependencies": {"pip": ["srtestpackage"], "indexURL": index.url()},
                "script": "import srtestpackage; print(srtestpackage.word())"})
        };
        // Where nothing is kept, nothing can be installed without the index.
        let offline = json!({"name": "UV_OFFLINE", "value": "1"});
        let object = stage.submit("empty", spec(offline.clone())).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "DependencyInstallFailed"));
        stage.submit("first", spec(json!({"name": "A", "value": "1"}))).await.until_complete().await;
        let object = stage.submit("later", spec(offline)).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "installed\n");
    })
    .await;
}

#[tokio::test]
async fn inline_metadata_that_cannot_be_met_is_told_and_nothing_runs() {
    beside_others("dependencies::inline", &[], async |stage| {
        let node = stage.some_node();
        let block = |lines: &str| format!("# /// script\n{lines}# ///\nprint('ran')\n");
        let old = block("# requires-python = \"<3\"\n# dependencies = []\n");
        let twice = format!("{0}{0}", block("# dependencies = []\n"));
        for (name, script) in [("old", old), ("twice", twice)] {
            let spec = json!({"nodeNames": [node], "script": script});
            let object = stage.submit(name, spec).await.until_failed().await;
            assert_eq!(state(&object, &node), ("Failed", "DependencyInstallFailed"), "{name}");
            assert_eq!(entry(&object, &node).executions, 0, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn installing_ends_in_time() {
    beside_others("dependencies::timeout", &[], async |stage| {
        let node = stage.some_node();
        // An index that takes connections and never answers.
        let silent = TcpListener::bind((stage.cluster.gateway(), 0)).await.unwrap();
        let url = format!("http://{}/simple/", silent.local_addr().unwrap());
        let spec = json!({"nodeNames": [node], "script": "print(1)", "env": [{"name": "NO_PROXY", "value": "*"}],
            "dependencies": {"pip": ["six"], "indexURL": url, "installTimeoutSeconds": 3}});
        let object = stage.submit("subject", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "DependencyInstallFailed"));
        let told = &entry(&object, &node).message;
        assert!(told.contains("3 s"), "{told}");
    })
    .await;
}

#[tokio::test]
async fn packages_of_the_operating_system_are_installed_with_apt_get() {
    beside_others("dependencies::apt", &[], async |stage| {
        let node = stage.some_node();
        let archive = PackageArchive::debian(&stage.cluster).await;
        stage.create_config_map(json!({"metadata": {"name": "apt"}, "data": archive.settings_for_apt_get()})).await;
        let mut spec = json!({"nodeNames": [node], "runAs": "Root", "interpreter": ["sh"], "script": "sr-test-program",
            "dependencies": {"packages": ["sr-test-package"]}});
        let_apt_get_read("apt", &mut spec);
        let object = stage.submit("subject", spec.clone()).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "from a package\n");
        spec["dependencies"]["packages"] = json!(["sr-no-such-package"]);
        let object = stage.submit("missing", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "DependencyInstallFailed"));
        let told = &entry(&object, &node).message;
        assert!(told.contains("sr-no-such-package"), "{told}");
        assert_eq!(entry(&object, &node).executions, 0, "the script is not run");
    })
    .await;
}
