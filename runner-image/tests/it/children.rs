//! What scripts leave behind: children that hold the streams, daemons, zombies.

use std::{fs, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    door::Door,
    pod::{Ended, Pod, is_alive},
};

#[track_caller]
fn assert_whole_and_alone(ended: &Ended) {
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout, "done\n");
    let millis = ended.only().duration_millis.unwrap();
    assert!(u128::from(millis) < Duration::from_mins(1).as_millis(), "{millis} ms");
    let pid = ended.file("pid");
    assert!(!is_alive(&pid), "process {pid} survived");
}

#[test]
fn background_child_that_holds_the_streams_is_killed() {
    let ended = Pod::new("sleep 1000 & echo $! > pid\necho done").shell().run();
    assert_whole_and_alone(&ended);
}

#[test]
fn daemon_in_a_session_of_its_own_is_killed() {
    let script = "import os, signal, time\n\
        if os.fork():\n    \
            while not os.path.exists('pid'):\n        time.sleep(0.01)\n    \
            print('done')\n    os._exit(0)\n\
        os.setsid()\n\
        if os.fork():\n    os._exit(0)\n\
        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
        open('pid.new', 'w').write(str(os.getpid()))\n\
        os.rename('pid.new', 'pid')\n\
        time.sleep(1000)\n";
    assert_whole_and_alone(&Pod::new(script).run());
}

#[test]
fn daemon_of_a_script_that_is_stopped_is_killed_where_the_runner_is_not_pid_one() {
    let script = "setsid sh -c 'trap \"\" TERM; echo $$ > pid.new; mv pid.new pid; exec sleep 1000' > /dev/null 2>&1 &\nwait";
    let running = Pod::new(script).shell().start();
    running.wait_for_file("pid");
    running.signal(Signal::TERM);
    let ended = running.wait();
    ended.assert_end("Stopped", "Interrupted", 6);
    let pid = ended.file("pid");
    assert!(!is_alive(&pid), "process {pid} survived");
}

#[test]
fn daemon_of_an_installer_is_killed_before_the_script_begins() {
    let pod = Pod::new("[ ! -e /proc/$(cat pid) ] || echo alive").shell().spec("pip", json!(["x"]));
    let uv = "#!/bin/sh\n[ $2 = venv ] || exit 0\nsetsid sh -c 'echo $$ > pid.new; mv pid.new pid; exec sleep 1000' &\n\
        while [ ! -e pid ]; do sleep 0.01; done\n";
    crate::install::write_program(&pod.path("bin/uv"), uv);
    let ended = pod.run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout, "");
    assert!(!is_alive(&ended.file("pid")));
}

#[test]
fn late_output_of_a_short_child_is_kept() {
    // The child writes after the script has ended; it has a moment for that.
    let script = "import os, time\nparent = os.getpid()\nif os.fork():\n    os._exit(0)\n\
        while os.getppid() == parent:\n    time.sleep(0.001)\nos.write(1, b'late')\n";
    let ended = Pod::new(script).run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.only().stdout, "late");
}

#[test]
fn chain_of_daemons_is_gone_before_the_next_execution() {
    let script = "import os, sys, time\n\
        if os.environ['SCRIPTRUNNER_SERIAL'] == '2':\n    \
            alive = [pid for pid in open('pids').read().split() if os.path.exists(f'/proc/{pid}')]\n    \
            print('alive:', alive)\n    sys.exit()\n\
        pipe = os.pipe()\n\
        if os.fork():\n    os.close(pipe[1])\n    os.read(pipe[0], 1)\n    os._exit(0)\n\
        for depth in range(8):\n    \
            os.setsid() if os.getsid(0) != os.getpid() else None\n    \
            open('pids', 'a').write(f'{os.getpid()}\\n')\n    \
            if os.fork():\n        time.sleep(1000)\n\
        open('pids', 'a').write(f'{os.getpid()}\\n')\n\
        os.write(pipe[1], b'.')\n\
        time.sleep(1000)\n";
    let pod = Pod::new(script).repeat("2", json!({"count": 2, "periodSeconds": 1}));
    let ended = pod.run();
    ended.assert_end("Succeeded", "", 0);
    assert_eq!(ended.history[1].stdout, "alive: []\n");
    assert_eq!(ended.file("pids").lines().count(), 9);
}

#[test]
fn script_starts_with_clean_signals_and_none_of_the_runners_descriptors() {
    let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status; for fd in /proc/$$/fd/*; do readlink $fd; done";
    assert_clean_start(&Pod::new(script).shell().run());
    // With a session the runner has sockets and a thread besides.
    let door = Door::open();
    let script = format!("while [ ! -e go ]; do sleep 0.01; done; {script}");
    let running = Pod::new(script).shell().session(door.address, &door.authority).start();
    let visit = door.visit();
    fs::write(running.path("work/go"), "").unwrap();
    visit.ack(&visit.last_snapshot().record);
    assert_clean_start(&running.wait());
}

#[track_caller]
fn assert_clean_start(ended: &Ended) {
    let lines: Vec<&str> = ended.only().stdout.lines().collect();
    assert_eq!(lines[0], "SigBlk:\t0000000000000000");
    let ignored = u64::from_str_radix(lines[1].trim_start_matches("SigIgn:\t"), 16).unwrap();
    for signal in [Signal::INT, Signal::PIPE, Signal::TERM, Signal::CHILD] {
        assert_eq!(ignored >> (signal.as_raw() - 1) & 1, 0, "{signal:?} is ignored");
    }
    // Nothing of the runner's: its two pipes, and the script that sh has open.
    let inherited: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| Some(fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .collect();
    let own: Vec<_> =
        lines[2..].iter().filter(|target| !inherited.contains(&(**target).to_owned())).collect();
    let mut kinds: Vec<_> =
        own.iter().map(|target| target.split_once(':').map_or("file", |(kind, _)| kind)).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["file", "pipe", "pipe"], "{own:?}");
}

#[test]
fn thread_of_the_session_takes_no_signal() {
    let door = Door::open();
    let running =
        Pod::new("echo > started; exec sleep 1000").shell().session(door.address, &door.authority).start();
    let visit = door.visit();
    running.wait_for_file("started");
    let pid = running.pid().as_raw_pid();
    let blocked: Vec<(String, u64)> = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|task| {
            let path = task.unwrap().path();
            let name = fs::read_to_string(path.join("comm")).unwrap().trim().to_owned();
            let status = fs::read_to_string(path.join("status")).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
            (name, u64::from_str_radix(mask, 16).unwrap())
        })
        .collect();
    assert_eq!(blocked.len(), 2, "{blocked:?}");
    for (name, mask) in blocked {
        for signal in [Signal::INT, Signal::TERM, Signal::CHILD] {
            assert_eq!(mask >> (signal.as_raw() - 1) & 1 == 1, name == "session", "{name} {signal:?}");
        }
    }
    running.signal(Signal::TERM);
    visit.ack(&visit.last_snapshot().record);
    running.wait().assert_end("Stopped", "Interrupted", 6);
}

#[test]
fn daemons_are_killed_and_buried_beside_a_session() {
    let script = "import os, time\n\
        if os.fork():\n    \
            while not os.path.exists('pid'):\n        time.sleep(0.01)\n    \
            print('done')\n    os._exit(0)\n\
        os.setsid()\n\
        if os.fork():\n    os._exit(0)\n\
        open('pid.new', 'w').write(str(os.getpid()))\n\
        os.rename('pid.new', 'pid')\n\
        time.sleep(1000)\n";
    let door = Door::open();
    let running = Pod::new(script).session(door.address, &door.authority).start();
    let visit = door.visit();
    let last = visit.last_snapshot();
    // Buried too: the runner still lives, so a zombie would show.
    let children = format!("/proc/{0}/task/{0}/children", running.pid().as_raw_pid());
    assert_eq!(fs::read_to_string(children).unwrap_or_default(), "");
    visit.ack(&last.record);
    assert_whole_and_alone(&running.wait());
}
