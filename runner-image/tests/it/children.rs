//! What scripts leave behind: children that hold the streams, daemons, zombies.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::pod::{Ended, Pod, is_alive};

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
    let ended = Pod::new(script).shell().run();
    let lines: Vec<&str> = ended.only().stdout.lines().collect();
    assert_eq!(lines[0], "SigBlk:\t0000000000000000");
    let ignored = u64::from_str_radix(lines[1].trim_start_matches("SigIgn:\t"), 16).unwrap();
    for signal in [Signal::INT, Signal::PIPE, Signal::TERM, Signal::CHILD] {
        assert_eq!(ignored >> (signal.as_raw() - 1) & 1, 0, "{signal:?} is ignored");
    }
    // Nothing of the runner's: its two pipes, and the script that sh has open.
    let inherited: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .collect();
    let own: Vec<_> =
        lines[2..].iter().filter(|target| !inherited.contains(&(**target).to_owned())).collect();
    let mut kinds: Vec<_> =
        own.iter().map(|target| target.split_once(':').map_or("file", |(kind, _)| kind)).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["file", "pipe", "pipe"], "{own:?}");
}
