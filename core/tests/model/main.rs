//! Random walks through a small cluster in which the operator's view lags behind the truth: spec edits, node changes, outcomes
//! of pods, crashes of the operator, late and lost watch events, lost answers, two leaders. After every step a ledger of what
//! really happened is held against what is stored; after the faults everything must come to rest where the last spec and the
//! nodes say. README.md tells what is checked, and which mutations of the planner it finds.
//!
//! `SEED=n` walks one seed and tells its story; `SEEDS=n` walks so many.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends")]

mod api_server;
mod check;
mod kubelet;
mod ledger;
mod operator;
mod pod_table;
mod random;
mod rest;
mod runner;
mod user;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::{random::Random, world::World};

/// Seeds of the ordinary test run, and of the long one.
const SEEDS: u64 = 1_000;
const MANY_SEEDS: u64 = 20_000;
/// Last lines of the story that a failure tells.
const LAST_LINES: usize = 60;

/// Walks one seed. What went wrong, with the story if that is wanted.
fn walk(seed: u64, with_story: bool) -> Result<(), String> {
    let mut world = World::new(seed);
    world.story = with_story.then(Vec::new);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let steps = 30 + Random::new(seed ^ 1).below(70);
        (0..steps).try_for_each(|_| world.step())?;
        world.come_to_rest()
    }));
    let wrong = match outcome {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(wrong)) => wrong,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            format!("panicked: {}", text.unwrap_or_default())
        }
    };
    let story = world.story.take().unwrap_or_default();
    let first = story.first().cloned().unwrap_or_default();
    let last = &story[story.len().saturating_sub(LAST_LINES)..];
    Err(format!("{first}\n...\n{}\nwrong: {wrong}", last.join("\n")))
}

/// Walks these seeds, and tells of the first that goes wrong.
fn walk_all(seeds: u64) {
    let next = AtomicU64::new(1);
    let failed = AtomicU64::new(u64::MAX);
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::Relaxed) == u64::MAX {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    if walk(seed, false).is_err() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = failed.into_inner();
    if seed < u64::MAX {
        tell(seed);
    }
}

fn tell(seed: u64) {
    if let Err(story) = walk(seed, true) {
        panic!(
            "{story}\nseed {seed} fails; SEED={seed} cargo test -p scriptrunner-core --test model walks it again"
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the test chooses")]
fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_the_rules_are_kept_and_it_comes_to_rest() {
    match from_environment("SEED") {
        Some(seed) => tell(seed),
        None => walk_all(from_environment("SEEDS").unwrap_or(SEEDS)),
    }
}

#[test]
#[ignore = "long; run by ./test.sh faults"]
fn exhaustive_walks_keep_the_rules() {
    walk_all(MANY_SEEDS);
}
