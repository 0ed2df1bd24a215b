//! Kubernetes objects as YAML text. Pure.

use std::fmt::Write;

use serde::Serialize;

use crate::rbac::Rule;

/// Widest line of a comment.
const WIDTH: usize = 118;

/// The object as one YAML document.
pub(super) fn document(object: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: 110 };
    serde_saphyr::to_string_with_options(object, options)
        .expect("should be an object of plain maps and lists")
}

/// A role, with the reason of each rule as a comment above it. Written by hand because the YAML library puts comments only
/// beside plain values; a test reads it back.
pub(super) fn role(kind: &str, name: &str, namespace: Option<&str>, rules: &[Rule]) -> String {
    let mut text =
        format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n");
    if let Some(namespace) = namespace {
        writeln!(text, "  namespace: {namespace}").expect("should write to a string");
    }
    text.push_str("rules:\n");
    for rule in rules {
        text.push_str(&self::rule(rule));
    }
    text
}

fn rule(rule: &Rule) -> String {
    let Rule { group, resource, names, verbs, why } = rule;
    let group = if group.is_empty() { "\"\"" } else { group };
    let names = match format!("  resourceNames: [{}]\n", names.join(", ")) {
        _ if names.is_empty() => String::new(),
        long if long.len() > WIDTH => format!("  resourceNames:\n  - {}\n", names.join("\n  - ")),
        short => short,
    };
    let verbs = verbs.join(", ");
    let comment = comment(why);
    format!("{comment}- apiGroups: [{group}]\n  resources: [{resource}]\n{names}  verbs: [{verbs}]\n")
}

/// The text as comment lines of at most [`WIDTH`] characters.
pub(super) fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("should hold the first line");
        if line.len() + 1 + word.len() > WIDTH {
            lines.push(format!("# {word}"));
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}
