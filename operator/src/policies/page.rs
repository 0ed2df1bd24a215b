//! That docs/security.md names tests that exist, for everything on it.

use std::{collections::BTreeSet, fs, path::Path};

use crate::manifests::ROOT;

const PAGE: &str = include_str!("../../../docs/security.md");

/// Adds the names of all functions of the Rust files below `folder`.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let starts = text.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
            names.extend(starts.map(|(name, _)| name.to_owned()));
        }
    }
}

/// The rows of both tables, as cells.
fn rows() -> Vec<Vec<&'static str>> {
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| # ");
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    PAGE.lines().filter(is_row).map(cells).collect()
}

#[test]
fn every_test_of_the_page_exists_and_every_row_has_one_or_a_reason() {
    let mut names = BTreeSet::new();
    for package in ["api", "core", "operator", "runner-image", "testcluster"] {
        functions(&Path::new(ROOT).join(package), &mut names);
    }
    let rows = rows();
    for row in &rows {
        let [number, _, _, tests] = row[..] else { panic!("{row:?} should have four cells") };
        let here: Vec<_> =
            tests.split('`').skip(1).step_by(2).filter(|name| !name.contains([' ', '/'])).collect();
        let missing: Vec<_> = here.iter().filter(|name| !names.contains(**name)).collect();
        assert_eq!(missing, Vec::<&&str>::new(), "row {number}");
        let has_reason = tests.strip_prefix("None: ").is_some_and(|reason| !reason.is_empty());
        assert!(has_reason || !here.is_empty(), "row {number} has neither a test nor a reason");
    }
    let threats = rows.iter().filter(|row| row[0].starts_with('S')).count();
    assert_eq!((rows.len() - threats, threats), (34, 22));
}
