//! A ScriptRunner as the API server shows it: readable or not, and cheap to share.
//!
//! One object that this operator cannot read must not keep it from the others, so reading it never fails. An object with
//! thousands of entries is large: it is decoded without a detour and never copied, whoever holds on to it.

use std::{borrow::Cow, sync::Arc};

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Resource,
    core::{PartialObjectMeta, error_boundary::InvalidObject},
    runtime::reflector::ObjectRef,
};
use scriptrunner_api::v1alpha1::ScriptRunner;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;

/// A ScriptRunner, or why it cannot be read.
#[derive(Clone, Debug)]
pub struct Guarded(pub Result<Arc<ScriptRunner>, Arc<InvalidObject>>);

/// Names a ScriptRunner for the controller.
pub type Reference = ObjectRef<Guarded>;

impl<'de> Deserialize<'de> for Guarded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match serde_json::from_str(text.get()) {
            Ok(object) => Ok(Self(Ok(Arc::new(object)))),
            Err(error) => {
                let PartialObjectMeta::<ScriptRunner> { metadata, .. } =
                    serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                Ok(Self(Err(Arc::new(InvalidObject { error: error.to_string(), metadata }))))
            }
        }
    }
}

impl Resource for Guarded {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        ScriptRunner::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        ScriptRunner::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        ScriptRunner::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        ScriptRunner::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => &object.metadata,
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => &mut Arc::make_mut(object).metadata,
            Err(unreadable) => &mut Arc::make_mut(unreadable).metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    use super::*;

    fn object(mode: &str) -> Value {
        json!({
            "apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunner",
            "metadata": {"name": mode, "namespace": "ns", "uid": "u", "resourceVersion": "7"},
            "spec": {"script": "true", "nodeLabelSelector": {}, "mode": mode},
        })
    }

    #[test]
    fn one_object_that_cannot_be_read_does_not_hide_the_others() {
        let list = json!({"apiVersion": "scriptrunner.io/v1alpha1", "kind": "ScriptRunnerList",
            "metadata": {"resourceVersion": "9"}, "items": [object("Normal"), object("elevated")]});
        let list: ObjectList<Guarded> = serde_json::from_str(&list.to_string()).unwrap();
        let names: Vec<_> = list.items.iter().map(|item| item.meta().name.as_deref()).collect();
        assert_eq!(names, [Some("Normal"), Some("elevated")]);
        assert_eq!(list.items[0].0.as_ref().unwrap().spec.script.as_deref(), Some("true"));
        let unreadable = list.items[1].0.as_ref().unwrap_err();
        assert!(unreadable.error.contains("elevated"), "{}", unreadable.error);
    }

    #[test]
    fn events_of_a_watch_are_read() {
        for mode in ["Normal", "elevated"] {
            let line = format!(r#"{{"type":"MODIFIED","object":{}}}"#, object(mode));
            let event: WatchEvent<Guarded> = serde_json::from_str(&line).unwrap();
            let WatchEvent::Modified(guarded) = event else { panic!("{line}") };
            assert_eq!(
                (guarded.0.is_ok(), guarded.meta().resource_version.as_deref()),
                (mode == "Normal", Some("7"))
            );
        }
    }

    #[test]
    fn what_is_shared_is_not_copied() {
        let guarded: Guarded = serde_json::from_str(&object("Normal").to_string()).unwrap();
        let again = guarded.clone();
        assert!(Arc::ptr_eq(guarded.0.as_ref().unwrap(), again.0.as_ref().unwrap()));
    }
}
