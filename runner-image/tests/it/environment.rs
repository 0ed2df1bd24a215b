//! What a script finds: its bytes, arguments, environment and folders.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::pod::Pod;

/// Everything that a shell, a template or an encoding could spoil.
const AWKWARD: &str = "'\"`$HOME ${X} $(id) \\ \\n %s {{ }} !! # é ß 漢 🦀 \u{202e}\u{200b}\u{1b}[0m \t\r";

#[test]
fn script_is_run_byte_for_byte() {
    let script = format!(
        "#!/usr/bin/env python3\r\n# {AWKWARD}\n# \r\nimport hashlib, sys\nprint(hashlib.sha256(open(sys.argv[0], 'rb').read()).hexdigest())"
    );
    let ended = Pod::new(&script).run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout.trim(), scriptrunner_api::digest::sha256_hex(script.as_bytes()));
}

#[test]
fn arguments_arrive_as_they_are() {
    let args = [AWKWARD, "", " ", "-c", "--", "*", "a\nb"];
    let script = "import json, sys\nprint(json.dumps(sys.argv[1:]))";
    let ended = Pod::new(script).spec("args", json!(args)).run();
    assert_eq!(serde_json::from_str::<Vec<String>>(&ended.only().stdout).unwrap(), args);
}

#[test]
fn environment_is_the_pods_and_the_runners() {
    let script =
        "import json, os\nprint(json.dumps({**os.environ, 'cwd': os.getcwd(), 'umask': oct(os.umask(0))}))";
    let pod = Pod::new(script)
        .env("USERS", AWKWARD)
        .env("HOME", "/nowhere")
        .env("TMPDIR", "/tmp/x")
        .env("SCRIPTRUNNER_SERVICE_HOST", "10.0.0.1")
        .env("SCRIPTRUNNER_HOST_ROOT", "/forged")
        .flag("--first-serial", 41);
    let work = pod.path("work").display().to_string();
    let ended = pod.run();
    let found: serde_json::Value = serde_json::from_str(&ended.only().stdout).unwrap();
    for (name, value) in [
        ("SCRIPTRUNNER_NODE", "worker-1"),
        ("SCRIPTRUNNER_RUN", "7"),
        ("SCRIPTRUNNER_ATTEMPT", "2"),
        ("SCRIPTRUNNER_SERIAL", "41"),
        ("USERS", AWKWARD),
        ("TMPDIR", "/tmp/x"),
        ("HOME", work.as_str()),
        ("cwd", work.as_str()),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
    for absent in ["SCRIPTRUNNER_HOST_ROOT", "SCRIPTRUNNER_SERVICE_HOST", "VIRTUAL_ENV"] {
        assert!(found.get(absent).is_none(), "{absent}");
    }
    assert_eq!(ended.record.serial, 41);
}

#[test]
fn host_root_is_told_where_it_is_mounted() {
    let pod = Pod::new("import os\nprint(os.environ['SCRIPTRUNNER_HOST_ROOT'])").flag("--host-root", "/host");
    assert_eq!(pod.run().only().stdout, "/host\n");
}

#[test]
fn home_that_the_user_wrote_into_the_spec_is_kept() {
    let pod = Pod::new("import os\nprint(os.environ['HOME'])")
        .env("HOME", "/elsewhere")
        .spec("env", json!([{"name": "HOME", "value": "/elsewhere"}]));
    assert_eq!(pod.run().only().stdout, "/elsewhere\n");
}

#[test]
fn deleted_work_folder_and_changed_script_are_made_again() {
    let script = "import os, shutil, sys\nprint(os.getcwd(), os.listdir())\n\
        os.chmod(sys.argv[0], 0o700)\nopen(sys.argv[0], 'w').write('print(\"changed\")')\n\
        shutil.rmtree(os.getcwd())\n";
    let ended = Pod::new(script).repeat("2", json!({"count": 2, "periodSeconds": 1})).run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.history.len(), 2);
    assert!(ended.history[0].stdout.ends_with("/work []\n"));
    assert_eq!(ended.history[0].stdout, ended.history[1].stdout);
}

#[test]
fn missing_work_folder_is_made_private() {
    let pod = Pod::new("print(1)");
    let work = pod.path("work/deeper");
    let ended = pod.flag("--work-dir", work.display()).run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(work.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    drop(ended);
}
