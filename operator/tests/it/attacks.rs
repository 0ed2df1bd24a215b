//! What people with rights in a namespace try: each attempt works while the rule against it leaves the namespace out, and is
//! refused by that rule afterwards. Where several rules stand against it, each of them refuses alone.

mod place;

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use scriptrunner_api::{
    labels::{self, PRIVILEGED, PRIVILEGED_ALLOWED},
    session::AUDIENCE,
    v1alpha1::{Mode, ScriptRunner},
};
use scriptrunner_operator::{
    manifests::NAMESPACE,
    policies::{
        CONFIG_MAPS, EXEC, NAMESPACE_LABEL, OPERATOR_REQUESTS, POD_BINDING, POD_OUTCOME, PODS,
        PRIVILEGED_NAMESPACE, SPEC, STATUS, TOKENS,
        requested_by::{ANNOTATION, REQUESTED_BY, REQUESTED_BY_NEEDED},
    },
    proof::RECORD_NAME,
};
use scriptrunner_testcluster::{bindings::Binding, wait};
use serde_json::{Value, json};

use self::place::{Attempt, Place, place, refused_by};
use crate::{
    children,
    cluster::{acting_as, admin, send},
    people::{Answer::Yes, PATIENCE, ask, script_runner},
};

/// A pod of an editor, of which nothing runs.
fn ordinary(name: &str, change: &Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "schedulingGates": [{"name": "testcluster/never"}], "containers": [{"name": "c", "image": "none.invalid/x"}]}});
    json_patch::merge(&mut pod, change);
    pod
}

fn privileged_namespace() -> [(&'static str, &'static str); 2] {
    [(PRIVILEGED, PRIVILEGED_ALLOWED), ("pod-security.kubernetes.io/enforce", "privileged")]
}

fn with_env(env: &Value) -> Value {
    serde_json::to_value(script_runner("new", "Normal", env)).unwrap()
}

#[tokio::test]
async fn nobody_else_runs_pods_where_privileged_ones_are_admitted() {
    place("attack-pods", &privileged_namespace(), async |place| {
        let container = json!([{"name": "c", "image": "x", "securityContext": {"privileged": true}}]);
        let pod = ordinary("own", &json!({"spec": {"containers": container}}));
        let attempts = ["editor", "owner", "keeper"]
            .map(|who| Attempt::create(who, "runs a privileged pod", &place.core("pods"), pod.clone()));
        place.is_stopped_by(&[PRIVILEGED_NAMESPACE], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn owners_do_not_admit_privileged_pods_themselves() {
    place("attack-label", &[], async |place| {
        let label = json!({"metadata": {"labels": {PRIVILEGED: PRIVILEGED_ALLOWED}}});
        let path = format!("/api/v1/namespaces/{}", place.namespace);
        let attempts = [
            Attempt::edit("owner", "labels the namespace", &path, label.clone()),
            Attempt::edit("owner", "labels it through its status", &format!("{path}/status"), label),
        ];
        place.is_stopped_by(&[NAMESPACE_LABEL], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn privileged_runners_are_not_edited() {
    place("attack-edit", &privileged_namespace(), async |place| {
        place.make("pods", &children::pod("srp-1", Mode::Privileged, &place.owner)).await;
        let image = json!({"spec": {"containers": [{"name": "runner", "image": "other.invalid/x"}]}});
        let extra = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "x"}]}});
        let attempts = [
            Attempt::edit("editor", "sets an image", &place.core("pods/srp-1"), image).merge_lists(),
            Attempt::edit("owner", "adds a container", &place.core("pods/srp-1/ephemeralcontainers"), extra)
                .merge_lists(),
        ];
        place.is_stopped_by(&[PODS, PRIVILEGED_NAMESPACE], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn privileged_runners_are_not_entered() {
    place("attack-enter", &privileged_namespace(), async |place| {
        place.make("pods", &children::pod("srp-1", Mode::Privileged, &place.owner)).await;
        let into = |rest: &str| place.core(&format!("pods/{rest}"));
        let attempts = [
            Attempt::enter("editor", "runs a command", into("srp-1/exec?command=id&stdout=true")),
            Attempt::enter("editor", "attaches", into("srp-1/attach?stdout=true")),
            Attempt::enter("editor", "forwards a port", into("srp-1/portforward?ports=80")),
            Attempt::enter("editor", "goes by proxy", into("srp-1/proxy/")),
            Attempt::enter("editor", "goes by proxy with TLS", into("https:srp-1:443/proxy/")),
            Attempt::enter("owner", "runs a command", into("srp-1/exec?command=id&stdout=true")),
        ];
        place.is_stopped_by(&[EXEC], &attempts).await;
        let holder = [Attempt::enter("keeper", "runs a command", into("srp-1/exec?command=id&stdout=true"))];
        place.expect(&holder, "with the right to the mode", Yes).await;
    })
    .await;
}

#[tokio::test]
async fn inputs_of_runs_are_not_changed_or_forged() {
    place("attack-inputs", &[], async |place| {
        let ours = children::config_map("srs-1", Mode::Normal, &place.owner);
        place.make("configmaps", &ours).await;
        let mut forged = ours.clone();
        forged["metadata"]["name"] = "srs-2".into();
        let own = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        let owners = &ours["metadata"]["ownerReferences"];
        let attempts = [
            Attempt::create("editor", "makes an input first", &place.core("configmaps"), forged),
            Attempt::create(
                "editor",
                "takes a name",
                &place.core("configmaps"),
                own(json!({"name": "srs-3"})),
            ),
            Attempt::create(
                "editor",
                "takes a label",
                &place.core("configmaps"),
                own(json!({"name": "a", "labels": {labels::UID: place.owner.uid}})),
            ),
            Attempt::create(
                "editor",
                "takes an owner",
                &place.core("configmaps"),
                own(json!({"name": "a", "ownerReferences": owners})),
            ),
            Attempt::edit(
                "editor",
                "strips a label",
                &place.core("configmaps/srs-1"),
                json!({"metadata": {"labels": {labels::UID: null}}}),
            ),
        ];
        place.is_stopped_by(&[CONFIG_MAPS], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn a_script_reads_nothing_that_its_author_may_not_mount() {
    place("attack-borrow", &[], async |place| {
        let from = |source: &str| json!([{"name": "A", "valueFrom": {source: {"name": "x", "key": "k"}}}]);
        let with = |what: &'static str, part: Value| {
            let mut object = with_env(&json!([]));
            json_patch::merge(&mut object["spec"], &part);
            Attempt::create("author", what, &place.objects(""), object)
        };
        let volume = |kind: Value| json!({"podTemplate": {"volumes": [kind]}});
        let key = json!({"configMapKeyRef": {"name": "x", "key": "k"}});
        let attempts = [
            with("takes all of a Secret", json!({"envFrom": [{"secretRef": {"name": "x"}}]})),
            with("takes a script", json!({"script": null, "scriptFrom": key})),
            with("takes an authority", json!({"dependencies": {"trustedCA": key}})),
            with("pulls with a Secret", json!({"imagePullSecrets": [{"name": "x"}]})),
            with("mounts a Secret", volume(json!({"name": "v", "secret": {"secretName": "x"}}))),
            with("mounts a claim", volume(json!({"name": "v", "persistentVolumeClaim": {"claimName": "x"}}))),
            Attempt::create("author", "reads a Secret", &place.objects(""), with_env(&from("secretKeyRef"))),
            Attempt::create(
                "author",
                "reads a ConfigMap",
                &place.objects(""),
                with_env(&from("configMapKeyRef")),
            ),
        ];
        place.is_stopped_by(&[SPEC], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn pods_of_others_are_not_evicted_or_stood_in_for() {
    place("attack-dress", &[], async |place| {
        let with = |who: &'static str, what: &'static str, template: Value| {
            let mut object = with_env(&json!([]));
            object["spec"]["podTemplate"] = template;
            Attempt::create(who, what, &place.objects(""), object)
        };
        let priority = json!({"priorityClassName": "system-node-critical"});
        let attempts = [
            with("author", "evicts pods of others", priority.clone()),
            with("holder", "evicts pods of others", priority.clone()),
            with("author", "joins a Service", json!({"labels": {"app": "other"}})),
            with("author", "asks a controller", json!({"annotations": {"example.org/a": "b"}})),
            with("author", "takes another runtime", json!({"runtimeClassName": "other"})),
        ];
        place.is_stopped_by(&[SPEC], &attempts).await;
        let editor = [with("editor", "gives a priority", priority)];
        place.expect(&editor, "with the right to create pods", Yes).await;
    })
    .await;
}

#[tokio::test]
async fn wildcards_and_grants_of_ones_own_give_no_mode() {
    place("attack-grant", &[], async |place| {
        // What gives it to him in his namespace, as far as RBAC knows.
        let rbac = "rbac.authorization.k8s.io";
        let path = |plural: &str| format!("/apis/{rbac}/v1/namespaces/{}/{plural}", place.namespace);
        let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": "own"},
            "rules": [{"apiGroups": ["access.scriptrunner.io"], "resources": ["executionmodes"], "verbs": ["use"]}]});
        let owner = format!("owner@{}", place.namespace);
        let grant = json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": "own"},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "own"}, "subjects": [{"kind": "User", "name": owner}]});
        let client = acting_as(&owner, &[]).await;
        for (plural, object) in [("roles", role), ("rolebindings", grant)] {
            let path = path(plural);
            ask(&format!("the owner makes {plural}"), Yes, async || {
                send(&client, Method::POST, &path, "application/json", &object).await.map(drop)
            })
            .await;
        }
        let object = serde_json::to_value(script_runner("new", "Privileged", &json!([]))).unwrap();
        let attempts = ["author", "editor", "owner"]
            .map(|who| Attempt::create(who, "takes a mode", &place.objects(""), object.clone()));
        place.is_stopped_by(&[SPEC], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_but_a_kubelet_has_the_token_of_a_runner() {
    place("attack-token", &[], async |place| {
        let pod = place.make("pods", &children::pod("srn-1", Mode::Normal, &place.owner)).await;
        let bound =
            json!({"kind": "Pod", "apiVersion": "v1", "name": "srn-1", "uid": pod["metadata"]["uid"]});
        let request = |audiences: &[&str]| {
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "spec": {"audiences": audiences, "expirationSeconds": 600, "boundObjectRef": bound}})
        };
        let path = place.core("serviceaccounts/default/token");
        let attempts = [
            Attempt::create("editor", "mints the token of a runner", &path, request(&[AUDIENCE])),
            Attempt::create("owner", "mints one for two", &path, request(&["other", AUDIENCE])),
        ];
        place.is_stopped_by(&[TOKENS], &attempts).await;
        let other = [Attempt::create("editor", "mints another token", &path, request(&["other"]))];
        place.expect(&other, "with the rule", Yes).await;
    })
    .await;
}

#[tokio::test]
async fn no_pod_is_made_to_look_like_a_runner() {
    place("attack-forge", &[], async |place| {
        let pods = place.core("pods");
        let ours = children::pod("srn-1", Mode::Normal, &place.owner);
        let owned = json!({"metadata": {"ownerReferences": ours["metadata"]["ownerReferences"]}});
        let labelled = json!({"metadata": {"labels": {labels::UID: place.owner.uid}}});
        let audience = json!({"spec": {"volumes": ours["spec"]["volumes"]}});
        let attempts = [
            Attempt::create("editor", "copies a runner", &pods, ours.clone()),
            Attempt::create("editor", "takes a name", &pods, ordinary("srp-1", &json!({}))),
            Attempt::create("editor", "takes an owner", &pods, ordinary("a", &owned)),
            Attempt::create("editor", "takes a label", &pods, ordinary("a", &labelled)),
            Attempt::create("owner", "mounts a token", &pods, ordinary("a", &audience)),
        ];
        place.is_stopped_by(&[PODS], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn the_marks_of_a_runner_stay() {
    place("attack-strip", &[], async |place| {
        place.make("pods", &children::pod("srn-1", Mode::Normal, &place.owner)).await;
        let pod = place.core("pods/srn-1");
        let of = |metadata: Value| json!({"metadata": metadata});
        let unmarked = of(json!({"labels": {labels::UID: null}}));
        let attempts = [
            Attempt::edit("editor", "strips a label", &pod, unmarked.clone()),
            Attempt::edit("owner", "strips it through the status", &format!("{pod}/status"), unmarked),
            Attempt::edit("editor", "changes a label", &pod, of(json!({"labels": {labels::RUN: "9"}}))),
            Attempt::edit("editor", "strips a note", &pod, of(json!({"annotations": {labels::NAME: null}}))),
            Attempt::edit("editor", "strips the owner", &pod, of(json!({"ownerReferences": null}))),
            Attempt::edit(
                "editor",
                "keeps it from ending",
                &pod,
                of(json!({"finalizers": ["example.org/a"]})),
            ),
        ];
        place.is_stopped_by(&[PODS], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn a_binding_leaves_the_marks_of_a_runner() {
    place("attack-bind", &[], async |place| {
        // One that no scheduler looks after; a gate would refuse every binding.
        let mut pod = children::pod("srn-1", Mode::Normal, &place.owner);
        let unbound = json!({"spec": {"schedulingGates": null, "schedulerName": "testcluster-never"}});
        json_patch::merge(&mut pod, &unbound);
        place.make("pods", &pod).await;
        let with = |what: &'static str, path: &str, metadata: Value| {
            let mut binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "srn-1"},
                "target": {"name": "nobody"}});
            json_patch::merge(&mut binding["metadata"], &metadata);
            Attempt::create("owner", what, &place.core(path), binding)
        };
        let (label, note) =
            (json!({"labels": {labels::UID: "x"}}), json!({"annotations": {labels::NODE: "other"}}));
        let attempts = [
            with("changes a label", "pods/srn-1/binding", label.clone()),
            with("changes a note", "pods/srn-1/binding", note.clone()),
            with("changes a label in the older way", "bindings", label),
            with("changes a note in the older way", "bindings", note),
        ];
        place.is_stopped_by(&[POD_BINDING], &attempts).await;
        let plain = [
            with("binds as a scheduler does", "pods/srn-1/binding", json!({})),
            with("binds in the older way", "bindings", json!({})),
        ];
        place.expect(&plain, "with the rule", Yes).await;
    })
    .await;
}

#[tokio::test]
async fn only_the_kubelet_says_how_a_runner_ended() {
    place("attack-outcome", &[], async |place| {
        place.make("pods", &children::pod("srn-1", Mode::Normal, &place.owner)).await;
        let ended = json!({"status": {"containerStatuses": [{"name": "runner", "image": "x", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0, "message": "forged"}}}]}});
        let waits = json!({"status": {"initContainerStatuses": [{"name": "copy-runner", "image": "x", "imageID": "",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 1, "message": "forged"}}}]}});
        let path = place.core("pods/srn-1/status");
        let attempts = [
            Attempt::edit("owner", "writes a result", &path, ended),
            Attempt::edit("owner", "writes why it cannot start", &path, waits),
            Attempt::edit("owner", "calls it failed", &path, json!({"status": {"phase": "Failed"}})),
            Attempt::edit("owner", "calls it evicted", &path, json!({"status": {"reason": "Evicted"}})),
        ];
        place.is_stopped_by(&[POD_OUTCOME], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_but_the_operator_writes_a_status() {
    place("attack-status", &[], async |place| {
        let forged = json!({"status": {"succeeded": 9}});
        let attempts = ["owner", "admin"].map(|who| {
            Attempt::edit(who, "forges a status", &place.objects("/owner/status"), forged.clone())
        });
        place.is_stopped_by(&[STATUS], &attempts).await;
    })
    .await;
}

/// The operator's account is an owner of the namespace here, so RBAC refuses nothing of this.
#[tokio::test]
async fn the_operators_account_makes_nothing_but_its_children() {
    place("attack-operator", &[], async |place| {
        let stranger: Pod = serde_json::from_value(ordinary("stranger", &json!({}))).unwrap();
        let pods = Api::<Pod>::namespaced(place.client.clone(), &place.namespace);
        pods.create(&PostParams::default(), &stranger).await.unwrap();
        let (path, owner) = (place.core("pods"), &place.owner);
        let changed = |mode: Mode, name: &str, change: Value| {
            let mut pod = children::pod(name, mode, owner);
            json_patch::merge(&mut pod, &change);
            pod
        };
        let pod = |what: &'static str, change: Value| {
            Attempt::create("operator", what, &path, changed(Mode::Normal, "srn-1", change))
        };
        let container = |context: Value| json!({"spec": {"containers": [{"name": "c", "image": "x", "securityContext": context}]}});
        let volume = |volume: Value| json!({"spec": {"volumes": [volume]}});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "any"}});
        let attempts = [
            pod("shares the node's processes", json!({"spec": {"hostPID": true}})),
            pod("shares the node's network", json!({"spec": {"hostNetwork": true}})),
            pod("makes a Normal pod privileged", container(json!({"privileged": true}))),
            pod("adds a capability", container(json!({"capabilities": {"add": ["SYS_ADMIN"]}}))),
            pod("leaves out seccomp", json!({"spec": {"securityContext": {"seccompProfile": null}}})),
            pod(
                "has the runner copied with privilege",
                json!({"spec": {"initContainers": [{"name": "i", "image": "x", "securityContext": {"privileged": true}}]}}),
            ),
            pod("mounts the node's files", volume(json!({"name": "a", "hostPath": {"path": "/"}}))),
            pod(
                "mounts a token of the API",
                volume(json!({"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
            ),
            pod("takes the account's token", json!({"spec": {"automountServiceAccountToken": true}})),
            pod("makes a pod without an owner", json!({"metadata": {"ownerReferences": null}})),
            pod("makes a pod of another owner", json!({"metadata": {"labels": {labels::UID: "other"}}})),
            pod("makes a pod with another name", json!({"metadata": {"name": "other"}})),
            pod("makes a pod with another mode", json!({"metadata": {"labels": {labels::MODE: "Privileged"}}})),
            Attempt::create(
                "operator",
                "makes a privileged pod where none is admitted",
                &path,
                changed(Mode::Privileged, "srp-1", json!({})),
            ),
            Attempt::create(
                "operator",
                "makes a ConfigMap without an owner",
                &place.core("configmaps"),
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "any"}}),
            ),
            Attempt::create("operator", "makes a Secret", &place.core("secrets"), secret),
            Attempt::delete("operator", "deletes a stranger", &place.core("pods/stranger")),
            Attempt::edit(
                "operator",
                "edits a stranger",
                &place.core("pods/stranger"),
                json!({"metadata": {"labels": {"a": "b"}}}),
            ),
            Attempt::enter("operator", "enters a stranger", place.core("pods/stranger/exec?command=id&stdout=true")),
        ];
        place.is_stopped_by(&[OPERATOR_REQUESTS], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn no_child_is_made_in_a_system_namespace() {
    place("attack-system", &[], async |place| {
        let child = children::config_map("srs-1", Mode::Normal, &place.owner);
        for namespace in ["kube-system", NAMESPACE] {
            let path = format!("/api/v1/namespaces/{namespace}/configmaps");
            let attempts = [Attempt::create("operator", "reaches a system namespace", &path, child.clone())];
            place.is_stopped_in(namespace, &[OPERATOR_REQUESTS], &attempts).await;
        }
        let record = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": RECORD_NAME}});
        let attempts = [Attempt::create(
            "operator",
            "keeps its record in a system namespace",
            "/api/v1/namespaces/kube-system/configmaps",
            record,
        )];
        place.is_stopped_in("kube-system", &[OPERATOR_REQUESTS], &attempts).await;
    })
    .await;
}

#[tokio::test]
async fn no_script_runner_is_beside_the_operators_key() {
    place("attack-own", &[], async |place| {
        let path = format!("/apis/scriptrunner.io/v1alpha1/namespaces/{NAMESPACE}/scriptrunners");
        let attempts = [Attempt::create("admin", "runs beside the operator", &path, with_env(&json!([])))];
        place.is_stopped_in(NAMESPACE, &[SPEC], &attempts).await;
    })
    .await;
}

/// The stamp of an object that is made with a false one, as a dry run.
async fn false_stamp(place: &Place) -> kube::Result<String> {
    let client = acting_as(&format!("author@{}", place.namespace), &[]).await;
    let mut object = script_runner("new", "Normal", &json!([]));
    object.annotations_mut().insert(ANNOTATION.to_owned(), "boss".to_owned());
    let api = Api::<ScriptRunner>::namespaced(client, &place.namespace);
    let made = api.create(&PostParams { dry_run: true, ..Default::default() }, &object).await?;
    Ok(made.annotations()[ANNOTATION].clone())
}

async fn until_stamped(place: &Place, expected: &str) {
    wait::until(&format!("the stamp {expected:?}"), PATIENCE, async |seen| {
        let answer = false_stamp(place).await;
        seen.note(format!("{answer:?}"));
        Ok::<_, kube::Error>(answer.is_ok_and(|stamp| stamp == expected).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stamp_of_who_asked_is_true() {
    let policies = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
    let client = admin().await;
    let path = format!("{policies}/{REQUESTED_BY}");
    // An optional part, which clusters below Kubernetes 1.36 do not have.
    let is_helped = send(&client, Method::GET, &path, "application/json", &Value::Null).await.is_ok();
    place("attack-stamp", &[], async |place| {
        let helper: Vec<_> = is_helped.then_some(Binding::Mutating(REQUESTED_BY)).into_iter().collect();
        let both: Vec<_> = helper.iter().copied().chain([Binding::Validating(REQUESTED_BY)]).collect();
        let open = place.rules.without(&place.client, &both, &place.namespace, async || {
            until_stamped(place, "boss").await;
        });
        open.await.unwrap();
        let judged = place.rules.without(&place.client, &helper, &place.namespace, async || {
            let refused = refused_by(REQUESTED_BY);
            ask("the author stamps falsely", refused, async || false_stamp(place).await.map(drop)).await;
            if is_helped {
                a_privileged_spec_has_a_stamp(place).await;
            }
        });
        judged.await.unwrap();
        if is_helped {
            until_stamped(place, &format!("author@{}", place.namespace)).await;
        } else {
            println!("skipped: this cluster has no mutating policy {REQUESTED_BY}");
        }
    })
    .await;
}

async fn a_privileged_spec_has_a_stamp(place: &Place) {
    let holder = acting_as(&format!("holder@{}", place.namespace), &[]).await;
    let api = Api::<ScriptRunner>::namespaced(holder, &place.namespace);
    let unstamped =
        Patch::Merge(json!({"spec": {"script": "false"}, "metadata": {"annotations": {ANNOTATION: null}}}));
    let params = PatchParams { dry_run: true, ..Default::default() };
    ask("the holder leaves it out", refused_by(REQUESTED_BY_NEEDED), async || {
        api.patch("owner", &params, &unstamped).await.map(drop)
    })
    .await;
}
