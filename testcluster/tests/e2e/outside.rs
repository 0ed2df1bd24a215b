//! What needs something that not every machine can reach. `./test.sh e2e` runs each by name where it is there, and names it as left
//! out where it is not.

use std::{env, fs};

use scriptrunner_api::labels;
use serde_json::{Value, json};

use crate::{
    answer::{entry, newest, state},
    package_archive::PackageArchive,
    stage::beside_others,
};

/// `tests/Dockerfile.dnf`.
const WITH_DNF: &str = "localhost/scriptrunner-test/dnf:1";

#[tokio::test]
#[ignore = "needs an image with dnf, which ./test.sh e2e builds where a Debian mirror answers"]
async fn packages_of_the_operating_system_are_installed_with_dnf() {
    beside_others("outside::dnf", &[], async |stage| {
        let node = stage.some_node();
        let archive = PackageArchive::rpm(&stage.cluster).await;
        stage
            .create_config_map(json!({"metadata": {"name": "dnf"}, "data": archive.settings_for_dnf()}))
            .await;
        let spec = |package: &str| {
            json!({"nodeNames": [node], "runAs": "Root", "interpreter": ["sh"], "image": WITH_DNF,
                "script": "sr-test-program",
                "podTemplate": {"volumes": [{"name": "dnf", "configMap": {"name": "dnf"}}],
                    "volumeMounts": [{"name": "dnf", "mountPath": "/etc/yum.repos.d", "readOnly": true}]},
                "dependencies": {"packages": [package]}})
        };
        let object = stage.submit("subject", spec("sr-test-package")).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "from a package\n");
        let object = stage.submit("missing", spec("sr-no-such-package")).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "DependencyInstallFailed"));
        let told = &entry(&object, &node).message;
        assert!(told.contains("sr-no-such-package"), "{told}");
        assert_eq!(entry(&object, &node).executions, 0, "the script is not run");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs the Python package index of the internet"]
async fn a_real_package_comes_from_the_real_index_through_the_trusted_authorities() {
    beside_others("outside::index", &[], async |stage| {
        let node = stage.some_node();
        // The machine's authorities, and that of a proxy that inspects TLS, if there is one.
        let file = env::var("SSL_CERT_FILE").unwrap_or_else(|_| "/etc/ssl/certs/ca-certificates.crt".into());
        let metadata = json!({"name": "authorities", "labels": {labels::SOURCE: labels::SOURCE_TRUE}});
        let data = json!({"ca.pem": fs::read_to_string(&file).unwrap()});
        stage.create_config_map(json!({"metadata": metadata, "data": data})).await;
        let proxies: Vec<Value> = ["HTTPS_PROXY", "https_proxy"]
            .into_iter()
            .filter_map(|name| Some(json!({"name": name, "value": env::var(name).ok()?})))
            .collect();
        let spec = json!({"nodeNames": [node], "env": proxies,
            "dependencies": {"pip": ["six==1.17.0"],
                "trustedCA": {"configMapKeyRef": {"name": "authorities", "key": "ca.pem"}}},
            "script": "import six; print(six.__version__)"});
        let object = stage.submit("subject", spec).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "1.17.0\n");
    })
    .await;
}
