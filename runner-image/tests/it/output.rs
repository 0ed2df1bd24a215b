//! What is kept of the output, and that keeping it costs little whatever is printed.

use std::{fs, io::Read, process::Stdio};

use scriptrunner_api::{digest::sha256_hex, text::make_harmless};
use serde_json::json;

use crate::pod::{Pod, Running, wait_for};

const FLOOD: &str = r"
import os, sys, time
chunk = b'x' * 65536
for _ in range(1600):
    os.write(1, chunk)
os.write(1, b'\nend\n')
open('flooded', 'w').close()
while not os.path.exists('go'):
    time.sleep(0.01)
";

#[test]
fn flood_of_one_line_is_counted_whole_in_little_memory() {
    let pod = Pod::new(FLOOD).flag("--stdout-limit-bytes", 100);
    let child = pod.command().stdout(Stdio::null()).spawn().unwrap();
    let running = Running::new(pod.dir, child);
    running.wait_for_file("flooded");
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid().as_raw_pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 40 * 1024, "{peak_kib} KiB");
    fs::write(running.path("work/go"), "").unwrap();
    let ended = running.wait();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout_bytes, Some(1600 * 65536 + 5));
    assert_eq!(ended.only().stdout, format!("{}\nend\n", "x".repeat(95)));
}

#[test]
fn awkward_bytes_become_text_and_are_passed_on_unchanged() {
    let printed =
        b"\xff\xfe broken \xc3\x28\n\x1b[31mred\x1b[0m\x07\r\n\xe2\x80\xae\xf0\x9f\xa6\x80 end \xf0\x9f"
            .to_vec();
    let script = format!("import os\nos.write(1, bytes({printed:?}))\nos.write(2, bytes({printed:?}))\n");
    let ended = Pod::new(script).run();
    ended.assert_end("Succeeded", "", 0);
    let execution = ended.only();
    assert_eq!(execution.stdout, make_harmless(&printed));
    assert_eq!(execution.stderr, make_harmless(&printed));
    assert_eq!(execution.stdout_bytes, Some(printed.len() as u64));
    assert_eq!(ended.stdout, printed);
    assert!(ended.stderr.starts_with(&printed));
}

#[test]
fn passed_on_output_is_complete_and_in_order() {
    let script = "import sys\nfor i in range(200000):\n    print(i)\n";
    let ended = Pod::new(script).run();
    let expected = (0..200_000).map(|i: u32| i.to_string() + "\n").collect::<Vec<_>>().concat();
    assert_eq!(sha256_hex(&ended.stdout), sha256_hex(expected.as_bytes()));
    assert_eq!(ended.only().stdout_bytes, Some(expected.len() as u64));
    assert!(ended.only().stdout.ends_with("199998\n199999\n"));
}

#[test]
fn script_that_closes_its_streams_early_is_waited_for() {
    let script = "import os, time\nos.write(1, b'early')\nos.close(1)\nos.close(2)\nopen('closed', 'w')\n\
                  while not os.path.exists('go'):\n    time.sleep(0.01)\nos._exit(3)";
    let running = Pod::new(script).start();
    running.wait_for_file("closed");
    fs::write(running.path("work/go"), "").unwrap();
    let ended = running.wait();
    ended.assert_end("Failed", "ScriptFailed", 1);
    assert_eq!((ended.only().exit_code, ended.only().stdout.as_str()), (Some(3), "early"));
}

#[test]
fn closed_log_harms_nobody() {
    let pod = Pod::new("for i in range(100000):\n    print(i)\n");
    let mut child = pod.command().stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = Running::new(pod.dir, child).wait();
    ended.assert_end("Succeeded", "", 0);
    assert!(ended.only().stdout.ends_with("99999\n"));
}

#[test]
fn full_log_holds_nobody_up_for_ever() {
    let pod = Pod::new("print('x' * 1000000)\nprint('end')\n");
    let mut child = pod.command().stdout(Stdio::piped()).spawn().unwrap();
    let mut log = child.stdout.take().unwrap();
    let ended = Running::new(pod.dir, child).wait();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout_bytes, Some(1_000_005));
    assert!(ended.only().stdout.ends_with("end\n"));
    let mut logged = Vec::new();
    log.read_to_end(&mut logged).unwrap();
    assert!(!logged.is_empty() && logged.len() < 1_000_005);
}

#[test]
fn slow_log_gets_everything() {
    let pod = Pod::new("print('x' * 1000000)\nprint('end')\nopen('printed', 'w')\n");
    let mut child = pod.command().stdout(Stdio::piped()).spawn().unwrap();
    let mut log = child.stdout.take().unwrap();
    // The script cannot get far before somebody reads.
    wait_for("the first byte", || (log.read(&mut [0]).unwrap() == 1).then_some(()));
    assert!(!pod.path("work/printed").exists());
    let mut logged = Vec::new();
    log.read_to_end(&mut logged).unwrap();
    assert_eq!(logged.len(), 1_000_004);
    Running::new(pod.dir, child).wait().assert_end("Succeeded", "", 0);
}

#[test]
fn limit_zero_keeps_nothing_but_counts() {
    let pod = Pod::new("print('hello')").flag("--stdout-limit-bytes", 0).spec("args", json!([]));
    let ended = pod.run();
    assert_eq!((ended.only().stdout.as_str(), ended.only().stdout_bytes), ("", Some(6)));
}

#[test]
fn beginning_is_kept_if_told_and_everything_counts() {
    let script = "printf 'a\u{e4}b'; head -c 300000 /dev/zero | tr '\\0' y";
    let run = |truncation: &str| {
        Pod::new(script).shell().flag("--stdout-limit-bytes", 5).flag("--truncation", truncation).run()
    };
    let (head, tail) = (run("head"), run("tail"));
    assert_eq!((head.only().stdout.as_str(), tail.only().stdout.as_str()), ("a\u{e4}by", "yyyyy"));
    assert_eq!((head.only().stdout_bytes, tail.only().stdout_bytes), (Some(300_004), Some(300_004)));
    assert_eq!(head.only().digest, tail.only().digest);
    assert_eq!(head.stdout.len(), 300_004);
}
