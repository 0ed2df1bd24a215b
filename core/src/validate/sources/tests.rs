//! What is said of each way in which a ConfigMap cannot be used.

use super::{super::validate, *};

const DIGEST_OF_X: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

fn text(text: &str) -> Source {
    Source::Text(text.into())
}

fn spec(yaml: &str) -> ScriptRunnerSpec {
    serde_saphyr::from_str(yaml).unwrap()
}

fn validated(yaml: &str, sources: &Sources) -> Result<Inputs, Refusal> {
    validate(&spec(yaml), sources).map(|run| run.inputs)
}

/// What is said of a script, and of certificates, that stand where `found` says; `more` stands beside the key.
fn said(found: Option<Source>, more: &str, privileged: &str) -> [(ConditionReason, String); 2] {
    let reference = format!("{{configMapKeyRef: {{name: a, key: b}}{more}}}");
    let rest = format!("nodeLabelSelector: {{}}{privileged}");
    let script = Sources { script: found.clone(), trusted_ca: None };
    let ca = Sources { script: None, trusted_ca: found };
    let refusals = [
        validated(&format!("{{scriptFrom: {reference}, {rest}}}"), &script),
        validated(&format!("{{script: x, dependencies: {{trustedCA: {reference}}}, {rest}}}"), &ca),
    ];
    refusals.map(|refusal| refusal.map_err(|Refusal { reason, message }| (reason, message)).unwrap_err())
}

#[test]
fn each_way_in_which_a_config_map_cannot_be_used_is_named() {
    use ConditionReason::{InputChanged, InputInvalid, InputMissing};
    let long = "x".repeat(MAX_TRUSTED_CA_BYTES);
    let wrong = format!(", sha256: {DIGEST_OF_X}");
    for (found, more, reason, words) in [
        (
            None,
            "",
            InputMissing,
            "no ConfigMap \"a\" with label scriptrunner.io/source=true is in this namespace; make it, or label it",
        ),
        (
            Some(Source::NoConfigMap),
            "",
            InputMissing,
            "no ConfigMap \"a\" with label scriptrunner.io/source=true",
        ),
        (Some(Source::NoKey), "", InputMissing, "ConfigMap \"a\" has no key \"b\"; add it, or correct"),
        (
            Some(Source::Binary),
            "",
            InputInvalid,
            "key \"b\" of ConfigMap \"a\" is binary data; it must be UTF-8 text",
        ),
        (
            Some(Source::TooLong(999_999)),
            "",
            InputInvalid,
            "key \"b\" of ConfigMap \"a\" has 999999 bytes, at most ",
        ),
        (Some(text(&format!("{long}x"))), "", InputInvalid, "has 262145 bytes, at most "),
        (Some(text("")), "", InputInvalid, "key \"b\" of ConfigMap \"a\" is empty"),
        (
            Some(text("y")),
            wrong.as_str(),
            InputChanged,
            "key \"b\" of ConfigMap \"a\" has SHA-256 a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa, the spec says 2d71",
        ),
    ] {
        for ((is, message), field) in
            said(found.clone(), more, "").into_iter().zip(["scriptFrom", "dependencies.trustedCA"])
        {
            assert_eq!(is, reason, "{message}");
            assert!(message.starts_with(&format!("{field}: ")) && message.contains(words), "{message}");
        }
    }
    let sources = Sources { script: Some(text(&"x".repeat(MAX_SCRIPT_BYTES + 1))), trusted_ca: None };
    let spec = "{scriptFrom: {configMapKeyRef: {name: a, key: b}}, nodeLabelSelector: {}}";
    let Refusal { reason, message } = validated(spec, &sources).unwrap_err();
    assert_eq!(reason, InputInvalid);
    assert!(message.contains("has 65537 bytes, at most 65536 are allowed"), "{message}");
}

#[test]
fn a_privileged_mode_runs_nothing_that_the_spec_does_not_name_by_its_digest() {
    let mode = ", mode: Privileged, parallelism: 1, executionDeadlineSeconds: 9";
    for ((reason, message), field) in
        said(Some(text("x")), "", mode).into_iter().zip(["scriptFrom", "dependencies.trustedCA"])
    {
        assert_eq!(reason, ConditionReason::SpecInvalid);
        assert!(message.starts_with(&format!("a privileged mode needs {field}.sha256")), "{message}");
    }
    let spec = format!(
        "{{scriptFrom: {{configMapKeyRef: {{name: a, key: b}}, sha256: {DIGEST_OF_X}}}, nodeLabelSelector: {{}}{mode}}}"
    );
    let sources = Sources { script: Some(text("x")), trusted_ca: None };
    assert_eq!(validated(&spec, &sources).unwrap().script, "x");
}

#[test]
fn what_can_be_used_is_what_the_run_is_pinned_to() {
    let spec = "{scriptFrom: {configMapKeyRef: {name: a, key: b}}, dependencies: {trustedCA: {configMapKeyRef: {name: a, key: c}}}, nodeLabelSelector: {}}";
    let longest = "y".repeat(MAX_TRUSTED_CA_BYTES);
    let sources = Sources { script: Some(text("x")), trusted_ca: Some(text(&longest)) };
    let inputs = Inputs { script: "x".to_owned(), trusted_ca: Some(longest) };
    assert_eq!(validated(spec, &sources), Ok(inputs));
    for spec in [
        "{nodeLabelSelector: {}}",
        "{script: x, scriptFrom: {configMapKeyRef: {name: a, key: b}}, nodeLabelSelector: {}}",
    ] {
        let refusal = validated(spec, &sources).unwrap_err();
        assert_eq!(refusal.reason, ConditionReason::SpecInvalid);
        assert!(refusal.message.contains("exactly one of script and scriptFrom"), "{}", refusal.message);
    }
}
