//! ConfigMaps that users let ScriptRunners name: of each key, what can be used of it. A text that is longer than any input may be
//! is not kept, nor are bytes that are no text: a ConfigMap may have a megabyte.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use k8s_openapi::{
    NamespaceResourceScope, api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt, runtime::watcher::Event};
use scriptrunner_api::v1alpha1::MAX_TRUSTED_CA_BYTES;
use scriptrunner_core::validate::Source;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, Visitor},
};

use super::{Sink, TakeIn, Trigger, slim::MetadataPart};

/// A ConfigMap of a user's.
#[derive(Clone, Debug)]
pub(super) struct Labelled {
    metadata: ObjectMeta,
    /// What stands under each key.
    pub(super) keys: BTreeMap<String, Source>,
}

impl<'de> Deserialize<'de> for Labelled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Part { metadata, data, binary_data } = Part::deserialize(deserializer)?;
        let texts = data.unwrap_or_default().into_iter().map(|(key, TextPart(source))| (key, source));
        let bytes = binary_data.unwrap_or_default().into_keys().map(|key| (key, Source::Binary));
        Ok(Self { metadata: metadata.into(), keys: texts.chain(bytes).collect() })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::zero_sized_map_values, reason = "the values are skipped while they are read")]
struct Part {
    #[serde(default)]
    metadata: MetadataPart,
    data: Option<BTreeMap<String, TextPart>>,
    binary_data: Option<BTreeMap<String, IgnoredAny>>,
}

struct TextPart(Source);

impl<'de> Deserialize<'de> for TextPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = TextPart;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TextPart, E> {
        let is_kept = text.len() <= MAX_TRUSTED_CA_BYTES;
        Ok(TextPart(if is_kept { Source::Text(text.into()) } else { Source::TooLong(text.len()) }))
    }
}

impl Resource for Labelled {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        ConfigMap::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        ConfigMap::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        ConfigMap::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        ConfigMap::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Takes them in; a change triggers whatever names the ConfigMap.
pub(super) struct LabelledEvents;

impl TakeIn<Labelled> for LabelledEvents {
    fn take_in(&mut self, event: Event<Labelled>, sink: &Sink) {
        let trigger = |(namespace, name): (String, String)| sink.trigger(Trigger::Source { namespace, name });
        match event {
            Event::Init => sink.world.sources().list_begins(),
            Event::InitApply(config_map) | Event::Apply(config_map) => {
                let place = place(&config_map);
                if sink.world.sources().put(place.clone(), config_map.keys) {
                    trigger(place);
                }
            }
            Event::Delete(config_map) => {
                let place = place(&config_map);
                if sink.world.sources().remove(&place) {
                    trigger(place);
                }
            }
            Event::InitDone => {
                let gone = sink.world.sources().list_ends();
                gone.into_iter().for_each(trigger);
            }
        }
    }
}

/// Namespace and name.
fn place(config_map: &Labelled) -> (String, String) {
    (config_map.namespace().unwrap_or_default(), config_map.name_any())
}

#[cfg(test)]
mod tests;
