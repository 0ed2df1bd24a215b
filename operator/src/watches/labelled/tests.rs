//! What is kept of users' ConfigMaps, and what is looked at when they change.

use kube::core::{ObjectList, WatchEvent};
use scriptrunner_api::v1alpha1::ScriptRunnerSpec;
use scriptrunner_core::validate::Sources;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

fn config_map(namespace: &str, name: &str, data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name, "resourceVersion": "7",
            "labels": {"scriptrunner.io/source": "true"}},
        "data": data})
}

fn labelled(namespace: &str, name: &str, data: &Value) -> Labelled {
    serde_json::from_str(&config_map(namespace, name, data).to_string()).unwrap()
}

#[test]
fn what_cannot_be_used_is_not_kept() {
    let most = "x".repeat(MAX_TRUSTED_CA_BYTES);
    let mut object =
        config_map("ns", "a", &json!({"text": "é\n", "most": most, "more": format!("{most}x"), "empty": ""}));
    object["binaryData"] = json!({"bytes": "AAEC"});
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "9"}, "items": [object]});
    let list: ObjectList<Labelled> = serde_json::from_str(&list.to_string()).unwrap();
    let line = format!("{{\"type\":\"ADDED\",\"object\":{object}}}");
    let WatchEvent::Added(added) = serde_json::from_str::<WatchEvent<Labelled>>(&line).unwrap() else {
        panic!("{line}")
    };
    for found in [&list.items[0], &added] {
        let expected = [
            ("bytes", Source::Binary),
            ("empty", Source::Text("".into())),
            ("more", Source::TooLong(MAX_TRUSTED_CA_BYTES + 1)),
            ("most", Source::Text(most.as_str().into())),
            ("text", Source::Text("é\n".into())),
        ];
        assert_eq!(found.keys, expected.map(|(key, source)| (key.to_owned(), source)).into());
        assert_eq!((found.name_any().as_str(), found.resource_version().as_deref()), ("a", Some("7")));
    }
    object.as_object_mut().unwrap().remove("data");
    object.as_object_mut().unwrap().remove("binaryData");
    assert!(serde_json::from_value::<Labelled>(object).unwrap().keys.is_empty());
}

fn spec(yaml: &str) -> ScriptRunnerSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn a_spec_finds_the_key_that_it_names_in_its_own_namespace() {
    let (triggers, _receiver) = mpsc::unbounded_channel();
    let sink = Sink { world: std::sync::Arc::default(), triggers, metrics: std::sync::Arc::default() };
    let mut events = LabelledEvents;
    events.take_in(Event::Apply(labelled("ns", "a", &json!({"k": "text"}))), &sink);
    events.take_in(Event::Apply(labelled("other", "b", &json!({"k": "text"}))), &sink);
    let script = |name: &str, key: &str| {
        let yaml = format!(
            "{{scriptFrom: {{configMapKeyRef: {{name: {name}, key: {key}}}}}, nodeLabelSelector: {{}}}}"
        );
        sink.world.sources().of("ns", &spec(&yaml)).script.unwrap()
    };
    assert_eq!(script("a", "k"), Source::Text("text".into()));
    assert_eq!(script("a", "other"), Source::NoKey);
    assert_eq!(script("b", "k"), Source::NoConfigMap, "it is of another namespace");
    assert_eq!(
        sink.world.sources().of("ns", &spec("{script: x, nodeLabelSelector: {}}")),
        Sources::default()
    );
    let ca = spec(
        "{script: x, nodeLabelSelector: {}, dependencies: {trustedCA: {configMapKeyRef: {name: a, key: k}}}}",
    );
    let found = Sources { script: None, trusted_ca: Some(Source::Text("text".into())) };
    assert_eq!(sink.world.sources().of("ns", &ca), found);
}

#[test]
fn what_a_change_triggers_is_named_once_and_nothing_is_missing_during_a_list() {
    let (triggers, mut receiver) = mpsc::unbounded_channel();
    let sink = Sink { world: std::sync::Arc::default(), triggers, metrics: std::sync::Arc::default() };
    let mut triggered = || {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|trigger| match trigger {
                Trigger::Source { namespace, name } => format!("{namespace}/{name}"),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    let mut events = LabelledEvents;
    let mut take = |event| events.take_in(event, &sink);
    let (one, two) = (json!({"k": "1"}), json!({"k": "2"}));
    take(Event::Init);
    take(Event::InitApply(labelled("ns", "a", &one)));
    take(Event::InitApply(labelled("ns", "b", &one)));
    take(Event::InitDone);
    assert_eq!(triggered(), ["ns/a", "ns/b"]);
    take(Event::Apply(labelled("ns", "a", &one)));
    assert_eq!(triggered(), [""; 0], "only its metadata changed");
    take(Event::Apply(labelled("ns", "a", &two)));
    assert_eq!(triggered(), ["ns/a"]);
    let key = spec("{scriptFrom: {configMapKeyRef: {name: b, key: k}}, nodeLabelSelector: {}}");
    take(Event::Init);
    assert_eq!(sink.world.sources().of("ns", &key).script, Some(Source::Text("1".into())));
    take(Event::InitApply(labelled("ns", "a", &two)));
    take(Event::InitDone);
    assert_eq!(triggered(), ["ns/b"], "what vanished while nobody watched");
    assert_eq!(sink.world.sources().of("ns", &key).script, Some(Source::NoConfigMap));
    take(Event::Delete(labelled("ns", "a", &two)));
    take(Event::Delete(labelled("ns", "a", &two)));
    assert_eq!(triggered(), ["ns/a"]);
}
