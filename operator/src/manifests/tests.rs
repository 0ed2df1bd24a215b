//! The generated files are those of the code, and say what the code means.

use std::{collections::BTreeSet, fs};

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        rbac::v1::{ClusterRole, Role},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::{Serialize, de::DeserializeOwned};

use super::*;

fn read_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(object: &T) {
    let text = yaml::document(object);
    assert_eq!(&serde_saphyr::from_str::<T>(&text).unwrap(), object, "{text}");
}

#[test]
fn files_of_the_repository_are_up_to_date() {
    for File { path, contents } in files() {
        ensure_file(&Path::new(ROOT).join(path), &contents, true).unwrap();
    }
}

#[test]
fn generated_folders_hold_nothing_else() {
    let generated: BTreeSet<PathBuf> = files().into_iter().map(|file| file.path).collect();
    let within = ["deploy/optional", "deploy/namespaced"];
    for folder in ["crds", "deploy"].into_iter().chain(within) {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let path = Path::new(folder).join(entry.unwrap().file_name());
            if within.iter().any(|folder| path == Path::new(folder)) {
                continue;
            }
            assert!(generated.contains(&path), "{path:?} is not generated; remove it");
        }
    }
}

#[test]
fn objects_read_back_as_they_were() {
    for crd in scriptrunner_api::all_crds() {
        read_back::<CustomResourceDefinition>(&crd);
    }
    policies::policies().iter().for_each(read_back);
    policies::bindings().iter().for_each(read_back);
    policies::requested_by::mutating().iter().for_each(read_back);
    read_back(&namespace());
    read_back::<Deployment>(&deployment::deployment());
    read_back(&service());
}

#[test]
fn definitions_keep_all_but_unknown_formats_and_nulls() {
    for crd in scriptrunner_api::all_crds() {
        let before = yaml::document(&crd);
        let after = yaml::document(&formats::known_to_kubernetes(&crd));
        let is_dropped =
            |line: &str| line.trim().starts_with("format: uint") || line.trim() == "nullable: true";
        let kept: Vec<_> = before.lines().filter(|line| !is_dropped(line)).collect();
        assert!(kept.len() < before.lines().count());
        assert_eq!(after.lines().collect::<Vec<_>>(), kept);
    }
}

#[test]
fn roles_read_back_as_their_rules() {
    let cluster: ClusterRole =
        serde_saphyr::from_str(&yaml::role("ClusterRole", OPERATOR, None, rbac::CLUSTER)).unwrap();
    let expected: Vec<_> = rbac::CLUSTER.iter().map(rbac::Rule::policy_rule).collect();
    assert_eq!(cluster.rules, Some(expected));
    assert_eq!(cluster.metadata, named(false));

    let own: Role =
        serde_saphyr::from_str(&yaml::role("Role", OPERATOR, Some(NAMESPACE), rbac::OWN_NAMESPACE)).unwrap();
    let expected: Vec<_> = rbac::OWN_NAMESPACE.iter().map(rbac::Rule::policy_rule).collect();
    assert_eq!(own.rules, Some(expected));
    assert_eq!(own.metadata, named(true));
}

#[test]
fn roles_to_hand_out_read_back_as_their_rules() {
    for (role, document) in roles::ROLES.iter().zip(role_documents()) {
        let found: ClusterRole = serde_saphyr::from_str(&document).unwrap();
        let expected: Vec<_> = role.rules.iter().map(rbac::Rule::policy_rule).collect();
        assert_eq!(found.rules, Some(expected));
        assert_eq!((found.metadata.name.as_deref(), found.aggregation_rule), (Some(role.name), None));
        assert_eq!(found.metadata.labels, None, "an aggregation would be a label");
    }
}

#[test]
fn rights_of_an_operator_for_some_namespaces_read_back() {
    let namespaced = |file: &str| {
        let path = Path::new("deploy/namespaced").join(file);
        files().into_iter().find(|file| file.path == path).unwrap().contents
    };
    let part = |text: &str, number: usize| text.split("---\n").nth(number).unwrap().to_owned();
    let rules = |rules: Vec<rbac::Rule>| Some(rules.iter().map(rbac::Rule::policy_rule).collect::<Vec<_>>());
    let (cluster, each) = (namespaced("10-rbac.yaml"), namespaced("each-namespace.yaml"));
    let role: ClusterRole = serde_saphyr::from_str(&part(&cluster, 1)).unwrap();
    assert_eq!((role.rules, role.metadata), (rules(rbac::in_no_namespace()), named(false)));
    let role: Role = serde_saphyr::from_str(&part(&cluster, 3)).unwrap();
    assert_eq!((role.rules, role.metadata), (rules(rbac::in_own_namespace()), named(true)));
    let role: Role = serde_saphyr::from_str(&part(&each, 0)).unwrap();
    assert_eq!((role.rules, role.metadata), (rules(rbac::in_each_namespace()), named(false)));
    let binding: RoleBinding = serde_saphyr::from_str(&part(&each, 1)).unwrap();
    assert_eq!((binding.metadata, binding.role_ref), (named(false), role_ref("Role")));
    assert_eq!(binding.subjects, Some(vec![subject()]));
}

#[test]
fn service_leads_to_the_port_of_the_pod() {
    let pod = deployment::deployment().spec.unwrap().template;
    let service = service().spec.unwrap();
    let ports = pod.spec.unwrap().containers[0].ports.clone().unwrap();
    let target = service.ports.unwrap()[0].target_port.clone().unwrap();
    assert!(ports.iter().any(|port| port.name.clone().map(IntOrString::String) == Some(target.clone())));
    assert_eq!(service.selector, pod.metadata.unwrap().labels);
}

#[test]
fn every_rule_stands_below_its_reason() {
    let text = yaml::role("ClusterRole", OPERATOR, None, rbac::CLUSTER);
    let comments = text.lines().filter(|line| line.starts_with('#')).collect::<Vec<_>>().join(" ");
    let words = comments.replace('#', "").split_whitespace().collect::<Vec<_>>().join(" ");
    for rule in rbac::CLUSTER {
        assert!(words.contains(rule.why), "{:?}", rule.why);
    }
    assert!(text.lines().all(|line| line.len() <= 118));
}

#[test]
fn check_refuses_a_difference_and_names_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deploy/file.yaml");
    assert!(matches!(ensure_file(&path, "new", true), Err(Error::Read { .. })));
    ensure_file(&path, "old", false).unwrap();
    let stale = ensure_file(&path, "new", true).unwrap_err();
    assert!(matches!(stale, Error::Stale { .. }));
    assert!(stale.to_string().contains(GENERATE));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    ensure_file(&path, "new", false).unwrap();
    ensure_file(&path, "new", true).unwrap();
}

#[test]
fn the_operator_is_nobody_and_has_nothing_to_write_to() {
    let text = fs::read_to_string(Path::new(ROOT).join("deploy/30-operator.yaml")).unwrap();
    let deployment: Deployment = serde_saphyr::from_str(&text).unwrap();
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let shared = [pod.host_network, pod.host_pid, pod.host_ipc, pod.share_process_namespace];
    assert!(shared.iter().all(|shared| *shared != Some(true)));
    assert_eq!((pod.volumes, pod.init_containers, pod.ephemeral_containers), (None, None, None));
    assert_eq!(
        pod.priority_class_name.as_deref(),
        Some("system-cluster-critical"),
        "so that pods of users do not evict it"
    );
    let context = pod.security_context.unwrap();
    assert_eq!(context.run_as_non_root, Some(true));
    assert!(context.run_as_user > Some(0) && context.run_as_group > Some(0));
    assert_eq!(context.seccomp_profile.unwrap().type_, "RuntimeDefault");
    for container in &pod.containers {
        let context = container.security_context.clone().unwrap();
        assert_eq!(context.read_only_root_filesystem, Some(true));
        assert_eq!(context.allow_privilege_escalation, Some(false));
        assert_eq!(context.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
        assert_eq!((context.privileged, context.run_as_user, context.run_as_non_root), (None, None, None));
        assert_eq!(container.volume_mounts, None);
    }
    let image = fs::read_to_string(Path::new(ROOT).join("Dockerfile.operator")).unwrap();
    assert!(image.contains("\nFROM scratch\n") && image.contains("\nUSER 65532:65532\n"), "{image}");
}
