//! The runner copies itself to where pods of other images find it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use crate::install::write_program;

const RUNNER: &str = env!("CARGO_BIN_EXE_scriptrunner-runner");

fn copy_to(folder: &Path, search_path: &Path) -> Output {
    let mut command = Command::new(RUNNER);
    command.args(["copy-runner", "--to"]).arg(folder);
    command.env_clear().env("PATH", search_path).output().unwrap()
}

#[test]
fn runner_and_uv_are_copied_executable_and_replace_older_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (to, bin) = (dir.path().join("to"), dir.path().join("bin"));
    fs::create_dir(&to).unwrap();
    fs::create_dir(&bin).unwrap();
    let without = copy_to(&to, &bin);
    assert!(without.status.success(), "{without:?}");
    assert!(String::from_utf8_lossy(&without.stderr).contains("no uv to copy"), "{without:?}");
    write_program(&bin.join("uv"), "#!/bin/sh\necho uv\n");
    fs::write(to.join("scriptrunner-runner"), "older").unwrap();
    let with = copy_to(&to, &bin);
    assert!(with.status.success() && with.stderr.is_empty(), "{with:?}");
    assert_eq!(fs::read(to.join("scriptrunner-runner")).unwrap(), fs::read(RUNNER).unwrap());
    assert_eq!(fs::read(to.join("uv")).unwrap(), b"#!/bin/sh\necho uv\n");
    let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["scriptrunner-runner", "uv"]);
    for name in names {
        assert_eq!(fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777, 0o755);
    }
    let version = Command::new(to.join("scriptrunner-runner")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("scriptrunner-runner "), "{version:?}");
}

#[test]
fn folder_that_is_not_there_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let output = copy_to(&dir.path().join("missing"), dir.path());
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        words.contains("cannot copy \"/proc/self/exe\" to ") && words.contains("mount a folder"),
        "{words}"
    );
}
