//! Tests of folding node names.

use std::collections::BTreeSet;

use proptest::{collection::btree_set, prelude::*};

use super::*;

fn fold(names: &[&str]) -> String {
    fold_names(names.iter().copied(), MAX_FOLDED_BYTES)
}

/// The names that a folded text stands for, and how many it says it hides.
fn expand(folded: &str) -> (BTreeSet<String>, usize) {
    let (shown, hidden) = match folded.split_once("… +") {
        Some((shown, hidden)) => (shown.trim_end(), hidden.parse().unwrap()),
        None => (folded, 0),
    };
    let mut names = BTreeSet::new();
    let mut rest = shown;
    while !rest.is_empty() {
        let open = rest.find('[').unwrap_or(rest.len());
        let end = match rest.find(',') {
            Some(comma) if comma < open => comma,
            _ if open == rest.len() => rest.len(),
            _ => {
                let close = rest.find(']').unwrap();
                close + rest[close..].find(',').unwrap_or(rest.len() - close)
            }
        };
        expand_pattern(&rest[..end], &mut names);
        rest = rest[end..].strip_prefix(',').unwrap_or_default();
    }
    (names, hidden)
}

fn expand_pattern(pattern: &str, names: &mut BTreeSet<String>) {
    let Some((prefix, rest)) = pattern.split_once('[') else {
        assert!(names.insert(pattern.to_owned()), "{pattern} is named twice");
        return;
    };
    let (ranges, suffix) = rest.split_once(']').unwrap();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let width = first.len();
        for value in first.parse::<u64>().unwrap()..=last.parse::<u64>().unwrap() {
            let name = format!("{prefix}{value:0width$}{suffix}");
            assert!(names.insert(name), "{pattern} names one twice");
        }
    }
}

#[test]
fn names_fold_where_they_differ() {
    let seventeen: Vec<String> = (1..=17).map(|number| format!("worker{number:02}")).collect();
    let seventeen: Vec<&str> = seventeen.iter().map(String::as_str).collect();
    for (names, expected) in [
        (&[][..], ""),
        (&["worker01"], "worker01"),
        (&["db", "api"], "api,db"),
        (&seventeen, "worker[01-17]"),
        (&["worker07", "worker03", "worker01", "worker02"], "worker[01-03,07]"),
        (&["node8", "node9", "node10", "node11"], "node[8-9],node[10-11]"),
        (&["n1", "n01", "n001"], "n001,n01,n1"),
        (&["ip-10-0-1-5.eu", "ip-10-0-1-6.eu", "ip-10-0-2-6.eu"], "ip-10-0-1-[5-6].eu,ip-10-0-2-6.eu"),
        (&["node5.eu-1", "node6.eu-1", "node8.eu-1"], "node[5-6,8].eu-1"),
        (&["a1-b1", "a1-b2", "a2-b1", "a2-b2"], "a1-b[1-2],a2-b[1-2]"),
        (&["x", "worker2", "x"], "worker2,x"),
        (
            &["id-1234567890123456789-a", "id-1234567890123456788-a"],
            "id-1234567890123456788-a,id-1234567890123456789-a",
        ),
    ] {
        assert_eq!(fold(names), expected);
    }
}

#[test]
fn long_text_says_how_many_it_hides() {
    let odd: Vec<String> =
        (0..5_000).map(|number| format!("worker{:05}.example.com", number * 2 + 1)).collect();
    let folded = fold_names(odd.iter().map(String::as_str), MAX_FOLDED_BYTES);
    assert!(folded.starts_with("worker[00001,00003,00005,"), "{folded}");
    assert!(folded.ends_with("].example.com … +4835"), "{folded}");
    assert!((MAX_FOLDED_BYTES - 6..=MAX_FOLDED_BYTES).contains(&folded.len()), "{}", folded.len());
    assert_eq!(fold_names(["a-very-long-name", "another-long-name"], 12), "… +2");
}

#[test]
fn thousands_of_unlike_names_fold_fast() {
    let names: Vec<String> = (0..5_000_u64)
        .map(|number| format!("gke-pool-{:x}-{number}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let (shown, hidden) = expand(&fold_names(names.iter().map(String::as_str), MAX_FOLDED_BYTES));
    assert_eq!(shown.len() + hidden, names.len());
}

proptest! {
    #[test]
    fn folded_text_names_exactly_the_set(
        names in btree_set("(node|ip-|w)(0?[0-9]{1,2}|[0-9]{3})(\\.eu|-[0-9])?|[a-z]{1,3}|[0-9]{1,20}", 0..80)
    ) {
        let folded = fold_names(names.iter().map(String::as_str), usize::MAX);
        prop_assert_eq!(expand(&folded), (names, 0));
    }

    #[test]
    fn shown_and_hidden_are_all(
        names in btree_set("(node|ip-|w)[0-9]{1,3}(\\.eu|-[0-9])?|[a-z]{1,3}", 1..80), limit in 32..400_usize,
    ) {
        let folded = fold_names(names.iter().map(String::as_str), limit);
        let (shown, hidden) = expand(&folded);
        prop_assert!(folded.len() <= limit);
        prop_assert!(shown.is_subset(&names));
        prop_assert_eq!(shown.len() + hidden, names.len());
    }
}
