//! Tests of the bucket on a simulated clock: what passes in all, and how it is shared.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Bytes per second of the buckets below.
const RATE: u32 = 512 * 1024;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// An object that writes as often as it may.
struct Writer {
    name: String,
    bytes: usize,
    /// Time from a write to the next wish.
    rest: f64,
    /// It asks this often while it waits; none if it comes back exactly when it was told to.
    nags: Option<f64>,
    next: f64,
    passed: usize,
    refused: usize,
    longest: f64,
    waiting_since: Option<f64>,
}

impl Writer {
    fn new(name: impl Into<String>, bytes: usize, rest: f64) -> Self {
        let name = name.into();
        // Not all at the same moment.
        let next = f64::from(u32::try_from(name.len() + bytes).unwrap() % 97) / 100.0;
        Self { name, bytes, rest, nags: None, next, passed: 0, refused: 0, longest: 0.0, waiting_since: None }
    }

    fn bytes_passed(&self) -> usize {
        self.passed * self.bytes
    }
}

/// Lets the writers write from an empty bucket, and returns how many bytes passed.
fn simulate(writers: &mut [Writer], duration: f64) -> usize {
    let begin = Instant::now();
    let mut bucket = Bucket::new(RATE, RATE, begin);
    bucket.take("before", RATE as usize, begin).unwrap();
    loop {
        let writer = writers.iter_mut().min_by(|a, b| a.next.total_cmp(&b.next)).unwrap();
        let now = writer.next;
        if now > duration {
            return writers.iter().map(Writer::bytes_passed).sum();
        }
        let since = *writer.waiting_since.get_or_insert(now);
        match bucket.take(&writer.name, writer.bytes, begin + seconds(now)) {
            Ok(()) => {
                writer.passed += 1;
                writer.longest = writer.longest.max(now - since);
                writer.waiting_since = None;
                writer.next = now + writer.rest;
            }
            Err(wait) => {
                writer.refused += 1;
                writer.next = now + writer.nags.unwrap_or(wait.as_secs_f64());
            }
        }
    }
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    let start = Instant::now();
    let mut bucket = Bucket::new(2_000, 1_000, start);
    assert_eq!(bucket.take("a", 1_500, start), Ok(()));
    assert_eq!(bucket.take("b", 1_500, start), Ok(()), "the last write may overdraw");
    let wait = bucket.take("c", 1, start).unwrap_err();
    assert!(wait > Duration::from_secs(1) && wait < Duration::from_millis(1_010), "{wait:?}");
    assert_eq!(bucket.take("c", 1, start + wait), Ok(()));
    assert_eq!(bucket.take("a", 2_000, start + Duration::from_mins(1)), Ok(()), "and fills up again");
    assert!(bucket.take("b", 1, start + Duration::from_mins(1)).is_err(), "to its burst and not beyond");
}

#[test]
fn who_has_had_least_is_next_and_not_who_asks_most() {
    let start = Instant::now();
    let mut bucket = Bucket::new(1_000, 1_000, start);
    bucket.take("greedy", 2_000, start).unwrap();
    for _ in 0..10 {
        bucket.take("greedy", 2_000, start).unwrap_err();
    }
    let wait = bucket.take("modest", 10, start).unwrap_err();
    assert!(wait < Duration::from_millis(1_010), "it is next although it came later: {wait:?}");
    let later = start + wait;
    let greedy = bucket.take("greedy", 2_000, later).unwrap_err();
    assert_eq!(bucket.take("modest", 10, later), Ok(()));
    assert!(greedy >= Duration::from_millis(10) && greedy < Duration::from_millis(20), "{greedy:?}");
    assert_eq!(bucket.take("greedy", 2_000, later + greedy), Ok(()));
}

#[test]
fn objects_of_all_sizes_get_the_same_bytes() {
    let sizes = [50 * KIB, 80 * KIB, 200 * KIB, 500 * KIB, MIB];
    let mut writers: Vec<_> =
        (0..40).map(|number| Writer::new(format!("o{number}"), sizes[number % 5], 0.01)).collect();
    for (number, writer) in writers.iter_mut().enumerate() {
        // Some ask a hundred times a second, some four times, some when they were told to.
        writer.nags = [Some(0.01), Some(0.25), None][number % 3];
    }
    let duration = 1_000.0;
    let total = simulate(&mut writers, duration);
    assert!(total >= 995 * RATE as usize, "nothing is wasted: {total}");
    let share = total / writers.len();
    for writer in &writers {
        let off = writer.bytes_passed().abs_diff(share);
        assert!(
            off <= 2 * MIB,
            "{} of {} bytes: {} instead of {share}",
            writer.name,
            writer.bytes,
            writer.bytes_passed()
        );
    }
}

#[test]
fn a_huge_object_does_not_starve_small_ones() {
    let mut writers: Vec<_> =
        (0..100).map(|number| Writer::new(format!("o{number}"), 2 * KIB, 1.0)).collect();
    writers.push(Writer::new("huge", MIB, 0.01));
    simulate(&mut writers, 600.0);
    let huge = writers.pop().unwrap();
    // They want 200 of the 512 KiB a second. What the huge one overdraws is their wait.
    for writer in &writers {
        assert!(
            writer.longest < 4.0 && writer.passed > 150,
            "{}: {} s, {}",
            writer.name,
            writer.longest,
            writer.passed
        );
    }
    assert!(huge.passed > 100, "{}", huge.passed);
}

#[test]
fn many_small_objects_do_not_starve_a_huge_one() {
    let mut writers: Vec<_> =
        (0..200).map(|number| Writer::new(format!("o{number}"), 8 * KIB, 0.01)).collect();
    writers.push(Writer::new("huge", MIB, 0.01));
    let total = simulate(&mut writers, 1_000.0);
    let huge = writers.pop().unwrap();
    let share = total / 201;
    assert!(huge.bytes_passed().abs_diff(share) <= 2 * MIB, "{} instead of {share}", huge.bytes_passed());
}

#[test]
fn newcomers_without_end_do_not_starve_who_waits() {
    let start = Instant::now();
    let mut bucket = Bucket::new(RATE, RATE, start);
    bucket.take("before", 2 * MIB, start).unwrap();
    let mut now = start;
    let mut waits = 0;
    for number in 0.. {
        // Each writes once and never had anything.
        let _ = bucket.take(&format!("newcomer{number}"), 64 * KIB, now);
        if bucket.take("huge", MIB, now).is_ok() {
            break;
        }
        waits += 1;
        now += Duration::from_millis(50);
        assert!(waits < 200, "ten seconds");
    }
}

#[test]
fn who_is_gone_holds_nobody_up_for_long() {
    let start = Instant::now();
    let mut bucket = Bucket::new(10_000, 1_000, start);
    bucket.take("a", 11_000, start).unwrap();
    let wait = bucket.take("gone", 1_000_000, start).unwrap_err();
    let last = bucket.take("b", 10, start).unwrap_err();
    assert!(last > wait + GRACE, "behind all that the other one will take: {last:?}");
    let instant = Duration::from_millis(1);
    let given_up = start + wait + GRACE;
    assert!(bucket.take("b", 10, given_up.checked_sub(instant).unwrap()).is_err());
    assert_eq!(bucket.take("b", 10, given_up), Ok(()));
    assert_eq!(bucket.waiting.len(), 0);
}

#[test]
fn a_full_bucket_is_not_kept_for_who_does_not_come() {
    let start = Instant::now();
    let mut bucket = Bucket::new(1_000, 1_000, start);
    bucket.take("a", 11_000, start).unwrap();
    let wait = bucket.take("b", 5_000, start).unwrap_err();
    bucket.take("c", 10, start).unwrap_err();
    // Both are due, "b" first, and the bucket is full; it cannot hold what "b" wants.
    let full = start + wait + Duration::from_secs(1);
    assert_eq!(bucket.take("c", 10, full), Ok(()));
}

#[test]
fn who_does_as_told_is_seldom_sent_away_twice() {
    let sizes = [100 * KIB, 300 * KIB, MIB];
    let mut writers: Vec<_> =
        (0..15).map(|number| Writer::new(format!("o{number}"), sizes[number % 3], 1.0)).collect();
    simulate(&mut writers, 500.0);
    let (passed, refused) = writers
        .iter()
        .fold((0, 0), |(passed, refused), writer| (passed + writer.passed, refused + writer.refused));
    assert!(refused * 2 < passed * 3, "{refused} looks for {passed} writes");
}

#[test]
fn nothing_is_remembered_of_objects_that_are_even_with_the_others() {
    let start = Instant::now();
    let mut bucket = Bucket::new(RATE, RATE, start);
    for number in 0..1_000 {
        let now = start + Duration::from_secs(number);
        bucket.take(&format!("o{number}"), KIB, now).unwrap();
        bucket.take("steady", KIB, now).unwrap();
    }
    assert!(bucket.used.len() < 10, "{}", bucket.used.len());
}

proptest! {
    #[test]
    fn never_more_passes_than_burst_and_rate_and_one_object(
        asks in proptest::collection::vec((0..6_u8, 1..200_000_usize, 0..400_u64), 1..300),
    ) {
        let start = Instant::now();
        let (burst, rate) = (100_000, 50_000);
        let mut bucket = Bucket::new(burst, rate, start);
        let (mut now, mut passed, mut largest) = (start, 0.0, 0.0_f64);
        let mut due: BTreeMap<u8, Instant> = BTreeMap::new();
        for (object, bytes, millis) in asks {
            now += Duration::from_millis(millis);
            match bucket.take(&object.to_string(), bytes, now) {
                Ok(()) => {
                    passed += float(bytes as u64);
                    largest = largest.max(float(bytes as u64));
                    due.remove(&object);
                }
                Err(wait) => {
                    prop_assert!(wait > Duration::ZERO);
                    due.insert(object, now + wait);
                }
            }
            let limit = f64::from(burst) + f64::from(rate) * (now - start).as_secs_f64() + largest;
            prop_assert!(passed <= limit + 1.0, "{passed} of {limit}");
        }
        // Whoever waits is served in the end, if it comes when it is told to.
        for _ in 0..200 {
            let Some((object, when)) = due.iter().min_by_key(|(_, when)| **when).map(|(a, b)| (*a, *b)) else { break };
            match bucket.take(&object.to_string(), 1_000, when.max(now)) {
                Ok(()) => { due.remove(&object); }
                Err(wait) => { due.insert(object, when.max(now) + wait); }
            }
        }
        prop_assert!(due.is_empty(), "{} wait for ever", due.len());
    }
}
