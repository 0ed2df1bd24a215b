//! Scripts and outputs that are hard to carry: every byte of a script; floods, binary and control characters.

use scriptrunner_api::{
    digest::{hex, sha256_hex},
    v1alpha1::ScriptRunner,
};
use serde_json::json;

use crate::{
    answer::{entry, newest, status},
    stage::{Stage, beside_others},
};

/// Everything that a shell, a template or YAML might touch, on lines of a comment.
const ODD: &str = concat!(
    "# '\"`\"' \\ \\\\ \\n $ $$ $HOME ${HOME} $(HOME) $(date) `date` %s {{ }} <%= %> !! & | ; < > * ? ~ #\r\n",
    "# \u{feff}\u{202e}\u{2066}\u{200b}\u{2028}\u{85}\u{a0} \u{1}\u{1b}[31m\u{7f} e\u{301} \u{1f980} \u{10ffff} \u{fffd}\r\n",
    "#\ttab, trailing blanks   \r\n",
    "--- # a YAML document\r\n",
);

/// Runs the script on one node; the object when it is complete.
async fn answer(stage: &Stage, node: &str, interpreter: &[&str], script: &str) -> ScriptRunner {
    let spec = json!({"nodeNames": [node], "interpreter": interpreter, "script": script});
    stage.submit("subject", spec).await.until_complete().await
}

#[tokio::test]
async fn a_script_arrives_byte_for_byte() {
    beside_others("output::script_bytes", &[], async |stage| {
        let node = stage.some_node();
        // Never parsed: the program sees the file, not its content. No newline at the end.
        let script = format!("#!/bin/sh\r\n{ODD}'\"end");
        let object = answer(&stage, &node, &["sha256sum"], &script).await;
        let digest = sha256_hex(script.as_bytes());
        assert!(newest(&object, &node).stdout.starts_with(&digest), "{:?}", newest(&object, &node));
        assert_eq!(status(&object).run.as_ref().unwrap().script_digest, digest);
    })
    .await;
}

#[tokio::test]
async fn arguments_and_variables_arrive_byte_for_byte() {
    beside_others("output::argument_bytes", &[], async |stage| {
        let node = stage.some_node();
        let odd = "'\"\\ $HOME ${HOME} $$ `id` \u{1f980}\u{202e}\r\n\ttail ";
        let script = concat!(
            "import os, sys\n",
            "print('|'.join(os.fsencode(s).hex() for s in (*sys.argv[1:], os.environ['ODD'])), end='')",
        );
        // In a variable Kubernetes itself reads `$$` as `$`.
        let spec = json!({"nodeNames": [node], "args": [odd, "$(ODD)"],
            "env": [{"name": "ODD", "value": odd}],
            "script": script});
        let object = stage.submit("subject", spec).await.until_complete().await;
        let bytes = |text: &str| hex(text.as_bytes());
        let said = &newest(&object, &node).stdout;
        let expected = [bytes(odd), bytes("$(ODD)"), bytes(&odd.replace("$$", "$"))].join("|");
        assert_eq!(*said, expected);
    })
    .await;
}

#[tokio::test]
async fn a_flood_is_counted_and_its_end_kept() {
    beside_others("output::flood", &[], async |stage| {
        let node = stage.some_node();
        let script = concat!(
            "import sys\n",
            "block = b'x' * 1048575 + b'\\n'\n",
            "for _ in range(100): sys.stdout.buffer.write(block)\n",
            "sys.stdout.write('the end')",
        );
        let object = answer(&stage, &node, &["python3"], script).await;
        let newest = newest(&object, &node);
        assert_eq!(newest.stdout_bytes, Some(100 * 1_048_576 + 7));
        assert_eq!(newest.stderr_bytes, Some(0));
        assert!(newest.stdout.ends_with("xxx\nthe end"), "{:?}", newest.stdout.len());
        assert!(newest.stdout.len() <= 4096, "{}", newest.stdout.len());
    })
    .await;
}

#[tokio::test]
async fn binary_endless_lines_and_escapes_leave_clean_text() {
    beside_others("output::binary", &[], async |stage| {
        let node = stage.some_node();
        let script = concat!(
            "import sys\n",
            "out, err = sys.stdout.buffer, sys.stderr.buffer\n",
            "out.write(b'y' * 3000000)\n",
            "out.write(bytes(range(256)) * 2)\n",
            "out.write('\\u202e\\u2028\\u2066\\ufeff'.encode() + b'\\x1b]0;title\\x07\\x1b[2J\\xc3(\\xf0\\x9f\\xa6')\n",
            "out.write(b'\\nlast line')\n",
            "err.write(b'\\x00\\x1b[31mred\\r\\nnext\\rover\\xff')\n",
        );
        let object = answer(&stage, &node, &["python3"], script).await;
        let newest = newest(&object, &node);
        assert_eq!(newest.stdout_bytes, Some(3_000_000 + 512 + 12 + 10 + 4 + 2 + 3 + 10));
        assert!(newest.stdout.ends_with("\nlast line"), "{:?}", newest.stdout);
        assert_eq!(newest.stderr, "\u{2400}\u{241b}[31mred\nnext\u{240d}over\u{fffd}");
        let groups = status(&object).output_groups.iter().map(|group| &group.sample);
        for text in [&newest.stdout, &newest.stderr, &entry(&object, &node).message].into_iter().chain(groups) {
            let harmful = |c: &char| {
                (c.is_control() && *c != '\n' && *c != '\t') || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            };
            assert_eq!(text.chars().find(harmful), None, "{text:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_longest_name_and_the_longest_script_run() {
    beside_others("output::longest", &[], async |stage| {
        let node = stage.some_node();
        let name = format!("{}{}", "a.".repeat(95), "b".repeat(63));
        assert_eq!(name.len(), 253);
        let code = "import os; print(os.path.getsize(__file__))\n";
        let script = format!("{code}#{}", "\u{e4}".repeat((65_536 - code.len() - 1) / 2));
        let spec = json!({"nodeNames": [node], "script": script});
        let object = stage.submit(&name, spec).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, format!("{}\n", script.len()));
    })
    .await;
}
