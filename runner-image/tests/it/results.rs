//! What a script leaves as its result, well-meant or not.

use serde_json::json;

use crate::pod::{Ended, Pod};

/// Runs a shell script in which `$F` is the result file.
fn run(script: &str) -> Ended {
    Pod::new(format!("F=$SCRIPTRUNNER_RESULT_FILE\n{script}")).shell().run()
}

#[test]
fn result_comes_back_beside_the_answer_and_is_no_part_of_its_digest() {
    let with = run(r#"echo '{"b": 1, "a": ["x"]}' > "$F"; echo hello"#);
    with.assert_end("Succeeded", "", 0);
    assert_eq!(with.only().result, Some(json!({"a": ["x"], "b": 1})));
    assert_eq!((with.only().reason.as_str(), with.only().stdout.as_str()), ("", "hello\n"));
    let without = run("echo hello");
    assert_eq!(without.only().result, None);
    assert_eq!(with.only().digest, without.only().digest);
}

#[test]
fn failed_execution_keeps_its_result_and_its_reason() {
    let ended = run(r#"echo 7 > "$F"; exit 3"#);
    ended.assert_end("Failed", "ScriptFailed", 1);
    assert_eq!((&ended.only().result, ended.only().reason.as_str()), (&Some(json!(7)), "ScriptFailed"));
    let ended = run(r#"echo nothing > "$F"; exit 3"#);
    assert_eq!((&ended.only().result, ended.only().reason.as_str()), (&None, "ScriptFailed"));
}

#[test]
fn result_of_the_execution_before_is_gone() {
    let script = "[ ! -e \"$SCRIPTRUNNER_RESULT_FILE\" ] || exit 9\n[ -e here ] || { echo 1 > $SCRIPTRUNNER_RESULT_FILE; echo > here; }";
    let ended = Pod::new(script).shell().repeat("2", json!({"count": 2, "periodSeconds": 1})).run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!((&ended.history[0].result, &ended.history[1].result), (&Some(json!(1)), &None));
}

#[test]
fn hostile_result_files_are_not_kept_and_the_execution_counts_as_it_ended() {
    for (script, words) in [
        (r#"ln -s /etc/passwd "$F""#, "a symbolic link is where"),
        (r#"echo 1 > real; ln -s "$PWD/real" "$F""#, "a symbolic link is where"),
        (r#"ln -s nowhere "$F""#, "a symbolic link is where"),
        (r#"mkfifo "$F""#, "a fifo is where"),
        (r#"mkdir -p "$F/deep/er"; echo 1 > "$F/x""#, "a folder is where"),
        (
            r#"exec python3 -c 'import os, socket; socket.socket(socket.AF_UNIX).bind(os.environ["SCRIPTRUNNER_RESULT_FILE"])'"#,
            "a socket is where",
        ),
        (r#": > "$F""#, "does not hold one JSON value"),
        (r#"echo '{} {}' > "$F""#, "trailing"),
        (r#"echo NaN > "$F""#, "does not hold one JSON value"),
        (r#"echo '{"a": 1, "a": 2}' > "$F""#, "duplicate key"),
        (r#"printf '"\377"' > "$F""#, "utf-8"),
        (r#"printf '[[[[[[[[[]]]]]]]]]' > "$F""#, "levels deep"),
        (r#"truncate -s 64M "$F""#, "at most 1024"),
        (r#"head -c 1200 /dev/zero | tr '\0' 7 | sed 's/.*/"&"/' > "$F""#, "at most 1024"),
    ] {
        let ended = run(script);
        ended.assert_end("Succeeded", "", 0);
        let only = ended.only();
        assert_eq!((&only.result, only.reason.as_str()), (&None, "ResultInvalid"), "{script}");
        let log = String::from_utf8_lossy(&ended.stderr);
        assert!(log.contains("execution 1 has no result") && log.contains(words), "{script}: {log}");
    }
}

#[test]
fn controls_in_a_result_are_made_visible() {
    let ended = run(r#"printf '"\\u001b[31mred"' > "$F""#);
    assert_eq!(ended.only().result, Some(json!("\u{241b}[31mred")));
}
