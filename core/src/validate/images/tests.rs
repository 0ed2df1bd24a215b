//! What an entry allows, and which entries mean nothing.

use super::*;

const ONE: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const TWO: &str = "sha256:2222222222222222222222222222222222222222222222222222222222222222";

fn admits(entries: &[&str], image: &str) -> bool {
    AllowedImages::of(entries.iter().copied()).unwrap().admits(image)
}

#[test]
fn an_empty_list_allows_any_image() {
    assert!(admits(&[], "anything.example/x:1"));
}

#[test]
fn a_prefix_allows_what_is_below_it_and_nothing_that_only_looks_so() {
    for (image, expected) in [
        ("a.example/team/x", true),
        ("a.example/team/x:1", true),
        ("a.example/team/x/y@sha256:3", true),
        ("a.example/team", false),
        ("a.example/teams/x", false),
        ("a.example/other/x", false),
        ("b.example/a.example/team/x", false),
        ("A.example/team/x", false),
        ("a.example:5000/team/x", false),
        // Whether a node would follow these is not to matter.
        ("a.example/team/../other/x", false),
        ("a.example/team//x", false),
        ("a.example/team/./x", false),
        ("a.example/team/", false),
    ] {
        assert_eq!(admits(&["a.example/team/"], image), expected, "{image}");
    }
    assert!(admits(&["a.example:5000/"], "a.example:5000/x:1"));
    assert!(!admits(&["a.example:5000/"], "a.example/x:1"));
}

#[test]
fn a_repository_allows_each_of_its_images() {
    for (image, expected) in [
        ("a.example/python", true),
        ("a.example/python:3", true),
        ("a.example/python:3@sha256:3", true),
        ("a.example/python3", false),
        ("a.example/python/x", false),
        ("python", false),
    ] {
        assert_eq!(admits(&["a.example/python"], image), expected, "{image}");
    }
    // What a short name stands for is each node's to say.
    assert!(admits(&["python"], "python:3"));
    assert!(!admits(&["python"], "docker.io/library/python:3"));
    assert!(!admits(&["docker.io/library/python"], "python:3"));
    assert!(admits(&["a.example:5000/x"], "a.example:5000/x:1"));
}

#[test]
fn a_tag_or_a_digest_allows_that_image_alone() {
    let (tagged, pinned) = (["a.example/x:1"], format!("a.example/x@{ONE}"));
    assert!(admits(&tagged, "a.example/x:1"));
    assert!(!admits(&tagged, "a.example/x") && !admits(&tagged, "a.example/x:2"));
    // The digest is what runs: any image of the repository would pass with the tag before it.
    assert!(!admits(&tagged, &format!("a.example/x:1@{ONE}")));
    assert!(admits(&[&pinned], &pinned));
    assert!(admits(&[&pinned], &format!("a.example/x:9@{ONE}")));
    assert!(!admits(&[&pinned], &format!("a.example/x@{TWO}")) && !admits(&[&pinned], "a.example/x"));
    let both = format!("a.example/x:1@{ONE}");
    assert!(admits(&[&both], &pinned) && !admits(&[&both], "a.example/x:1"));
}

#[test]
fn one_entry_is_enough() {
    let entries = ["a.example/", "b.example/x:1"];
    assert!(admits(&entries, "a.example/y") && admits(&entries, "b.example/x:1"));
    assert!(!admits(&entries, "b.example/x:2"));
}

#[test]
fn entries_that_mean_nothing_are_refused() {
    for (entry, expected) in [
        ("", "no name"),
        ("/", "no name"),
        ("-a/", "no name"),
        ("a b/", "no name"),
        ("a//b", "no name"),
        ("a/../b/", "no name"),
        ("a@b/", "no name"),
        ("a/x:", "no name"),
        ("*", "wildcard"),
        ("a.example/*", "wildcard"),
        ("a.example", "write a.example/ for all of it"),
        ("a/x@sha256:12", "no digest"),
        ("a/x@md5:12", "no digest"),
    ] {
        let error = AllowedImages::of([entry]).expect_err(entry).to_string();
        assert!(error.contains(expected) && error.contains(&format!("{entry:?}")), "{entry:?}: {error}");
    }
}

#[test]
fn a_refusal_names_the_image_and_what_is_allowed() {
    let pinned = format!("c.example/z:1@{ONE}");
    let images = AllowedImages::of(["a.example/", "b.example/x", "b.example/y:1", &pinned]).unwrap();
    let refusal = images.check(Some("d.example/x"), "runner:1").unwrap_err();
    assert_eq!(refusal.reason, ConditionReason::ImageNotAllowed);
    assert_eq!(
        refusal.message,
        format!(
            "image \"d.example/x\" is not allowed in this cluster; remove the field for the operator's own, or use one of: a.example/*, b.example/x, b.example/y:1, {pinned}"
        )
    );
    // Its own image, by name or by default.
    assert_eq!(images.check(Some("runner:1"), "runner:1"), Ok(()));
    assert_eq!(images.check(None, "runner:1"), Ok(()));
    assert_eq!(images.check(Some("a.example/x"), "runner:1"), Ok(()));
}
