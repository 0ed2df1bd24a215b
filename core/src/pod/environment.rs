//! The environment of the script, as it stands in the pod. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMapEnvSource, ConfigMapKeySelector, EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector,
    ResourceFieldSelector, SecretEnvSource, SecretKeySelector,
};
use scriptrunner_api::v1alpha1;

pub(super) fn environment(variable: &v1alpha1::EnvVar) -> EnvVar {
    EnvVar {
        name: variable.name.clone(),
        // The API server drops an empty value, which means the same.
        value: variable.value.clone().filter(|value| !value.is_empty()),
        value_from: variable.value_from.as_ref().map(environment_source),
    }
}

pub(super) fn environment_from(source: &v1alpha1::EnvFromSource) -> EnvFromSource {
    let v1alpha1::EnvFromSource { prefix, config_map_ref, secret_ref } = source;
    EnvFromSource {
        prefix: prefix.clone().filter(|prefix| !prefix.is_empty()),
        config_map_ref: config_map_ref
            .as_ref()
            .map(|named| ConfigMapEnvSource { name: named.name.clone(), optional: named.optional }),
        secret_ref: secret_ref
            .as_ref()
            .map(|named| SecretEnvSource { name: named.name.clone(), optional: named.optional }),
    }
}

fn environment_source(source: &v1alpha1::EnvVarSource) -> EnvVarSource {
    let v1alpha1::EnvVarSource { field_ref, resource_field_ref, config_map_key_ref, secret_key_ref } = source;
    EnvVarSource {
        field_ref: field_ref
            .as_ref()
            .map(|field| ObjectFieldSelector { api_version: None, field_path: field.field_path.clone() }),
        resource_field_ref: resource_field_ref.as_ref().map(|field| ResourceFieldSelector {
            resource: field.resource.clone(),
            ..ResourceFieldSelector::default()
        }),
        config_map_key_ref: config_map_key_ref.as_ref().map(|key| ConfigMapKeySelector {
            name: key.name.clone(),
            key: key.key.clone(),
            optional: key.optional,
        }),
        secret_key_ref: secret_key_ref.as_ref().map(|key| SecretKeySelector {
            name: key.name.clone(),
            key: key.key.clone(),
            optional: key.optional,
        }),
    }
}
