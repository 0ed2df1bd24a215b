//! Installing dependencies without the internet: pip from a folder of wheels, and a stand-in for uv that writes down what
//! it was asked for.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::json;

use crate::pod::{PYTHON, Pod};

const MAKE_WHEEL: &str = r"
import sys, zipfile
info = 'srtiny-1.0.dist-info'
with zipfile.ZipFile(f'{sys.argv[1]}/srtiny-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('srtiny.py', 'answer = 42\n')
    wheel.writestr(f'{info}/METADATA', 'Metadata-Version: 2.1\nName: srtiny\nVersion: 1.0\n')
    wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    wheel.writestr(f'{info}/RECORD', f'srtiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n')
";

/// Writes down its arguments and index settings, and makes an environment with the wheel in it.
const UV: &str = r#"#!@PYTHON@
import glob, json, os, subprocess, sys, zipfile
with open("@DIR@/uv.log", "a") as log:
    settings = {name: value for name, value in os.environ.items() if name.startswith("UV_")}
    log.write(json.dumps({"args": sys.argv[1:], "settings": settings}) + "\n")
if "venv" in sys.argv:
    subprocess.run([sys.argv[sys.argv.index("--python") + 1], "-m", "venv", "--without-pip", sys.argv[-1]], check=True)
else:
    [site] = glob.glob(os.path.dirname(sys.argv[sys.argv.index("--python") + 1]) + "/../lib/*/site-packages")
    zipfile.ZipFile("@DIR@/wheels/srtiny-1.0-py3-none-any.whl").extractall(site)
"#;

const SCRIPT: &str =
    "import os, sys, srtiny\nprint(srtiny.answer, sys.prefix == os.environ['VIRTUAL_ENV'], sys.prefix)\n";

pub(crate) fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A pod with a folder of wheels, and a PATH where only this test's programs are.
pub(crate) fn pod_with_wheels(script: &str) -> Pod {
    let pod = Pod::new(script);
    let wheels = pod.path("wheels");
    fs::create_dir(&wheels).unwrap();
    let made = Command::new(&*PYTHON).args(["-c", MAKE_WHEEL]).arg(&wheels).status().unwrap();
    assert!(made.success());
    let bin = pod.path("bin");
    pod.env("PATH", bin).env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", wheels)
}

fn with_uv(pod: Pod) -> Pod {
    let uv = UV.replace("@PYTHON@", &PYTHON.display().to_string());
    write_program(&pod.path("bin/uv"), &uv.replace("@DIR@", &pod.dir.path().display().to_string()));
    pod
}

fn uv_calls(dir: &Path) -> Vec<serde_json::Value> {
    let log = fs::read_to_string(dir.join("uv.log")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn pip_installs_where_there_is_no_uv() {
    let ended = pod_with_wheels(SCRIPT).spec("pip", json!(["srtiny == 1.0 ; python_version > '3'"])).run();
    ended.assert_end("Succeeded", "", 0);
    assert!(ended.only().stdout.starts_with("42 True "), "{ended:?}");
    // The installer's words are in the log, and not the script's.
    assert_eq!(ended.stdout, ended.only().stdout.as_bytes());
    assert!(String::from_utf8_lossy(&ended.stderr).contains("Successfully installed srtiny-1.0"));
    assert!(!ended.dir.path().join("state/cache").exists());
}

#[test]
fn failed_install_keeps_the_script_from_running() {
    let pod = pod_with_wheels("open('ran', 'w')").spec("pip", json!(["no-such-package==9"]));
    let ended = pod.run();
    ended.assert_end("Failed", "DependencyInstallFailed", 3);
    assert_eq!((ended.record.executions, ended.history.len()), (0, 0));
    assert!(ended.record.message.starts_with("pip install exited with code 1: "), "{ended:?}");
    assert!(ended.record.message.contains("no-such-package==9"), "{ended:?}");
    assert!(!ended.dir.path().join("work/ran").exists());
}

#[test]
fn uv_installs_where_there_is_one() {
    let requirements = ["srtiny == 1.0 ; python_version > '3'", "other @ file:///a b.whl"];
    let ended = with_uv(pod_with_wheels(SCRIPT)).spec("pip", json!(requirements)).run();
    ended.assert_end("Succeeded", "", 0);
    assert!(ended.only().stdout.starts_with("42 True "), "{ended:?}");
    let state = ended.dir.path().join("state");
    let calls = uv_calls(ended.dir.path());
    let python = ended.dir.path().join("bin/python3");
    assert_eq!(
        calls[0]["args"],
        json!(["--no-progress", "venv", "--python", python, "--", state.join("venv")])
    );
    let mut install = json!([
        "--no-progress",
        "pip",
        "install",
        "--no-index",
        "--python",
        state.join("venv/bin/python"),
        "--"
    ]);
    install.as_array_mut().unwrap().extend(requirements.map(Into::into));
    assert_eq!(calls[1]["args"], install);
    let settings = &calls[1]["settings"];
    assert_eq!(settings["UV_CACHE_DIR"], json!(state.join("cache")));
    assert_eq!(settings["UV_FIND_LINKS"], json!(ended.dir.path().join("wheels")));
    assert_eq!(calls.len(), 2);
}

#[test]
fn python_named_by_path_sees_the_dependencies() {
    let script = format!("#!{}\n{SCRIPT}", PYTHON.display());
    let ended = with_uv(pod_with_wheels(&script)).spec("pip", json!(["srtiny"])).run();
    ended.assert_end("Succeeded", "", 0);
    assert!(ended.only().stdout.starts_with("42 True "), "{ended:?}");
    assert_eq!(uv_calls(ended.dir.path())[0]["args"][3], json!(&*PYTHON));
}

#[test]
fn failing_uv_is_quoted_with_its_last_lines() {
    let pod = pod_with_wheels("open('ran', 'w')").spec("pip", json!(["x"]));
    let uv = format!(
        "#!{}\nimport sys\nfor i in range(1000): print('line', i, '\\033[31m', file=sys.stderr)\nsys.exit(2)",
        PYTHON.display()
    );
    write_program(&pod.path("bin/uv"), &uv);
    let ended = pod.run();
    ended.assert_end("Failed", "DependencyInstallFailed", 3);
    let message = &ended.record.message;
    assert!(message.starts_with("uv venv exited with code 2: line ") && message.len() <= 512, "{message}");
    assert!(message.ends_with("line 999 \u{241b}[31m"), "{message}");
}

#[test]
fn image_without_python_is_told() {
    let pod = pod_with_wheels("x").spec("pip", json!(["x"])).shell();
    fs::remove_file(pod.path("bin/python3")).unwrap();
    let ended = pod.run();
    ended.assert_end("Failed", "DependencyInstallFailed", 3);
    assert!(ended.record.message.contains("\"python3\""), "{ended:?}");
}
