//! Output, results, names and errors that are made to harm whoever reads them.

use std::fs;

use scriptrunner_api::{
    hostile::{CORPUS, documents, texts},
    result,
    text::{is_harmful, make_harmless},
};
use serde_json::{Value, json};

use crate::{
    install::write_program,
    pod::{Ended, PYTHON, Pod},
};

/// The whole corpus, each text in a line of its own.
fn all() -> Vec<u8> {
    CORPUS.iter().flat_map(|(_, bytes)| [*bytes, b"\n"].concat()).collect()
}

/// What the kubelet passes on, what the runner says in its log beside what the script says, and every text in the snapshot.
#[track_caller]
fn assert_harmless(ended: &Ended) {
    let message = fs::read(ended.dir.path().join("termination-log")).unwrap();
    let message = String::from_utf8(message).expect("the message should be text");
    assert!(!message.chars().any(is_harmful), "{message:?}");
    let log = String::from_utf8_lossy(&ended.stderr);
    for line in log.lines().filter(|line| line.starts_with("scriptrunner: ")) {
        assert!(!line.chars().any(is_harmful), "{line:?}");
    }
    let snapshot = serde_json::to_string(&(&ended.record, &ended.history)).unwrap();
    assert!(!snapshot.chars().any(is_harmful), "{snapshot:?}");
}

#[test]
fn output() {
    let printed = all();
    let script = format!("import os\nfor to in (1, 2):\n    os.write(to, bytes({printed:?}))\nos._exit(3)\n");
    for truncation in ["head", "tail"] {
        for limit in [4096, 50] {
            let pod = Pod::new(&script).flag("--truncation", truncation);
            let pod = pod.flag("--stdout-limit-bytes", limit).flag("--stderr-limit-bytes", limit);
            let ended = pod.run();
            ended.assert_end("Failed", "ScriptFailed", 1);
            assert_harmless(&ended);
            assert_eq!(ended.only().stdout_bytes, Some(printed.len() as u64));
            let (clean, kept) = (make_harmless(&printed), &ended.only().stdout);
            assert!(!kept.is_empty() && clean.contains(kept.as_str()), "{kept:?}");
        }
    }
}

/// Runs once for each file, which the script makes its result.
fn with_results(files: &[Vec<u8>]) -> Ended {
    let script = "import os, shutil\nfile = '../files/' + os.environ['SCRIPTRUNNER_SERIAL']\n\
                  shutil.copy(file, os.environ['SCRIPTRUNNER_RESULT_FILE'])\n";
    let count = files.len();
    let pod = Pod::new(script).repeat(&count.to_string(), json!({"count": count, "periodSeconds": 0}));
    fs::create_dir(pod.path("files")).unwrap();
    for (serial, bytes) in (1..).zip(files) {
        fs::write(pod.path(&format!("files/{serial}")), bytes).unwrap();
    }
    let ended = pod.run();
    ended.assert_end("Succeeded", "", 0);
    assert_harmless(&ended);
    ended
}

#[test]
fn result_files() {
    let bare: Vec<Vec<u8>> = CORPUS.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    let log = String::from_utf8(with_results(&bare).stderr).unwrap();
    for serial in 1..=bare.len() {
        assert!(log.contains(&format!("execution {serial} has no result")), "{log}");
    }
    with_results(&documents());
    let kept: Vec<Value> = texts().map(|text| json!({text.as_str(): [text]})).collect();
    // No more at a time than a message has room for.
    for some in kept.chunks(3) {
        let files: Vec<Vec<u8>> = some.iter().map(|value| value.to_string().into_bytes()).collect();
        let found: Vec<Option<Value>> =
            with_results(&files).history.into_iter().map(|one| one.result).collect();
        let expected: Vec<Option<Value>> =
            some.iter().map(|value| Some(result::checked(value.clone()).unwrap())).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn names_of_interpreters_and_files() {
    // An argument of a program has no NUL in it, and a first line no newline.
    for text in texts().map(|text| text.replace(['\0', '\n'], "")) {
        let ended = Pod::new("x").spec("interpreter", json!([format!("/none/{text}")])).run();
        ended.assert_end("Failed", "InterpreterNotStarted", 1);
        assert_harmless(&ended);
    }
    for (_, bytes) in CORPUS {
        let first: Vec<u8> = bytes.iter().copied().filter(|byte| !b"\0\n".contains(byte)).collect();
        let ended = Pod::new([b"#!/none/", first.as_slice(), b"\n"].concat()).run();
        assert_eq!(ended.record.state, "Failed", "{ended:?}");
        assert_harmless(&ended);
    }
    let script = "import os, sys\nname = bytes(BYTES)\nopen(name, 'w')\nprint(os.listdir(b'.'), os.listdir('.'))\n\
                  sys.stdout.buffer.write(name)\nopen(name + b'/none')\n";
    let name: Vec<u8> = all().into_iter().filter(|byte| !b"\0/".contains(byte)).take(250).collect();
    let ended = Pod::new(script.replace("BYTES", &format!("{name:?}"))).run();
    ended.assert_end("Failed", "ScriptFailed", 1);
    assert_harmless(&ended);
}

#[test]
fn what_installers_say() {
    let pod = Pod::new("1").spec("pip", json!(["none"]));
    fs::write(pod.path("said"), all()).unwrap();
    let uv = format!(
        "#!{}\nimport sys\nfor to in (sys.stdout, sys.stderr):\n    to.buffer.write(open('{}', 'rb').read())\nsys.exit(2)\n",
        PYTHON.display(),
        pod.path("said").display()
    );
    write_program(&pod.path("bin/uv"), &uv);
    let bin = pod.path("bin");
    let ended = pod.env("PATH", bin).run();
    ended.assert_end("Failed", "DependencyInstallFailed", 3);
    assert!(ended.record.message.contains("scriptrunner_leader"), "{}", ended.record.message);
    assert_harmless(&ended);
}
