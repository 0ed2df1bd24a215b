//! What the operator identifies itself with to runners, and when which part of it is renewed. Pure.
//!
//! Runners trust the authorities that their pod's arguments name, and what a session told them since. So a new authority
//! is introduced first, beside the one that signs, and signs only after an overlap in which every runner with a session
//! was told.

use std::{fmt, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long each part is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetimes {
    /// Of the certificate that runners see.
    pub(super) leaf: Duration,
    /// Of the authority that signs it.
    pub(super) authority: Duration,
    /// How long runners are told of an authority before it signs.
    pub(super) overlap: Duration,
}

impl Lifetimes {
    /// An overlap leaves the authority time to sign, whatever the flags say.
    fn overlap(&self) -> Duration {
        self.overlap.min(self.authority / 4)
    }

    /// Pause between looks at what is to be renewed.
    pub(super) fn pause(&self) -> Duration {
        let shortest = (self.leaf / 10).min(self.authority / 40).min(self.overlap() / 4);
        shortest.clamp(Duration::from_millis(100), Duration::from_hours(1))
    }
}

/// A certificate with its key, and when it was made for how long. What the times say is what the certificate says; they
/// stand beside it so that nobody has to parse it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Certified {
    /// The certificate, PEM.
    pub(super) certificate: String,
    /// Its private key, PEM.
    pub(super) key: String,
    /// When it was made.
    pub(super) issued: Timestamp,
    /// When it ends.
    pub(super) expires: Timestamp,
}

/// An authority.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Authority {
    /// Part of its name: each further one has the next number.
    pub(super) number: u64,
    /// The rest.
    pub(super) certified: Certified,
}

/// Everything that the operator identifies itself with.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Material {
    /// The authority that signs.
    pub(super) authority: Authority,
    /// The certificate that runners see, signed by it.
    pub(super) leaf: Certified,
    /// The authority that signs next. Runners are told of it since it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Authority>,
}

impl fmt::Debug for Material {
    /// Without keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Material")
            .field("authority", &self.authority.number)
            .field("leaf_expires", &self.leaf.expires)
            .field("next", &self.next.as_ref().map(|next| next.number))
            .finish_non_exhaustive()
    }
}

impl Material {
    /// Every authority that runners are to trust now.
    pub(super) fn trusted(&self) -> impl Iterator<Item = &Authority> {
        std::iter::once(&self.authority).chain(&self.next)
    }
}

/// The next thing to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// A new certificate by the authority that signs.
    IssueLeaf,
    /// Make the next authority, and tell runners of it.
    Introduce,
    /// The next authority signs from now on, and the one before it is forgotten.
    Promote,
}

/// What is to be done at `now`. One thing at a time: each is stored before the next is looked for.
pub(super) fn next_step(material: &Material, now: Timestamp, lifetimes: &Lifetimes) -> Step {
    let authority = &material.authority.certified;
    match &material.next {
        Some(next) if now >= later(next.certified.issued, lifetimes.overlap()) => return Step::Promote,
        None if now >= earlier(authority.expires, introduced_before(lifetimes)) => return Step::Introduce,
        Some(_) | None => {}
    }
    if leaf_is_old(&material.leaf, now, lifetimes) { Step::IssueLeaf } else { Step::Keep }
}

/// How long before its authority's end the next one is made: before the last tenth begins, and early enough that the
/// overlap ends before the authority does.
fn introduced_before(lifetimes: &Lifetimes) -> Duration {
    (lifetimes.authority / 8).max(lifetimes.overlap() * 2)
}

/// Two thirds of its time are over; or it was made in the future, by a clock that has been set back since.
fn leaf_is_old(leaf: &Certified, now: Timestamp, lifetimes: &Lifetimes) -> bool {
    let lifetime = leaf.expires.duration_since(leaf.issued).min(signed(lifetimes.leaf));
    now >= leaf.issued.saturating_add(lifetime * 2 / 3).unwrap_or(Timestamp::MAX)
        || leaf.issued > later(now, BACKDATED)
}

/// How much earlier certificates are dated than they are made, for nodes whose clock is behind.
pub(super) const BACKDATED: Duration = Duration::from_hours(24);

/// `time` and `duration` after it.
pub(super) fn later(time: Timestamp, duration: Duration) -> Timestamp {
    time.saturating_add(signed(duration)).unwrap_or(Timestamp::MAX)
}

/// `duration` before `time`.
pub(super) fn earlier(time: Timestamp, duration: Duration) -> Timestamp {
    time.saturating_sub(signed(duration)).unwrap_or(Timestamp::MIN)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        leaf: Duration::from_hours(90 * 24),
        authority: Duration::from_hours(3650 * 24),
        overlap: Duration::from_hours(24),
    };

    fn certified(issued: Timestamp, lifetime: Duration) -> Certified {
        Certified { certificate: String::new(), key: String::new(), issued, expires: later(issued, lifetime) }
    }

    fn authority(number: u64, issued: Timestamp, lifetimes: &Lifetimes) -> Authority {
        Authority { number, certified: certified(issued, lifetimes.authority) }
    }

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn day(number: u64) -> Timestamp {
        later(start(), Duration::from_hours(24 * number))
    }

    fn fresh(lifetimes: &Lifetimes) -> Material {
        let leaf = certified(start(), lifetimes.leaf);
        Material { authority: authority(1, start(), lifetimes), leaf, next: None }
    }

    /// Does what is to be done.
    fn perform(material: &mut Material, step: Step, now: Timestamp, lifetimes: &Lifetimes) {
        match step {
            Step::Keep => {}
            Step::IssueLeaf => material.leaf = certified(now, lifetimes.leaf),
            Step::Introduce => {
                material.next = Some(authority(material.authority.number + 1, now, lifetimes));
            }
            Step::Promote => {
                material.authority = material.next.take().unwrap();
                material.leaf = certified(now, lifetimes.leaf);
            }
        }
    }

    #[test]
    fn each_part_is_renewed_in_its_time() {
        for (now, expected) in [
            (day(0), Step::Keep),
            (day(59), Step::Keep),
            (day(60), Step::IssueLeaf),
            (day(89), Step::IssueLeaf),
            (day(3000), Step::IssueLeaf),
            // 3650 * 7 / 8 = 3193.75
            (day(3193), Step::IssueLeaf),
            (day(3194), Step::Introduce),
            (day(5000), Step::Introduce),
        ] {
            assert_eq!(next_step(&fresh(&LIFETIMES), now, &LIFETIMES), expected, "{now}");
        }
    }

    #[test]
    fn next_authority_signs_when_runners_were_told_long_enough() {
        let mut material = fresh(&LIFETIMES);
        perform(&mut material, Step::Introduce, day(3194), &LIFETIMES);
        material.leaf = certified(day(3194), LIFETIMES.leaf);
        let almost = earlier(day(3195), Duration::from_secs(1));
        assert_eq!(next_step(&material, almost, &LIFETIMES), Step::Keep);
        assert_eq!(next_step(&material, day(3195), &LIFETIMES), Step::Promote);
        let trusted: Vec<u64> = material.trusted().map(|authority| authority.number).collect();
        assert_eq!(trusted, [1, 2], "the one that signs comes first");
    }

    #[test]
    fn leaf_is_renewed_during_the_overlap_too() {
        let lifetimes = Lifetimes { leaf: Duration::from_hours(3), ..LIFETIMES };
        let mut material = fresh(&lifetimes);
        perform(&mut material, Step::Introduce, day(3194), &lifetimes);
        material.leaf = certified(day(3194), lifetimes.leaf);
        let now = later(day(3194), Duration::from_hours(2));
        assert_eq!(next_step(&material, now, &lifetimes), Step::IssueLeaf);
    }

    #[test]
    fn clock_that_was_set_back_leads_to_a_new_leaf() {
        let mut material = fresh(&LIFETIMES);
        material.leaf = certified(day(10), LIFETIMES.leaf);
        assert_eq!(next_step(&material, day(9), &LIFETIMES), Step::Keep, "it is dated a day earlier");
        assert_eq!(next_step(&material, day(8), &LIFETIMES), Step::IssueLeaf);
    }

    #[test]
    fn shorter_lifetime_of_the_flags_counts_for_a_leaf_that_is_there() {
        let lifetimes = Lifetimes { leaf: Duration::from_hours(3 * 24), ..LIFETIMES };
        assert_eq!(next_step(&fresh(&LIFETIMES), day(2), &lifetimes), Step::IssueLeaf);
    }

    /// Whatever the lifetimes: looking as often as is said, the leaf is never expired, never signed by an authority that
    /// is over or that was not trusted for the whole overlap.
    #[test]
    fn years_go_by_without_a_gap() {
        let seconds = |leaf, authority, overlap| Lifetimes {
            leaf: Duration::from_secs(leaf),
            authority: Duration::from_secs(authority),
            overlap: Duration::from_secs(overlap),
        };
        for lifetimes in [LIFETIMES, seconds(4, 20, 3), seconds(60, 60, 60), seconds(10, 5, 1)] {
            let mut material = fresh(&lifetimes);
            let (mut now, mut promotions) = (start(), 0);
            let end = later(start(), lifetimes.authority * 4);
            let mut looks = 0;
            while now < end && looks < 500_000 {
                let mut step = next_step(&material, now, &lifetimes);
                while step != Step::Keep {
                    if step == Step::Promote {
                        let told = now.duration_since(material.next.as_ref().unwrap().certified.issued);
                        assert!(told >= signed(lifetimes.overlap()), "{lifetimes:?}");
                        promotions += 1;
                    }
                    perform(&mut material, step, now, &lifetimes);
                    step = next_step(&material, now, &lifetimes);
                }
                assert!(now < material.leaf.expires, "{lifetimes:?}: the leaf is over at {now}");
                assert!(now < material.authority.certified.expires, "{lifetimes:?}: the authority is over");
                now = later(now, lifetimes.pause());
                looks += 1;
            }
            assert!(promotions >= 3, "{lifetimes:?}: {promotions} in {looks} looks");
            assert_eq!(material.authority.number, promotions + 1);
        }
    }

    #[test]
    fn material_shows_no_key() {
        let mut material = fresh(&LIFETIMES);
        material.leaf.key = "PRIVATE".to_owned();
        material.authority.certified.key = "PRIVATE".to_owned();
        assert!(!format!("{material:?}").contains("PRIVATE"));
    }
}
