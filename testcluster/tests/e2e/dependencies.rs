//! What is installed before a script runs: from indexes and archives that the tests serve themselves.

use std::{fs, path::Path, process::Command};

use axum::{
    Router,
    http::{StatusCode, Uri},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use scriptrunner_api::{condition::ConditionType, labels};
use scriptrunner_testcluster::Cluster;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    answer::{entry, message, newest, says, state},
    python_index::PythonIndex,
    stage::{Stage, beside_others},
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
        let config_map = json!({"metadata": {"name": "authorities", "labels": {labels::SOURCE: labels::SOURCE_TRUE}},
            "data": {"ca.pem": authority}});
        let api = stage.api::<ConfigMap>();
        api.create(&PostParams::default(), &serde_json::from_value(config_map).unwrap()).await.unwrap();
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
        let archive = Archive::start(&stage.cluster).await;
        archive.describe(&stage).await;
        let spec = json!({"nodeNames": [node], "runAs": "Root", "interpreter": ["sh"], "script": "sr-test-program",
            "env": [{"name": "APT_CONFIG", "value": "/srv/apt/apt.conf"}, {"name": "NO_PROXY", "value": "*"}],
            "podTemplate": {"volumes": [{"name": "apt", "configMap": {"name": "apt"}}],
                "volumeMounts": [{"name": "apt", "mountPath": "/srv/apt", "readOnly": true}]},
            "dependencies": {"packages": ["sr-test-package"]}});
        let object = stage.submit("subject", spec.clone()).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "from a package\n");
        let mut spec = spec;
        spec["dependencies"]["packages"] = json!(["sr-no-such-package"]);
        let object = stage.submit("missing", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "DependencyInstallFailed"));
        let told = &entry(&object, &node).message;
        assert!(told.contains("sr-no-such-package"), "{told}");
        assert_eq!(entry(&object, &node).executions, 0, "the script is not run");
    })
    .await;
}

/// A Debian archive with one package that is made here.
struct Archive {
    url: String,
    task: JoinHandle<()>,
}

impl Archive {
    async fn start(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let package = make_package(folder.path());
        let size = package.len();
        let digest = scriptrunner_api::digest::sha256_hex(&package);
        let index = format!(
            "Package: sr-test-package\nVersion: 1.0\nArchitecture: all\nMaintainer: test <test@localhost>\nFilename: ./package.deb\nSize: {size}\nSHA256: {digest}\nDescription: test\n"
        );
        // apt-get asks for `/./Packages`.
        let answer = async move |uri: Uri| match uri.path().rsplit('/').next() {
            Some("Packages") => Ok(index.into_bytes()),
            Some("package.deb") => Ok(package),
            Some(_) | None => Err(StatusCode::NOT_FOUND),
        };
        let routes = Router::new().fallback(answer);
        let listener = TcpListener::bind((cluster.gateway(), 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, task }
    }

    /// What makes apt-get use this archive and no other.
    async fn describe(&self, stage: &Stage) {
        let config_map: Value = json!({"metadata": {"name": "apt"}, "data": {
            "sources.list": format!("deb [trusted=yes] {} ./\n", self.url),
            "apt.conf": "Dir::Etc::SourceList \"/srv/apt/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n"}});
        let api = stage.api::<ConfigMap>();
        api.create(&PostParams::default(), &serde_json::from_value(config_map).unwrap()).await.unwrap();
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn make_package(folder: &Path) -> Vec<u8> {
    let root = folder.join("root");
    fs::create_dir_all(root.join("DEBIAN")).unwrap();
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    let control = "Package: sr-test-package\nVersion: 1.0\nArchitecture: all\nMaintainer: test <test@localhost>\nDescription: test\n";
    fs::write(root.join("DEBIAN/control"), control).unwrap();
    let program = root.join("usr/bin/sr-test-program");
    fs::write(&program, "#!/bin/sh\necho from a package\n").unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success());
    run(Command::new("chmod").arg("755").arg(&program));
    let file = folder.join("package.deb");
    run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&root).arg(&file));
    fs::read(file).unwrap()
}
