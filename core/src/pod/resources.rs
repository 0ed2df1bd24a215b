//! What the script may use of its node. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};

use super::PodSettings;

pub(super) fn resources(settings: &PodSettings) -> Option<ResourceRequirements> {
    let quantities: BTreeMap<String, Quantity> =
        [("memory", &settings.default_memory), ("ephemeral-storage", &settings.default_ephemeral_storage)]
            .into_iter()
            .filter_map(|(name, quantity)| Some((name.to_owned(), Quantity(quantity.clone()?))))
            .collect();
    (!quantities.is_empty()).then(|| ResourceRequirements {
        requests: Some(quantities.clone()),
        limits: Some(quantities),
        claims: None,
    })
}
