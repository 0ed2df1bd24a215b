//! What the policies add to the time of creating pods: the same pods in two namespaces, of which the policies leave one out.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::PostParams};
use scriptrunner_api::v1alpha1::Mode;
use scriptrunner_operator::policies;
use scriptrunner_testcluster::{
    Error,
    bindings::{Binding, narrowing},
    namespace::in_namespace,
    wait,
};

use crate::{
    children::{self, Owner},
    cluster::{acting_as_operator, admin},
    people::dry_create,
};

/// Pods in each namespace.
const PODS: usize = 1000;
/// They are made by turns, so that what else the machine does falls on both alike.
const PODS_OF_A_TURN: usize = 100;
/// As many as the operator has under way.
const IN_FLIGHT: usize = 32;
/// The most that the policies may make of the time without them.
const MOST: f64 = 2.5;

/// Makes pods that are never scheduled.
async fn make(client: &Client, namespace: &str, owner: &Owner, first: usize) -> Duration {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods: Vec<Pod> = (first..first + PODS_OF_A_TURN)
        .map(|number| children::pod(&format!("srn-{number}"), Mode::Normal, owner))
        .map(|pod| serde_json::from_value(pod).unwrap())
        .collect();
    let began = Instant::now();
    let parameters = PostParams::default();
    let made = stream::iter(&pods).map(|pod| api.create(&parameters, pod)).buffer_unordered(IN_FLIGHT);
    made.try_for_each(async |_| Ok(())).await.unwrap();
    began.elapsed()
}

/// Waits until a pod that only the operator may make is nobody's to refuse.
async fn until_left_out(client: &Client, namespace: &str, owner: &Owner) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let forged: Pod = serde_json::from_value(children::pod("srn-forged", Mode::Normal, owner)).unwrap();
    wait::until("a namespace without policies", Duration::from_mins(1), async |seen| {
        let answer = api.create(&dry_create(), &forged).await;
        seen.note(format!("{answer:?}"));
        Ok::<_, Error>(answer.is_ok().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
#[ignore = "a measurement; by hand, on a machine that does nothing else"]
async fn policies_cost_little_of_a_pods_creation() {
    let client = admin().await;
    let rules = narrowing().await;
    let all: Vec<_> = policies::NAMES.iter().map(|name| Binding::Validating(name)).collect();
    in_namespace(&client, "cost-with", &[], async |with| {
        in_namespace(&client, "cost-without", &[], async |without| {
            let owners =
                (children::owner(&client, &with, "a").await, children::owner(&client, &without, "b").await);
            let operator = acting_as_operator().await;
            let work = async || {
                until_left_out(&client, &without, &owners.1).await;
                let (mut judged, mut free) = (Duration::ZERO, Duration::ZERO);
                for first in (0..PODS).step_by(PODS_OF_A_TURN) {
                    judged += make(&operator, &with, &owners.0, first).await;
                    free += make(&operator, &without, &owners.1, first).await;
                }
                (judged.as_secs_f64(), free.as_secs_f64())
            };
            let (judged, free) = rules.without(&client, &all, &without, work).await?;
            let ratio = judged / free;
            println!("{PODS} pods: {judged:.2} s with the policies, {free:.2} s without, ratio {ratio:.2}");
            assert!(ratio < MOST, "{judged:.2} s to {free:.2} s");
            Ok::<_, Error>(())
        })
        .await
    })
    .await
    .unwrap();
}
