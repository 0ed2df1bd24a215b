//! What the script may use of its node. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};

use super::PodSettings;
use crate::validate::ValidRun;

/// What the user states, and of what the user says nothing, the operator's defaults. A stated limit alone is the request as well, as in
/// every container; a stated request alone has no limit, because a default could be below it.
pub(super) fn resources(valid: &ValidRun, settings: &PodSettings) -> Option<ResourceRequirements> {
    let wanted = &valid.parts.resources;
    let is_stated = |name: &str| wanted.requests.contains_key(name) || wanted.limits.contains_key(name);
    let defaults: BTreeMap<String, Quantity> =
        [("memory", &settings.default_memory), ("ephemeral-storage", &settings.default_ephemeral_storage)]
            .into_iter()
            .filter(|(name, _)| !is_stated(name))
            .filter_map(|(name, quantity)| Some((name.to_owned(), Quantity(quantity.clone()?))))
            .collect();
    let with_defaults = |stated: &BTreeMap<String, Quantity>| {
        let mut all = defaults.clone();
        all.extend(stated.clone());
        (!all.is_empty()).then_some(all)
    };
    let (requests, limits) = (with_defaults(&wanted.requests), with_defaults(&wanted.limits));
    (requests.is_some() || limits.is_some()).then_some(ResourceRequirements {
        requests,
        limits,
        claims: None,
    })
}
