//! Chance that can be had again: the seed is printed, and taken from SCRIPTRUNNER_TEST_SEED.

use std::time::{SystemTime, UNIX_EPOCH};

/// Numbers that follow from a seed (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    /// From the given seed, or from the clock.
    pub(crate) fn seeded() -> Self {
        let given = std::env::var("SCRIPTRUNNER_TEST_SEED").ok().map(|text| text.parse().unwrap());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let seed = given.unwrap_or(now);
        eprintln!("SCRIPTRUNNER_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number from 1 to `most`.
    pub(crate) fn number(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most + 1
    }
}
