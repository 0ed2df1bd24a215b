//! Tests of the count of pods that wait for the scheduler: never too many, and some for everybody.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use scriptrunner_core::observed::{ContainerFacts, PodFacts};

use super::*;
use crate::scripted::pod_facts;

/// What the API server has, what is on its way to it, and what the operator knows of that.
struct Cluster {
    most: usize,
    now: Instant,
    pods: PodTable,
    unbound: Unbound,
    /// Pods that are there, by object and name: whether each is bound.
    made: BTreeMap<(String, String), bool>,
    /// Creations that are under way.
    asked: Vec<(String, String)>,
    /// Creations that were not answered.
    unanswered: Vec<(String, String)>,
}

impl Cluster {
    fn new(most: usize) -> Self {
        Self {
            most,
            now: Instant::now(),
            pods: PodTable::default(),
            unbound: Unbound::default(),
            made: BTreeMap::new(),
            asked: Vec::new(),
            unanswered: Vec::new(),
        }
    }

    fn room(&mut self, object: &str) -> usize {
        self.unbound.room(object, &self.pods, self.most, self.now)
    }

    /// Asks for a pod if it may; whether it does.
    fn begin(&mut self, object: &str, name: &str) -> bool {
        let begun = self.unbound.begin(object, name, &self.pods, self.most, self.now);
        if begun {
            self.asked.push((object.to_owned(), name.to_owned()));
        }
        begun
    }

    /// The API server answers the oldest creation that is under way.
    fn answer(&mut self, is_made: bool) {
        if self.asked.is_empty() {
            return;
        }
        let (object, name) = self.asked.remove(0);
        // It may be there from a creation that was not answered: then it is adopted.
        if is_made {
            self.made.entry((object.clone(), name.clone())).or_insert(false);
            self.show(&object, &name);
        }
        self.unbound.end(&object, &name);
    }

    /// The answer to the oldest creation is lost.
    fn lose_answer(&mut self, is_made: bool) {
        if self.asked.is_empty() {
            return;
        }
        let pod = self.asked.remove(0);
        if is_made {
            self.made.entry(pod.clone()).or_insert(false);
        }
        self.unanswered.push(pod);
    }

    /// The watch shows the pod as it is.
    fn show(&mut self, object: &str, name: &str) {
        if let Some(is_bound) = self.made.get(&(object.to_owned(), name.to_owned())) {
            self.pods.put(pod_facts(object, name, *is_bound));
        }
    }

    /// The watch catches up.
    fn show_all(&mut self) {
        self.unanswered.clear();
        for (object, name) in self.made.keys().cloned().collect::<Vec<_>>() {
            self.show(&object, &name);
        }
    }

    /// The scheduler binds up to `count` pods, the first by object and name.
    fn bind(&mut self, count: usize) {
        let waiting = self.made.iter_mut().filter(|(_, is_bound)| !**is_bound).take(count);
        let bound: Vec<_> = waiting
            .map(|(pod, is_bound)| {
                *is_bound = true;
                pod.clone()
            })
            .collect();
        for pod in bound {
            if !self.unanswered.contains(&pod) {
                self.show(&pod.0, &pod.1);
            }
        }
    }

    fn delete(&mut self, pick: usize) {
        let Some(pod) = self.made.keys().nth(pick % self.made.len().max(1)).cloned() else { return };
        if self.asked.contains(&pod) {
            return;
        }
        self.made.remove(&pod);
        self.unanswered.retain(|other| *other != pod);
        let (object, name) = pod;
        self.pods.remove(PodFacts { deleting: true, ..pod_facts(&object, &name, false) });
    }

    /// Pods of the object that are there and not bound.
    fn waiting(&self, object: &str) -> usize {
        self.made.iter().filter(|((of, _), is_bound)| of == object && !**is_bound).count()
    }

    /// Pods that are there and not bound, or may come to be.
    fn at_most(&self) -> usize {
        let coming = self.asked.iter().filter(|pod| !self.made.contains_key(*pod)).count();
        self.made.values().filter(|is_bound| !**is_bound).count() + coming
    }

    /// A look at an object that wants more pods than it can have: it makes as many as it may, and says if that is all.
    fn work(&mut self, object: &str, wanted: usize) -> usize {
        let room = self.room(object);
        let next = self.made.keys().filter(|(of, _)| of == object).count();
        let mut made = 0;
        while made < room.min(wanted) && self.begin(object, &format!("{object}-{}", next + made)) {
            made += 1;
        }
        while !self.asked.is_empty() {
            self.answer(true);
        }
        self.unbound.ask(object, made < wanted, self.now);
        made
    }
}

#[test]
fn one_object_alone_has_all_the_room() {
    let mut cluster = Cluster::new(200);
    assert_eq!((cluster.work("large", 5_000), cluster.room("large")), (200, 0));
    cluster.bind(30);
    assert_eq!(cluster.work("large", 4_800), 30);
}

#[test]
fn an_object_with_thousands_of_waiting_pods_leaves_a_later_one_its_share() {
    let mut cluster = Cluster::new(200);
    cluster.work("large", 5_000);
    assert_eq!(cluster.work("small", 150), 0, "it has to wait until the scheduler has bound some");
    let (mut large, mut small) = (4_800, 150);
    for _ in 0..2 {
        cluster.bind(60);
        large -= cluster.work("large", large);
        small -= cluster.work("small", small);
    }
    assert_eq!((cluster.waiting("large"), cluster.waiting("small")), (100, 100));
    assert_eq!((large, small), (4_780, 50));
    cluster.bind(200);
    small -= cluster.work("small", small);
    assert_eq!((small, cluster.work("large", large)), (0, 100));
    cluster.bind(150);
    cluster.work("small", 0);
    assert_eq!(cluster.work("large", large), 200, "who wants nothing more leaves its share to others");
}

#[test]
fn more_objects_than_room_get_one_each_in_their_turn() {
    let mut cluster = Cluster::new(3);
    let objects: Vec<String> = (0..7).map(|number| format!("object-{number}")).collect();
    let mut wanted = vec![2; objects.len()];
    for _ in 0..20 {
        for (object, wanted) in objects.iter().zip(&mut wanted) {
            *wanted -= cluster.work(object, *wanted);
            assert!(cluster.at_most() <= 3);
        }
        cluster.bind(3);
    }
    assert_eq!(wanted, [0; 7]);
}

#[test]
fn who_does_not_ask_any_more_has_no_share() {
    let mut cluster = Cluster::new(10);
    cluster.unbound.ask("away", true, cluster.now);
    assert_eq!(cluster.room("here"), 5);
    cluster.now += ASKED;
    assert_eq!(cluster.room("here"), 10);
    cluster.unbound.ask("away", true, cluster.now);
    cluster.unbound.forget_all_but(&HashSet::from(["here".to_owned()]));
    assert_eq!(cluster.room("here"), 10);
}

#[test]
fn a_creation_that_is_not_answered_counts_until_it_is_seen_or_cannot_come_any_more() {
    for is_made in [true, false] {
        let mut cluster = Cluster::new(2);
        assert!(cluster.begin("a", "a-0") && cluster.begin("a", "a-1"));
        assert!(!cluster.begin("b", "b-0"), "it counts from before it is asked for");
        cluster.answer(false);
        cluster.lose_answer(is_made);
        assert_eq!((cluster.room("b"), cluster.room("a")), (1, 1), "of two that want them each has one");
        assert!(cluster.begin("a", "a-1"), "it is asked for once more");
        cluster.lose_answer(is_made);
        assert!(cluster.begin("b", "b-0") && !cluster.begin("c", "c-0"));
        cluster.answer(true);
        cluster.bind(2);
        cluster.show_all();
        if is_made {
            cluster.room("a");
        } else {
            cluster.now += IN_DOUBT;
        }
        assert_eq!(cluster.room("d"), if is_made { 1 } else { 2 }, "{:?}", cluster.unbound.begun);
    }
}

#[test]
fn a_refusal_says_nothing_of_an_earlier_creation_that_was_not_answered() {
    let mut cluster = Cluster::new(1);
    assert!(cluster.begin("a", "a-0"));
    cluster.lose_answer(true);
    assert!(cluster.begin("a", "a-0"), "it is asked for once more");
    // Admission refuses before anybody looks whether it is there.
    cluster.answer(false);
    assert!(!cluster.begin("b", "b-0"), "the first may be there, and no watch shows it yet");
    cluster.now += IN_DOUBT;
    assert_eq!(cluster.room("b"), 1);
}

#[test]
fn pods_of_an_object_that_is_gone_count_until_they_are() {
    let mut cluster = Cluster::new(4);
    cluster.work("gone", 3);
    cluster.unbound.forget("gone");
    assert_eq!(cluster.room("b"), 1);
    cluster.delete(0);
    assert_eq!(cluster.room("b"), 2);
}

#[test]
fn pods_that_no_node_has_room_for_keep_nobody_else_waiting() {
    let mut cluster = Cluster::new(4);
    assert_eq!(cluster.work("stuck", 9), 4);
    assert_eq!(cluster.room("b"), 0, "the scheduler may be at work on them");
    for number in 0..4 {
        let facts = pod_facts("stuck", &format!("stuck-{number}"), false);
        let container =
            ContainerFacts::Waiting { reason: "Unschedulable".to_owned(), message: String::new() };
        cluster.pods.put(PodFacts { container, ..facts });
    }
    assert_eq!((cluster.room("b"), cluster.room("stuck")), (2, 0));
}

#[test]
fn a_pod_that_is_deleted_before_it_is_bound_waits_for_no_scheduler() {
    let mut cluster = Cluster::new(1);
    cluster.work("held", 1);
    assert_eq!(cluster.room("b"), 0);
    let facts = pod_facts("held", "held-0", false);
    cluster.pods.mark_deleting(&facts.owner_uid, &facts.uid);
    assert_eq!(cluster.room("b"), 1, "a finalizer may keep it for ever");
}

const OBJECTS: usize = 5;

proptest! {
    #[test]
    fn never_more_than_the_limit_wait_however_everything_interleaves(
        most in 1..8_usize,
        actions in vec((0..16_u8, any::<usize>()), 0..300),
    ) {
        let mut cluster = Cluster::new(most);
        let mut rooms = [0; OBJECTS];
        let mut count = 0;
        for (action, pick) in actions {
            let object = format!("object-{}", pick % OBJECTS);
            let is_at_work = cluster.asked.iter().any(|(of, _)| *of == object);
            match action {
                0..=2 if !is_at_work => rooms[pick % OBJECTS] = cluster.room(&object),
                3..=6 if rooms[pick % OBJECTS] > 0 => {
                    rooms[pick % OBJECTS] -= 1;
                    let is_free = |pod: &&(String, String)| pod.0 == object && !cluster.asked.contains(pod);
                    let again = cluster.unanswered.iter().find(is_free).filter(|_| pick % 3 > 0);
                    let name = again.map_or_else(|| format!("pod-{count}"), |(_, name)| name.clone());
                    count += 1;
                    cluster.begin(&object, &name);
                }
                7..=8 => cluster.answer(true),
                9 => cluster.answer(false),
                10 => cluster.lose_answer(pick % 2 == 0),
                11 => cluster.show_all(),
                12..=13 => cluster.bind(pick % 4),
                14 => cluster.delete(pick),
                15 => {
                    cluster.unbound.ask(&object, pick % 2 == 0, cluster.now);
                    while !cluster.asked.is_empty() {
                        cluster.lose_answer(pick % 3 == 0);
                    }
                    cluster.show_all();
                    cluster.now += Duration::from_secs(50);
                }
                _ => {}
            }
            prop_assert!(cluster.at_most() <= most, "{} of {most}", cluster.at_most());
        }
        // However it was, everybody gets on from there.
        while !cluster.asked.is_empty() {
            cluster.answer(true);
        }
        cluster.show_all();
        cluster.now += IN_DOUBT;
        let mut wanted = [3; OBJECTS];
        for _ in 0..OBJECTS * 4 {
            cluster.bind(usize::MAX);
            for (number, wanted) in wanted.iter_mut().enumerate() {
                *wanted -= cluster.work(&format!("object-{number}"), *wanted);
                prop_assert!(cluster.at_most() <= most);
            }
        }
        prop_assert_eq!(wanted, [0; OBJECTS]);
    }
}
