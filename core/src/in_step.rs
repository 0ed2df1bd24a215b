//! Looks sorted names up in a sorted map, in step: thousands of look-ups in one walk. Pure.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
    iter::Peekable,
};

/// A walk through a map by name.
pub(crate) struct InStep<'a, V> {
    rest: Peekable<btree_map::Iter<'a, String, V>>,
}

impl<'a, V> InStep<'a, V> {
    pub(crate) fn new(map: &'a BTreeMap<String, V>) -> Self {
        Self { rest: map.iter().peekable() }
    }

    /// The value of the name. Names must be asked for in ascending order.
    pub(crate) fn get(&mut self, name: &str) -> Option<&'a V> {
        loop {
            let (key, value) = self.rest.peek()?;
            match key.as_str().cmp(name) {
                Ordering::Less => self.rest.next(),
                Ordering::Equal => return Some(value),
                Ordering::Greater => return None,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_walk_finds_what_a_look_up_finds(
            map in proptest::collection::btree_map("[a-c]{1,3}", 0..9, 0..20),
            names in proptest::collection::btree_set("[a-c]{1,3}", 0..20),
        ) {
            let mut walk = InStep::new(&map);
            let names: BTreeSet<String> = names;
            for name in &names {
                prop_assert_eq!(walk.get(name), map.get(name));
                prop_assert_eq!(walk.get(name), map.get(name));
            }
        }
    }
}
