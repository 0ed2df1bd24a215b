//! What cannot work is refused with one line that says what to do.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Output},
};

use crate::owned::{Owned, PROGRAM, run};

fn line(output: &Output) -> String {
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}

#[test]
fn another_user_is_told_to_use_sudo() {
    let _owned = Owned::new(&[]);
    // The folder of the program may be closed to others, an open copy is not.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let program = folder.path().join("testcluster");
    std::fs::copy(PROGRAM, &program).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let said = line(&Command::new(program).args(["up", "--name", "tc-none"]).uid(65534).output().unwrap());
    assert!(said.contains("not root") && said.contains("sudo"), "{said}");
}

#[test]
fn without_go_the_line_names_it() {
    let _owned = Owned::new(&[]);
    let said =
        line(&Command::new(PROGRAM).args(["up", "--name", "tc-none"]).env("PATH", "/none").output().unwrap());
    assert!(said.contains("install Go 1.26"), "{said}");
}

#[test]
fn a_bad_name_and_an_unknown_cluster_are_named() {
    let _owned = Owned::new(&[]);
    assert!(line(&run("up --name Up_1")).contains("\"Up_1\""));
    assert!(line(&run("status --name tc-none")).contains("up --name tc-none"));
}
