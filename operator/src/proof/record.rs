//! Since when the policies hold, as it is kept over restarts: which objects were proven, and since when. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long API servers may take until all of them enforce what was created or changed: each reads policies by a watch of its
/// own.
pub(super) const ENFORCED_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// An installed policy or binding: what of it shows that it is the same and unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Kind and name.
    pub(super) name: String,
    /// UID: another one was created anew.
    pub(super) uid: String,
    /// Rises with every change of the spec.
    pub(super) generation: i64,
    /// When it was created.
    pub(super) created: Timestamp,
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Since when these very objects hold; none if they do not, or it has not been told yet.
    pub(super) since: Option<Timestamp>,
    /// What was proven; empty after the proof broke.
    pub(super) objects: Vec<Mark>,
}

/// Since when what was just proven holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// Since then.
    Known(Timestamp),
    /// Since all API servers enforce what was found now: nobody knows what was before.
    Now,
}

impl Since {
    /// By what was recorded, if ever something was.
    pub(super) fn of(recorded: Option<&Record>, proven: &[Mark]) -> Self {
        let known = match recorded {
            Some(record) => record.since.filter(|_| record.objects == proven),
            // Never changed since they were created, so in force since the last of them was. One that was deleted meanwhile
            // and made again has a later time.
            None if proven.iter().all(|mark| mark.generation == 1) => proven
                .iter()
                .map(|mark| mark.created)
                .max()
                .and_then(|created| created.checked_add(ENFORCED_AFTER).ok()),
            None => None,
        };
        known.map_or(Self::Now, Self::Known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn mark(uid: &str, generation: i64, created: i64) -> Mark {
        Mark { name: "policy p".to_owned(), uid: uid.to_owned(), generation, created: at(created) }
    }

    #[test]
    fn what_is_recorded_stays_as_long_as_nothing_changes() {
        let objects = vec![mark("a", 1, 10), mark("b", 4, 20)];
        let record = Record { since: Some(at(50)), objects: objects.clone() };
        assert_eq!(Since::of(Some(&record), &objects), Since::Known(at(50)));
        for changed in [
            vec![mark("a", 2, 10), mark("b", 4, 20)],
            vec![mark("other", 1, 10), mark("b", 4, 20)],
            vec![mark("a", 1, 10)],
            vec![mark("a", 1, 10), mark("b", 4, 20), mark("c", 1, 5)],
        ] {
            assert_eq!(Since::of(Some(&record), &changed), Since::Now, "{changed:?}");
        }
    }

    #[test]
    fn a_proof_that_broke_begins_now_with_the_same_objects_too() {
        let objects = vec![mark("a", 1, 10)];
        assert_eq!(Since::of(Some(&Record::default()), &objects), Since::Now);
        let begun = Record { since: None, objects: objects.clone() };
        assert_eq!(Since::of(Some(&begun), &objects), Since::Now);
    }

    #[test]
    fn without_a_record_policies_that_were_never_edited_hold_since_they_were_created() {
        assert_eq!(Since::of(None, &[mark("a", 1, 10), mark("b", 1, 20)]), Since::Known(at(22)));
        assert_eq!(Since::of(None, &[mark("a", 1, 10), mark("b", 2, 20)]), Since::Now);
        assert_eq!(Since::of(None, &[]), Since::Now);
    }

    #[test]
    fn a_record_is_read_back_to_the_fraction_of_a_second() {
        let since = Timestamp::from_nanosecond(1_800_000_000_123_456_789).unwrap();
        let record = Record { since: Some(since), objects: vec![mark("a", 1, 10)] };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
