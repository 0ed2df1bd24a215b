//! Packages of the operating system, indexes and authorities, with stand-ins that write down what they were asked for.

use std::{fs, path::Path};

use rustix::process::geteuid;
use scriptrunner_api::digest::sha256_hex;
use serde_json::json;

use crate::{
    install::write_program,
    pod::{PYTHON, Pod},
};

/// Writes down its arguments and what of its environment matters here.
const STAND_IN: &str =
    "#!/bin/sh\necho \"${0##*/} $* ${DEBIAN_FRONTEND-} ${SSL_CERT_FILE-}\" >> @DIR@/calls\n";

/// A pod on whose PATH only the given stand-ins are, and nothing else is.
fn pod(script: &str, programs: &[&str]) -> Pod {
    let pod = Pod::new(script).spec("interpreter", json!(["/bin/sh"]));
    let bin = pod.path("bin");
    fs::remove_file(bin.join("python3")).unwrap();
    for name in programs {
        write_program(&bin.join(name), &STAND_IN.replace("@DIR@", &pod.dir.path().display().to_string()));
    }
    pod.env("PATH", bin)
}

fn calls(dir: &Path) -> String {
    fs::read_to_string(dir.join("calls")).unwrap_or_default().replace(&dir.display().to_string(), "DIR")
}

#[expect(clippy::print_stderr, reason = "what is not tested is said loudly")]
fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: packages of the operating system need root");
    }
    is_root
}

#[test]
fn first_program_of_the_image_installs_packages_before_the_script() {
    if !is_root() {
        return;
    }
    let dnf = "-y --setopt=install_weak_deps=False install a b-1.0";
    for (programs, expected) in [
        (&["dnf", "microdnf", "apt-get"][..], format!("dnf {dnf}  \n")),
        (&["microdnf", "apt-get"], format!("microdnf {dnf}  \n")),
        (
            &["apt-get"],
            "apt-get -o APT::Update::Error-Mode=any update noninteractive \n\
             apt-get install -y --no-install-recommends -- a b-1.0 noninteractive \n"
                .to_owned(),
        ),
    ] {
        let ended =
            pod("echo ${DEBIAN_FRONTEND-none}", programs).spec("packages", json!(["a", "b-1.0"])).run();
        ended.assert_end("Succeeded", "", 0);
        assert_eq!(calls(ended.dir.path()), expected);
        assert_eq!(ended.only().stdout, "none\n");
    }
}

#[test]
fn image_without_a_package_program_and_a_failing_one_keep_the_script_from_running() {
    let ended = pod("echo > ran", &[]).spec("packages", json!(["a"])).run();
    ended.assert_end("Failed", "DependencyInstallFailed", 3);
    assert!(ended.record.message.contains("one of dnf, microdnf and apt-get"), "{ended:?}");
    if !is_root() {
        return;
    }
    let failing = pod("echo > ran", &[]).spec("packages", json!(["a"]));
    write_program(&failing.path("bin/dnf"), "#!/bin/sh\necho no package a >&2\nexit 5\n");
    let ended = failing.run();
    ended.assert_end("Failed", "DependencyInstallFailed", 3);
    assert_eq!(ended.record.message, "dnf install exited with code 5: no package a");
    assert!(!ended.dir.path().join("work/ran").exists());
}

#[test]
fn installers_trust_the_given_authorities_and_the_script_does_not() {
    if !is_root() {
        return;
    }
    for (program, option) in
        [("dnf", "--setopt=sslcacert=DIR/state/"), ("apt-get", "-o Acquire::https::CAInfo=DIR/state/")]
    {
        let pod = pod("echo ${SSL_CERT_FILE-none}", &[program])
            .spec("packages", json!(["a"]))
            .spec("trustedCASHA256", json!(sha256_hex(b"PEM")));
        fs::write(pod.path("input/trusted-ca.pem"), "PEM").unwrap();
        let ended = pod.run();
        ended.assert_end("Succeeded", "", 0);
        assert!(calls(ended.dir.path()).contains(&format!("{option}trusted-ca.pem ")), "{ended:?}");
        assert_eq!(ended.only().stdout, "none\n");
        assert_eq!(fs::read(ended.dir.path().join("state/trusted-ca.pem")).unwrap(), b"PEM");
    }
}

#[test]
fn indexes_of_the_spec_reach_uv_and_passwords_reach_nobody() {
    let pod = Pod::new("echo > ran").shell().spec("pip", json!(["x"]));
    let uv = "#!/bin/sh\n[ \"$1 $2\" = \"--no-progress venv\" ] && exit 0\n\
        echo \"asking $UV_DEFAULT_INDEX with hunter22\"\nprintf 'from %s' \"$UV_DEFAULT_INDEX\" >&2\n\
        env | grep -e UV_ -e PIP_ -e SSL_ > ../settings\nexit 1\n";
    write_program(&pod.path("bin/uv"), uv);
    let ended = pod
        .spec("indexURL", json!("https://me:hunter22@index/simple"))
        .spec("extraIndexURLs", json!(["https://a/", "https://b/"]))
        .spec("trustedCASHA256", json!(sha256_hex(b"")))
        .env("PIP_INDEX_URL", "https://environment/");
    fs::write(ended.path("input/trusted-ca.pem"), "").unwrap();
    let ended = ended.run();
    ended.assert_end("Failed", "DependencyInstallFailed", 3);
    assert_eq!(ended.record.message, "uv pip install exited with code 1: from https://***@index/simple");
    let log = String::from_utf8_lossy(&ended.stderr);
    assert!(log.contains("asking https://***@index/simple with ***"), "{log}");
    assert!(!log.contains("hunter22"), "{log}");
    let settings = fs::read_to_string(ended.dir.path().join("settings")).unwrap();
    for line in [
        "UV_DEFAULT_INDEX=https://me:hunter22@index/simple",
        "UV_INDEX=https://a/ https://b/",
        "UV_PYTHON_DOWNLOADS=never",
        "PIP_CERT=",
        "SSL_CERT_FILE=",
    ] {
        assert!(settings.lines().any(|set| set.starts_with(line)), "{line}: {settings}");
    }
}

#[test]
fn installer_that_takes_too_long_is_ended() {
    let pod = Pod::new("echo > ran").shell().spec("pip", json!(["x"]));
    write_program(&pod.path("bin/uv"), "#!/bin/sh\nexec sleep 1000\n");
    let ended = pod.flag("--install-timeout-seconds", 1).run();
    ended.assert_end("Failed", "DependencyInstallFailed", 3);
    let message = &ended.record.message;
    assert!(message.starts_with("uv venv took longer than installTimeoutSeconds, 1 s"), "{message}");
    assert!(!ended.dir.path().join("work/ran").exists());
}

#[test]
fn folder_of_the_users_cache_is_kept() {
    for (variables, kept) in [
        (&[("UV_CACHE_DIR", "cache")][..], Some("cache/kept")),
        (&[("PIP_CACHE_DIR", "cache")], Some("cache/uv/kept")),
        (&[("PIP_CACHE_DIR", "cache"), ("UV_CACHE_DIR", "other")], Some("other/kept")),
        (&[("PIP_CACHE_DIR", "")], None),
    ] {
        let mut pod = Pod::new("true").shell().spec("pip", json!(["x"]));
        let uv = format!(
            "#!/bin/sh\nmkdir -p \"$UV_CACHE_DIR\" || exit 1\necho > \"$UV_CACHE_DIR/kept\"\n\
            case $2 in venv) exec {} -m venv --without-pip ../state/venv;; esac\n",
            PYTHON.display()
        );
        write_program(&pod.path("bin/uv"), &uv);
        for &(name, folder) in variables {
            let folder = if folder.is_empty() { folder.into() } else { pod.path(folder) };
            pod = pod.env(name, folder);
        }
        let ended = pod.run();
        ended.assert_end("Succeeded", "", 0);
        let found = ["cache/kept", "cache/uv/kept", "other/kept", "state/cache/kept", "work/uv/kept"]
            .into_iter()
            .filter(|file| ended.dir.path().join(file).exists());
        assert_eq!(found.collect::<Vec<_>>(), Vec::from_iter(kept), "{variables:?}: {ended:?}");
    }
}
