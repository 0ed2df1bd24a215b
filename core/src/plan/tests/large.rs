//! How long a plan takes with five thousand nodes: run by hand, `cargo test --release -p scriptrunner-core large -- --ignored
//! --nocapture`.

#![expect(clippy::disallowed_methods, reason = "measuring needs a clock; what is measured does not read it")]

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use scriptrunner_api::labels;

use super::{
    runner::ToyRunner,
    toy::{Toy, settings},
};
use crate::{
    plan::steps,
    status::patch::diff,
    status::urgency::urgency,
    validate::{Sources, validate},
};

const NODES: usize = 5_000;

/// Five thousand nodes as a cloud labels them.
fn large(spec: &str) -> Toy {
    let mut toy = Toy::new(spec, 0);
    add_nodes(&mut toy);
    while toy.created < NODES {
        toy.step();
    }
    toy
}

fn add_nodes(toy: &mut Toy) {
    for number in 1..=NODES {
        let name = format!("worker-{number:05}");
        toy.add_node(&name);
        toy.replace_node(&name, &format!("0c2c6f3e-0000-4000-8000-{number:012}"));
        let node = toy.node(&name);
        for label in ["beta.kubernetes.io/arch", "kubernetes.io/hostname", "node.kubernetes.io/instance-type"]
        {
            node.labels.insert(label.into(), name.clone());
        }
    }
}

/// The shortest of several times of the parts of a reconcile that are core's: what to do, the status, and its patch.
fn measure(name: &str, toy: &Toy) {
    let valid = validate(&toy.observed.object.spec, &Sources::default());
    let mut times = [Duration::MAX; 5];
    for _ in 0..7 {
        let mut lap = Instant::now();
        let mut split = |time: &mut Duration| {
            *time = lap.elapsed().min(*time);
            lap = Instant::now();
        };
        let steps = steps(&valid, &toy.observed, &settings(), toy.now);
        split(&mut times[0]);
        let planned = steps.with_status();
        split(&mut times[1]);
        let status = planned.status.as_ref().unwrap();
        let patch = diff(toy.observed.previous.as_deref(), status, "uid", "1");
        split(&mut times[2]);
        let urgency = urgency(toy.observed.previous.as_deref(), status);
        split(&mut times[3]);
        drop((planned, patch, urgency));
        split(&mut times[4]);
    }
    let [steps, status, diff, urgency, drop] = times;
    println!(
        "{name:<34} steps {steps:>9.2?}  status {status:>9.2?}  diff {diff:>9.2?}  urgency {urgency:>9.2?}  drop {drop:>9.2?}"
    );
}

fn names(toy: &Toy) -> Vec<String> {
    toy.observed.nodes.keys().cloned().collect()
}

fn hear_from(toy: &mut Toy, names: &[String], act: impl Fn(&mut ToyRunner)) {
    let made: HashMap<String, (String, ToyRunner)> = toy
        .pods_made
        .iter()
        .map(|pod| {
            let args = pod.spec.as_ref().unwrap().containers[0].args.clone().unwrap();
            let node = pod.metadata.annotations.as_ref().unwrap()[labels::NODE].clone();
            (node, (pod.metadata.uid.clone().unwrap(), ToyRunner::new("boot", &args)))
        })
        .collect();
    for name in names {
        let (uid, mut runner) = made[name].clone();
        act(&mut runner);
        toy.hear_pod(uid, &runner);
    }
}

#[test]
#[ignore = "measures; run by hand in release"]
fn large_runs_are_planned_in_time() {
    let done = |runner: &mut ToyRunner| {
        runner.execute(0);
        runner.history[0].stdout = "Linux 6.12.0 #1 SMP\n".repeat(3);
        runner.complete();
    };
    let mut toy = Toy::new(super::HELLO, 0);
    add_nodes(&mut toy);
    toy.step();
    toy.step();
    measure("once: none made", &toy);
    toy.step();
    measure("once: some made, not stored", &toy);
    let mut toy = large(super::HELLO);
    measure("once: all starting", &toy);
    let all = names(&toy);
    hear_from(&mut toy, &all, |_| {});
    measure("once: all heard of, not stored", &toy);
    toy.step();
    hear_from(&mut toy, &all[..NODES / 2], done);
    measure("once: half done, not stored", &toy);
    toy.step();
    measure("once: half done", &toy);
    hear_from(&mut toy, &all[NODES / 2..], done);
    measure("once: the other half, not stored", &toy);
    toy.step();
    measure("once: all done, pods there", &toy);
    toy.observed.sessions.clear();
    toy.observed.pods.clear();
    toy.step();
    measure("once: all done", &toy);

    let mut toy = large("{script: x, nodeLabelSelector: {}, repeat: {periodSeconds: 60}}");
    let all = names(&toy);
    let tick = |runner: &mut ToyRunner| {
        for code in [0, 0, 1] {
            runner.execute(code);
        }
        runner.begin();
    };
    hear_from(&mut toy, &all, tick);
    measure("endless: three results, not stored", &toy);
    toy.step();
    measure("endless: three results", &toy);
}
