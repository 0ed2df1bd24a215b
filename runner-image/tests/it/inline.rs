//! Scripts with inline metadata (PEP 723): with a stand-in for uv, and with uv itself where the machine has it.

use std::{fs, path::PathBuf};

use rustix::process::Signal;
use scriptrunner_api::{
    digest::sha256_hex,
    session::{RunOrder, ToRunner},
};
use serde_json::json;

use crate::{
    door::Door,
    install::{pod_with_wheels, write_program},
    pod::{PYTHON, Pod},
};

fn script(block: &str, rest: &str) -> String {
    format!("# /// script\n{block}\n# ///\n{rest}\n")
}

/// Makes an environment, and keeps the scripts that it was to install for.
fn with_stand_in(pod: Pod) -> Pod {
    let uv = format!(
        "#!/bin/sh\nPATH=/usr/bin:/bin\ncd ../state\necho \"$*\" >> ../calls\ncase $2 in\n\
        venv) {} -m venv --without-pip venv;;\nsync) cat inline.d/script.py >> ../synced;;\nesac\n",
        PYTHON.display()
    );
    write_program(&pod.path("bin/uv"), &uv);
    pod
}

#[test]
fn requirements_of_the_script_are_installed_by_uv_for_the_python_that_runs_it() {
    let text = script("# dependencies = ['a']", "import sys; print(sys.prefix)");
    for first in [
        "",
        "#!/usr/bin/env python3\n",
        "#!/usr/bin/env -S python3 -u\n",
        "#!/usr/bin/env -S uv run --script\n",
        "#!/usr/local/bin/uv run -qs\r\n",
    ] {
        let text = format!("{first}{text}");
        let ended = with_stand_in(Pod::new(&text)).run();
        ended.assert_end("Succeeded", "", 0);
        let state = ended.dir.path().join("state");
        let venv = state.join("venv");
        assert_eq!(ended.only().stdout, format!("{}\n", venv.display()));
        assert_eq!(fs::read_to_string(ended.dir.path().join("synced")).unwrap(), text);
        let calls = fs::read_to_string(ended.dir.path().join("calls")).unwrap();
        let file = state.join("inline.d/script.py");
        let expected = [
            format!("--no-progress python find --script {}", file.display()),
            format!(
                "--no-progress sync --active --python {}/bin/python --script {}",
                venv.display(),
                file.display()
            ),
        ];
        assert_eq!(calls.lines().skip(1).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn contradictions_and_a_missing_uv_are_told_and_the_script_is_not_run() {
    let one = script("# dependencies = ['a']", "open('ran', 'w')");
    let two = format!("{one}\n{one}");
    let both = with_stand_in(Pod::new(&one)).spec("pip", json!(["b"]));
    let without = Pod::new(&one);
    let path = without.path("bin");
    // Forgotten, cut off by an empty line that is no comment, and spoiled by a blank that nobody sees.
    let unclosed = ["", "\n# ///\n", "# /// \n"]
        .map(|end| format!("# /// script\n# dependencies = ['a']\n{end}open('ran', 'w')\n"))
        .map(|text| (with_stand_in(Pod::new(text)), "has no end; "));
    for (pod, words) in unclosed.into_iter().chain([
        (both, "exclude each other; use one of them"),
        (with_stand_in(Pod::new(&two)), "more than one block"),
        (without.env("PATH", path), "there is no uv to read it"),
    ]) {
        let ended = pod.run();
        ended.assert_end("Failed", "DependencyInstallFailed", 3);
        assert!(ended.record.message.contains(words), "{ended:?}");
        assert!(!ended.dir.path().join("work/ran").exists());
    }
}

#[test]
fn empty_block_is_one_and_other_interpreters_have_none() {
    let empty = with_stand_in(Pod::new("# /// script\n# ///\nimport sys; print(sys.prefix)\n")).run();
    empty.assert_end("Succeeded", "", 0);
    assert!(empty.only().stdout.ends_with("/state/venv\n"), "{empty:?}");
    for text in [script("# x", "echo 1"), "# /// script\necho 1\n".to_owned()] {
        let shell = with_stand_in(Pod::new(text)).shell().run();
        shell.assert_end("Succeeded", "", 0);
        assert!(!shell.dir.path().join("calls").exists());
    }
}

#[test]
fn uv_run_is_the_default_python_and_what_it_cannot_do_is_told() {
    let look =
        "import os, sys; print(sys.prefix, os.environ.get('PYTHONUNBUFFERED'), sys.stdout.write_through)";
    let without_block = format!("#!/usr/bin/env -S uv run --script\n{look}\n");
    let named = ["uv", "run", "--quiet", "--script"];
    for (pod, prefix) in [
        (Pod::new(&without_block), None),
        (Pod::new(&without_block).spec("pip", json!(["a"])), Some("state/venv")),
        (Pod::new(script("# x", look)).spec("interpreter", json!(named)), Some("state/venv")),
    ] {
        let ended = with_stand_in(pod).run();
        ended.assert_end("Succeeded", "", 0);
        let said = &ended.only().stdout;
        let venv = prefix.map(|folder| ended.dir.path().join(folder).display().to_string());
        assert_eq!(venv.is_some_and(|venv| said.starts_with(&venv)), prefix.is_some(), "{ended:?}");
        assert!(said.ends_with(" None True\n"), "{said}");
        assert_eq!(ended.dir.path().join("calls").exists(), prefix.is_some());
    }
    let first = "#!/usr/bin/env -S uv run --with rich --script\n";
    let ended = with_stand_in(Pod::new(format!("{first}open('ran', 'w')\n"))).run();
    ended.assert_end("Failed", "DependencyInstallFailed", 3);
    assert!(ended.record.message.contains("\"--with\""), "{ended:?}");
    assert!(!ended.dir.path().join("work/ran").exists());
}

#[test]
fn warm_runner_installs_anew_for_another_block_only() {
    let door = Door::open();
    let first = script("# a = 1", "print('first')");
    let pod = with_stand_in(Pod::new(&first)).session(door.address, &door.authority);
    let running = pod.flag("--idle-seconds", 1000).start();
    let visit = door.visit();
    visit.ack(&visit.last_snapshot().record);
    let installs = || {
        let calls = fs::read_to_string(running.path("calls")).unwrap();
        calls.lines().filter(|call| call.starts_with("--no-progress venv")).count()
    };
    assert_eq!(installs(), 1);
    for (run, text, count) in [
        (8, script("# a = 1", "print('second')"), 1),
        (9, script("# a = 2", "print('third')"), 2),
        (10, "print('fourth')\n".to_owned(), 2),
    ] {
        visit.say(&ToRunner::Run(Box::new(RunOrder {
            run,
            attempt: 1,
            first_serial: 1,
            remaining: 1,
            spec: json!({"scriptSha256": sha256_hex(text.as_bytes())}).to_string(),
            script: text,
            history_limit: 3,
            stdout_limit_bytes: 1000,
            stderr_limit_bytes: 1000,
            grace_seconds: 5,
            execution_deadline_seconds: None,
        })));
        let last = visit.last_snapshot();
        assert_eq!(
            (last.record.run, last.record.state.as_str()),
            (run, "Succeeded"),
            "{}",
            last.record.message
        );
        visit.ack(&last.record);
        assert_eq!(installs(), count, "run {run}");
    }
    running.signal(Signal::TERM);
    running.wait().assert_end("Succeeded", "", 0);
}

#[test]
fn uv_beside_the_runner_is_used_where_the_image_has_none() {
    let text = script("# dependencies = ['a']", "print(1)");
    let mut pod = with_stand_in(Pod::new(&text));
    let beside = pod.path("runner");
    fs::create_dir(&beside).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_scriptrunner-runner"), beside.join("scriptrunner-runner")).unwrap();
    fs::rename(pod.path("bin/uv"), beside.join("uv")).unwrap();
    let start = format!("shift; exec {}/scriptrunner-runner \"$@\"", beside.display());
    pod.prefix = ["sh", "-c", &start, "sh"].map(ToOwned::to_owned).to_vec();
    let path = pod.path("bin");
    std::os::unix::fs::symlink("/bin/sh", path.join("sh")).unwrap();
    let ended = pod.env("PATH", path).run();
    ended.assert_end("Succeeded", "", 0);
    assert!(ended.dir.path().join("synced").exists());
}

/// uv itself: the one that the variable names, else the one in PATH.
fn real_uv() -> Option<PathBuf> {
    let named = std::env::var_os("SCRIPTRUNNER_TEST_UV").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    named.or_else(|| std::env::split_paths(&path).map(|folder| folder.join("uv")).find(|uv| uv.is_file()))
}

#[test]
fn uv_itself_reads_the_block_from_a_folder_of_wheels() {
    let Some(uv) = real_uv() else {
        eprintln!("SKIPPED: there is no uv; name one in SCRIPTRUNNER_TEST_UV");
        return;
    };
    let run = |block: &str| {
        let pod = pod_with_wheels(&script(block, "import srtiny; print(srtiny.answer)"));
        std::os::unix::fs::symlink(&uv, pod.path("bin/uv")).unwrap();
        pod.run()
    };
    let good = run("# requires-python = '>=3.8'\n# dependencies = ['srtiny==1.0']");
    good.assert_end("Succeeded", "", 0);
    assert_eq!(good.only().stdout, "42\n");
    let pod = pod_with_wheels("# /// script\n# ///\nprint('empty')\n");
    std::os::unix::fs::symlink(&uv, pod.path("bin/uv")).unwrap();
    let empty = pod.run();
    empty.assert_end("Succeeded", "", 0);
    assert_eq!(empty.only().stdout, "empty\n");
    for (block, words) in [
        ("# requires-python = '>=3.99'\n# dependencies = ['srtiny']", ">=3.99"),
        ("# dependencies = ['srtiny==9']", "srtiny==9"),
        ("# dependencies = [", "TOML"),
    ] {
        let ended = run(block);
        ended.assert_end("Failed", "DependencyInstallFailed", 3);
        assert!(ended.record.message.contains(words), "{}", ended.record.message);
    }
}
