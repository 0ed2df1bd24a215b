//! Whatever the API server, a kubelet or a runner sends is read without a panic and in bounded time, and planned with: bytes that
//! nobody means, JSON of any shape, and valid documents with changes.
//!
//! `cargo test` tries some; `exhaustive_junk` goes on for ten minutes, or `JUNK_SECONDS`, and says how many it tried.

mod changes;
mod documents;
mod reading;

use std::time::{Duration, Instant};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use rustix::time::{ClockId, clock_gettime};

use self::{
    changes::{Change, change, changed, json},
    documents::Documents,
    reading::Read,
};

/// Far more than any case takes; what does not end does not end in this either.
const LONGEST: Duration = Duration::from_secs(5);
const CASES_OF_A_ROUND: u32 = 500;

/// What is sent in place of each document.
#[derive(Clone, Debug)]
struct Case {
    /// The object, its Node and pod, the pod's termination message, and a message of its session, each with changes.
    changed: [Vec<Change>; 5],
    /// Anything, wherever something is read.
    junk: Vec<u8>,
}

fn cases() -> impl Strategy<Value = Case> {
    let changes = || prop::collection::vec(change(), 0..5);
    let junk = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000),
        json().prop_map(|value| value.to_string().into_bytes()),
    ];
    ([changes(), changes(), changes(), changes(), changes()], junk)
        .prop_map(|(changed, junk)| Case { changed, junk })
}

/// Time that this thread has had so far: others may keep it waiting for as long as they like.
fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Reads everything of the case, and plans with what could be read.
fn try_out(case: &Case) -> Result<Read, TestCaseError> {
    let began = spent();
    let Documents { object, node, pod, termination, session } = Documents::valid();
    let [of_object, of_node, of_pod, of_termination, of_session] = &case.changed;
    let termination = documents::seal(&changed(&termination, of_termination));
    let pod = documents::with_message(pod, &termination);
    let parts = [
        changed(&object, of_object),
        changed(&node, of_node),
        changed(&pod, of_pod),
        changed(&session, of_session),
    ];
    let read = reading::all(&parts);
    reading::junk(&case.junk);
    let took = spent().saturating_sub(began);
    prop_assert!(took < LONGEST, "it took {took:?}");
    Ok(read)
}

fn try_many(count: u32) -> Read {
    // What fails is printed as small as it can be; make it a test of its own.
    let config =
        Config { cases: count, failure_persistence: None, max_shrink_time: 60_000, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let total = std::cell::RefCell::new(Read::default());
    let outcome = runner.run(&cases(), |case| {
        total.borrow_mut().add(&try_out(&case)?);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    total.into_inner()
}

#[test]
fn what_is_valid_is_read_and_planned_with() {
    let nothing = Case { changed: Default::default(), junk: Vec::new() };
    let read = try_out(&nothing).unwrap();
    assert_eq!(read, Read { cases: 1, objects: 1, nodes: 1, pods: 1, terminations: 1, frames: 1 });
}

#[test]
fn junk_does_no_harm() {
    let read = try_many(200);
    // Changes that nothing survives would test nothing.
    for some in [read.objects, read.nodes, read.pods, read.terminations, read.frames] {
        assert!((read.cases / 40..read.cases).contains(&some), "{read:?}");
    }
}

#[test]
fn no_extreme_value_does_harm_wherever_it_stands() {
    let documents = Documents::valid();
    let mut harmed = Vec::new();
    let all = [documents.object, documents.node, documents.pod, documents.termination, documents.session];
    for (number, document) in all.iter().enumerate() {
        for place in changes::places(document) {
            for value in changes::extremes() {
                let mut case = Case { changed: Default::default(), junk: Vec::new() };
                case.changed[number] = vec![Change::At(place.clone(), value.clone())];
                let tried = std::panic::catch_unwind(|| try_out(&case).map(drop));
                if !matches!(tried, Ok(Ok(()))) {
                    harmed.push(format!("document {number} with {place} {:.40}", value.to_string()));
                }
            }
        }
    }
    assert!(harmed.is_empty(), "{harmed:#?}");
}

#[test]
fn the_largest_documents_are_read_in_time() {
    for document in documents::largest() {
        let began = spent();
        reading::junk(&document);
        let took = spent().saturating_sub(began);
        assert!(took < LONGEST, "{took:?} for {} bytes", document.len());
    }
}

#[test]
#[ignore = "long; run by ./test.sh faults"]
fn exhaustive_junk() {
    let seconds = std::env::var("JUNK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let (began, mut read) = (Instant::now(), Read::default());
    while began.elapsed() < Duration::from_secs(seconds) {
        read.add(&try_many(CASES_OF_A_ROUND));
    }
    println!("{read:?} in {:?}", began.elapsed());
}
