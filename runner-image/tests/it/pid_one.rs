//! The runner as PID 1 of a PID namespace, where the kernel treats it as it does in a pod.

use std::process::Command;

use crate::{
    door::Door,
    pod::{Ended, Pod, Running},
};

const UNSHARE: [&str; 7] =
    ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"];

fn run_as_pid_one(pod: Pod) -> Option<Ended> {
    start_as_pid_one(pod).map(Running::wait)
}

#[expect(clippy::print_stderr, reason = "what is not tested is said loudly")]
/// None, loudly, where this machine makes no namespaces.
fn start_as_pid_one(mut pod: Pod) -> Option<Running> {
    let possible = Command::new(UNSHARE[0]).args(&UNSHARE[1..]).arg("true").status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this machine makes no PID namespaces with {UNSHARE:?}");
        return None;
    }
    pod.prefix = UNSHARE.map(ToOwned::to_owned).to_vec();
    Some(pod.start())
}

const ORPHANS: &str = r"
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

#[test]
fn orphans_are_buried_while_the_script_runs() {
    let Some(ended) = run_as_pid_one(Pod::new(ORPHANS)) else { return };
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout, "1 alone\n");
}

#[test]
fn sigterm_reaches_pid_one() {
    let script =
        "import os, signal, time\nprint('begun', flush=True)\nos.kill(1, signal.SIGTERM)\ntime.sleep(1000)";
    let Some(ended) = run_as_pid_one(Pod::new(script)) else { return };
    ended.assert_end("Stopped", "Interrupted", 6);
    assert_eq!((ended.only().signal, ended.only().stdout.as_str()), (Some(15), "begun\n"));
}

#[test]
fn session_changes_nothing_about_the_duties() {
    let door = Door::open();
    let pod = Pod::new(ORPHANS).session(door.address, &door.authority);
    let Some(running) = start_as_pid_one(pod) else { return };
    let visit = door.visit();
    visit.ack(&visit.last_snapshot().record);
    let ended = running.wait();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout, "1 alone\n");
    let script =
        "import os, signal, time\nprint('begun', flush=True)\nos.kill(1, signal.SIGTERM)\ntime.sleep(1000)";
    let pod = Pod::new(script).session(door.address, &door.authority);
    let Some(running) = start_as_pid_one(pod) else { return };
    let visit = door.visit();
    visit.ack(&visit.last_snapshot().record);
    running.wait().assert_end("Stopped", "Interrupted", 6);
}
