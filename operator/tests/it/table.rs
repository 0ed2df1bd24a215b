//! Who may do what with which mode in which way of writing: the whole table, asked of the real API server once per cell.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use scriptrunner_api::{
    labels,
    v1alpha1::{Mode, ScriptRunner},
};
use scriptrunner_testcluster::{Error, bindings, namespace::in_namespace};
use serde_json::{Value, json};

use crate::{
    children::{self, Owner},
    cluster::{acting_as, acting_as_operator, admin},
    people::{
        Answer::{self, No, Yes},
        ask, dry_create, dry_patch, people, script_runner,
    },
};

const MODES: [&str; 3] = ["Normal", "Privileged", "PrivilegedWithHostFS"];

/// Who may use which mode; whatever else they may do.
const RIGHTS: [(&str, &[&str]); 6] = [
    ("author", &["Normal"]),
    ("editor", &["Normal"]),
    ("owner", &["Normal"]),
    ("holder", &["Normal", "Privileged"]),
    ("keeper", &["Normal", "Privileged"]),
    ("neighbour", &["Normal", "PrivilegedWithHostFS"]),
];

/// What is said to who may not write a mode.
fn entering(mode: &str) -> Answer {
    match mode {
        "Privileged" => {
            No("denied request: scriptrunner-spec: mode Privileged needs verb use on executionmodes")
        }
        _ => No(
            "denied request: scriptrunner-spec: mode PrivilegedWithHostFS needs verb use on executionmodes",
        ),
    }
}

/// What is said to who may not edit a spec that has a mode.
fn leaving(mode: &str) -> Answer {
    match mode {
        "Privileged" => {
            No("denied request: scriptrunner-spec: leaving mode Privileged needs verb use on executionmodes")
        }
        _ => No(
            "denied request: scriptrunner-spec: leaving mode PrivilegedWithHostFS needs verb use on executionmodes",
        ),
    }
}

/// The cells of one person that are not as they should be.
struct Cells<'a> {
    who: &'a str,
    modes: &'a [&'a str],
    api: Api<ScriptRunner>,
    inputs: Api<ConfigMap>,
    asked: usize,
    wrong: Vec<String>,
}

impl Cells<'_> {
    fn may(&self, mode: &str) -> bool {
        self.modes.contains(&mode)
    }

    fn note<T>(&mut self, what: &str, expected: Answer, answer: &kube::Result<T>) {
        self.asked += 1;
        if !expected.is(answer) {
            let answer = answer.as_ref().map(drop);
            self.wrong.push(format!("{} {what}: should be {expected:?}, is {answer:?}", self.who));
        }
    }

    /// Every way to make an object with a mode.
    async fn creations(&mut self, mode: &str) {
        let expected = if self.may(mode) { Yes } else { entering(mode) };
        let object = script_runner("new", mode, &json!([]));
        let mut unnamed = object.clone();
        (unnamed.metadata.name, unnamed.metadata.generate_name) = (None, Some(format!("{}-", self.who)));
        let answer = self.api.create(&PostParams::default(), &unnamed).await;
        self.note(&format!("creates {mode} without a name"), expected, &answer);
        let answer = self.api.create(&dry_create(), &object).await;
        self.note(&format!("creates {mode} as a dry run"), expected, &answer);
        let mut real = object.clone();
        real.metadata.name = Some(format!("{}-{}", self.who, mode.to_lowercase()));
        let answer = self.api.create(&PostParams::default(), &real).await;
        self.note(&format!("creates {mode}"), expected, &answer);
        let apply = PatchParams { dry_run: true, ..PatchParams::apply("somebody").force() };
        let answer = self.api.patch("new", &apply, &Patch::Apply(&object)).await;
        self.note(&format!("creates {mode} by server-side apply"), expected, &answer);
    }

    /// Every way to change an object that has a mode.
    async fn edits(&mut self, mode: &str) {
        let expected = if self.may(mode) { Yes } else { entering(mode) };
        let name = mode.to_lowercase();
        for spec in [
            json!({"script": "false"}),
            json!({"nodeNames": ["another"]}),
            json!({"nodeNames": null, "nodeLabelSelector": {"matchLabels": {"a": "b"}}}),
            json!({"parallelism": 2}),
            json!({"rerun": {"at": "2026-01-01T00:00:00Z"}}),
            json!({"historyLimit": 7}),
        ] {
            self.merge(mode, &json!({"spec": spec}), expected).await;
        }
        let real = Patch::Merge(json!({"spec": {"args": [self.who]}}));
        let answer = self.api.patch(&name, &PatchParams::default(), &real).await;
        self.note(&format!("edits {mode}, not as a dry run"), expected, &answer);
        let operations = json!([{"op": "replace", "path": "/spec/script", "value": "false"}]);
        let patch = Patch::Json::<()>(serde_json::from_value(operations).unwrap());
        let answer = self.api.patch(&name, &dry_patch(), &patch).await;
        self.note(&format!("edits {mode} by JSON patch"), expected, &answer);

        let mut edited = script_runner(&name, mode, &json!([]));
        edited.spec.script = Some("false".to_owned());
        let apply = PatchParams { dry_run: true, ..PatchParams::apply("somebody").force() };
        let answer = self.api.patch(&name, &apply, &Patch::Apply(&edited)).await;
        self.note(&format!("edits {mode} by server-side apply"), expected, &answer);
        let answer = self.replace(&name, |object| object.spec.script = Some("false".to_owned())).await;
        self.note(&format!("replaces {mode}"), expected, &answer);

        // What is not the spec is not judged, and neither is a deletion.
        let labels = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}, "finalizers": ["example.org/a"]}});
        self.merge(mode, &labels, Yes).await;
        let answer =
            self.replace(&name, |object| drop(object.labels_mut().insert("a".into(), "b".into()))).await;
        self.note(&format!("replaces {mode} with a label"), Yes, &answer);
        let delete = DeleteParams { dry_run: true, ..DeleteParams::default() };
        let answer = self.api.delete(&name, &delete).await;
        self.note(&format!("deletes {mode}"), Yes, &answer);
    }

    /// What is the operator's, whatever the mode.
    async fn of_the_operator(&mut self, mode: &str) {
        let name = mode.to_lowercase();
        let all_rights = ["owner", "keeper"].contains(&self.who);
        let expected = if all_rights {
            No("denied request: scriptrunner-status: only the operator writes the status")
        } else {
            No("cannot patch resource \"scriptrunners/status\"")
        };
        let status = Patch::Merge(json!({"status": {"succeeded": 9}}));
        let answer = self.api.patch_status(&name, &dry_patch(), &status).await;
        self.note(&format!("writes the status of {mode}"), expected, &answer);

        let has_config_maps = all_rights || self.who == "editor";
        let ours = No("denied request: scriptrunner-configmaps: names srs-*");
        let expected = if has_config_maps { ours } else { No("cannot patch resource \"configmaps\"") };
        let unmark = Patch::Merge(json!({"metadata": {"labels": {labels::UID: null}}}));
        let answer = self.inputs.patch(&format!("srs-{name}"), &dry_patch(), &unmark).await;
        self.note(&format!("edits the ConfigMap that {mode} runs"), expected, &answer);
        let expected = if has_config_maps { ours } else { No("cannot create resource \"configmaps\"") };
        let nobody = Owner { name: "nobody".to_owned(), uid: "x".to_owned() };
        let forged = children::config_map("srs-new", Mode::Normal, &nobody);
        let answer = self.inputs.create(&dry_create(), &serde_json::from_value(forged).unwrap()).await;
        self.note(&format!("makes a ConfigMap for {mode} to run"), expected, &answer);
    }

    /// Every change from one mode to another.
    async fn moves(&mut self, mode: &str) {
        for target in MODES.into_iter().filter(|target| *target != mode) {
            let expected = match (self.may(target), self.may(mode)) {
                (true, true) => Yes,
                (false, _) => entering(target),
                (true, false) => leaving(mode),
            };
            self.merge(mode, &json!({"spec": {"mode": target}}), expected).await;
        }
        // Without a mode it is Normal.
        let expected = if self.may(mode) { Yes } else { leaving(mode) };
        self.merge(mode, &json!({"spec": {"mode": null}}), expected).await;
    }

    async fn merge(&mut self, mode: &str, patch: &Value, expected: Answer) {
        let answer = self.api.patch(&mode.to_lowercase(), &dry_patch(), &Patch::Merge(patch)).await;
        self.note(&format!("edits {mode} with {patch}"), expected, &answer);
    }

    /// An operator that runs beside the tests may write the status in between.
    async fn replace(&self, name: &str, change: impl Fn(&mut ScriptRunner)) -> kube::Result<ScriptRunner> {
        loop {
            let mut object = self.api.get(name).await?;
            change(&mut object);
            match self.api.replace(name, &dry_create(), &object).await {
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                answer => return answer,
            }
        }
    }
}

/// Waits until the API server knows what the person may do.
async fn await_rights(client: &Client, namespace: &str, who: &str, modes: &[&str]) {
    let api: Api<ScriptRunner> = Api::namespaced(client.clone(), namespace);
    for mode in modes {
        let object = script_runner("new", mode, &json!([]));
        ask(&format!("{who} creates {mode}"), Yes, async || {
            api.create(&dry_create(), &object).await.map(drop)
        })
        .await;
    }
}

#[tokio::test]
async fn each_cell_is_as_the_table_says() {
    let _whole = bindings::whole().await;
    let client = admin().await;
    let asked = in_namespace(&client, "table", &[], async |namespace| {
        people(&client, &namespace).await;
        let all: Api<ScriptRunner> = Api::namespaced(client.clone(), &namespace);
        let inputs: Api<ConfigMap> = Api::namespaced(acting_as_operator().await, &namespace);
        for mode in Mode::ALL {
            let name = mode.as_str().to_lowercase();
            let object = script_runner(&name, mode.as_str(), &json!([]));
            let made = all.create(&PostParams::default(), &object).await.unwrap();
            let input = children::config_map(&format!("srs-{name}"), mode, &Owner::of(&made));
            inputs.create(&PostParams::default(), &serde_json::from_value(input).unwrap()).await.unwrap();
        }
        let (mut asked, mut wrong) = (0, Vec::new());
        for (who, modes) in RIGHTS {
            let client = acting_as(&format!("{who}@{namespace}"), &[]).await;
            await_rights(&client, &namespace, who, modes).await;
            let (api, inputs) =
                (Api::namespaced(client.clone(), &namespace), Api::namespaced(client, &namespace));
            let mut cells = Cells { who, modes, api, inputs, asked: 0, wrong: Vec::new() };
            for mode in MODES {
                cells.creations(mode).await;
                cells.edits(mode).await;
                cells.moves(mode).await;
                cells.of_the_operator(mode).await;
            }
            asked += cells.asked;
            wrong.extend(cells.wrong);
        }
        assert!(wrong.is_empty(), "{} of {asked}:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(asked, RIGHTS.len() * MODES.len() * 23);
        Ok::<_, Error>(())
    });
    // Boxed: it is large.
    Box::pin(asked).await.unwrap();
}

#[tokio::test]
async fn the_stock_role_edit_does_not_write_script_runners() {
    let client = admin().await;
    in_namespace(&client, "clerk", &[], async |namespace| {
        people(&client, &namespace).await;
        let clerk = acting_as(&format!("clerk@{namespace}"), &[]).await;
        // Until the role is known everything is refused, which is not what is asked here.
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(clerk.clone(), &namespace);
        ask("the clerk reads Secrets", Yes, async || secrets.list(&ListParams::default()).await.map(drop))
            .await;
        let api: Api<ScriptRunner> = Api::namespaced(clerk, &namespace);
        let refused = No("cannot create resource \"scriptrunners\"");
        let answer = api.create(&dry_create(), &script_runner("new", "Normal", &json!([]))).await;
        assert!(refused.is(&answer), "{answer:?}");
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}
