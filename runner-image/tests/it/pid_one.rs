//! The runner as PID 1 of a PID namespace, where the kernel treats it as it does in a pod.

use std::process::Command;

use crate::pod::{Ended, Pod};

const UNSHARE: [&str; 7] =
    ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"];

#[expect(clippy::print_stderr, reason = "what is not tested is said loudly")]
/// None, loudly, where this machine makes no namespaces.
fn run_as_pid_one(script: &str) -> Option<Ended> {
    let possible = Command::new(UNSHARE[0]).args(&UNSHARE[1..]).arg("true").status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this machine makes no PID namespaces with {UNSHARE:?}");
        return None;
    }
    let mut pod = Pod::new(script);
    pod.prefix = UNSHARE.map(ToOwned::to_owned).to_vec();
    Some(pod.run())
}

#[test]
fn orphans_are_buried_while_the_script_runs() {
    let script = r"
import os, time
for _ in range(50):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            time.sleep(0.01)
        os._exit(0)
    os.waitpid(child, 0)
def others():
    return {pid for pid in os.listdir('/proc') if pid.isdigit()} - {'1', str(os.getpid())}
while others():
    time.sleep(0.01)
print(os.getppid(), 'alone')
";
    let Some(ended) = run_as_pid_one(script) else { return };
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout, "1 alone\n");
}

#[test]
fn sigterm_reaches_pid_one() {
    let script =
        "import os, signal, time\nprint('begun', flush=True)\nos.kill(1, signal.SIGTERM)\ntime.sleep(1000)";
    let Some(ended) = run_as_pid_one(script) else { return };
    ended.assert_end("Stopped", "Interrupted", 6);
    assert_eq!((ended.only().signal, ended.only().stdout.as_str()), (Some(15), "begun\n"));
}
