//! A pod without a cluster: folders, pinned inputs and the runner's process, and what became of them.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use scriptrunner_api::{
    digest::sha256_hex,
    snapshot::{Record, Snapshot},
    v1alpha1::Execution,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::door::{Authority, NAME};

/// Long enough for two busy cores; every wait ends as soon as its condition holds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The Python itself, not a shim that looks at HOME or the working folder.
pub(crate) static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let output = output.expect("these tests need a python3 in PATH");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
});

/// Waits until the condition yields a value.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "waited too long for: {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// What the runner is to be started with.
pub(crate) struct Pod {
    pub(crate) dir: TempDir,
    pub(crate) spec: Value,
    pub(crate) flags: Vec<(&'static str, String)>,
    pub(crate) env: Vec<(OsString, OsString)>,
    /// What stands before the runner on its command line.
    pub(crate) prefix: Vec<String>,
}

/// A started runner.
pub(crate) struct Running {
    pub(crate) dir: TempDir,
    pub(crate) child: Runner,
}

/// The runner's process. Told to stop when a test gives up on it, so that nothing outlives the tests.
pub(crate) struct Runner(Child);

impl Drop for Runner {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        }
    }
}

/// A runner that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) dir: TempDir,
    pub(crate) code: Option<i32>,
    pub(crate) record: Record,
    pub(crate) history: Vec<Execution>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Pod {
    /// A pod that runs the script once, with generous limits.
    pub(crate) fn new(script: impl AsRef<[u8]>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["input", "work", "state", "bin"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("input/script"), script.as_ref()).unwrap();
        std::os::unix::fs::symlink(&*PYTHON, dir.path().join("bin/python3")).unwrap();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", dir.path().join("bin").display());
        let path_of = |name: &str| dir.path().join(name).display().to_string();
        let mut flags: Vec<(&'static str, String)> = [
            ("--protocol", "1"),
            ("--node", "worker-1"),
            ("--run", "7"),
            ("--attempt", "2"),
            ("--first-serial", "1"),
            ("--remaining", "1"),
            ("--history-limit", "5"),
            ("--stdout-limit-bytes", "4096"),
            ("--stderr-limit-bytes", "4096"),
            ("--grace-seconds", "30"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .to_vec();
        flags.push(("--script-sha256", sha256_hex(script.as_ref())));
        flags.push(("--input-dir", path_of("input")));
        flags.push(("--work-dir", path_of("work")));
        flags.push(("--state-dir", path_of("state")));
        flags.push(("--termination-log", path_of("termination-log")));
        Self {
            spec: json!({"scriptSha256": sha256_hex(script.as_ref())}),
            flags,
            env: vec![("PATH".into(), path.into())],
            prefix: Vec::new(),
            dir,
        }
    }

    pub(crate) fn spec(mut self, key: &str, value: Value) -> Self {
        self.spec[key] = value;
        self
    }

    pub(crate) fn shell(self) -> Self {
        self.spec("interpreter", json!(["sh"]))
    }

    pub(crate) fn flag(mut self, name: &'static str, value: impl std::fmt::Display) -> Self {
        self.flags.retain(|(given, _)| *given != name);
        self.flags.push((name, format!("{value}")));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.retain(|(given, _)| given != name);
        self.env.push((name.into(), value.as_ref().into()));
        self
    }

    /// An endless or counted repetition.
    pub(crate) fn repeat(self, remaining: &str, repeat: Value) -> Self {
        self.flag("--remaining", remaining).spec("repeat", repeat)
    }

    /// A pod that may hold sessions with the door, and would wait for it for ever.
    pub(crate) fn session(self, address: SocketAddr, authority: &Authority) -> Self {
        let token = self.path("token");
        fs::write(&token, "a.b.c").unwrap();
        self.flag("--session-address", address)
            .flag("--session-name", NAME)
            .flag("--session-authority", &authority.base64)
            .flag("--token-file", token.display())
            .flag("--linger-seconds", 100_000)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command that starts the runner, with its logs going into files.
    pub(crate) fn command(&self) -> Command {
        let spec = self.spec.to_string();
        fs::write(self.path("input/spec.json"), &spec).unwrap();
        let runner = env!("CARGO_BIN_EXE_scriptrunner-runner").to_owned();
        let mut words = self.prefix.iter().chain([&runner]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("run");
        for (name, value) in &self.flags {
            command.arg(name).arg(value);
        }
        if self.flags.iter().all(|(name, _)| *name != "--spec-sha256") {
            command.arg("--spec-sha256").arg(sha256_hex(spec.as_bytes()));
        }
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command.stdout(File::create(self.path("stdout")).unwrap());
        command.stderr(File::create(self.path("stderr")).unwrap());
        command
    }

    pub(crate) fn start(self) -> Running {
        let child = self.command().spawn().unwrap();
        Running::new(self.dir, child)
    }

    pub(crate) fn run(self) -> Ended {
        self.start().wait()
    }
}

impl Running {
    pub(crate) fn new(dir: TempDir, child: Child) -> Self {
        Self { dir, child: Runner(child) }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child.0)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until the script has made a file in its working folder.
    pub(crate) fn wait_for_file(&self, name: &str) {
        let path = self.path("work").join(name);
        wait_for(&format!("file {}", path.display()), || path.exists().then_some(()));
    }

    /// Waits until the published snapshot satisfies the condition.
    pub(crate) fn wait_for_snapshot(&self, what: &str, condition: impl Fn(&Snapshot) -> bool) {
        wait_for(what, || snapshot(self.dir.path()).filter(|snapshot| condition(snapshot)));
    }

    /// Whether the runner has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Waits until the runner has logged the words.
    pub(crate) fn wait_for_log(&self, words: &str) {
        let path = self.path("stderr");
        wait_for(words, || fs::read_to_string(&path).unwrap().contains(words).then_some(()));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn wait(mut self) -> Ended {
        let status = wait_for("the end of the runner", || self.child.0.try_wait().unwrap());
        let stderr = fs::read(self.path("stderr")).unwrap();
        let snapshot = snapshot(self.dir.path());
        let Snapshot { record, history } = snapshot
            .unwrap_or_else(|| panic!("no message, {status}, stderr: {}", String::from_utf8_lossy(&stderr)));
        let stdout = fs::read(self.path("stdout")).unwrap();
        Ended { code: status.code(), record, history, stdout, stderr, dir: self.dir }
    }
}

impl Ended {
    /// The only execution.
    pub(crate) fn only(&self) -> &Execution {
        assert_eq!(self.history.len(), 1, "{self:?}");
        &self.history[0]
    }

    /// State, reason and exit code of the runner.
    #[track_caller]
    pub(crate) fn assert_end(&self, state: &str, reason: &str, code: i32) {
        let found = (self.record.state.as_str(), self.record.reason.as_str(), self.code);
        assert_eq!(found, (state, reason, Some(code)), "{self:?}");
    }

    pub(crate) fn file(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join("work").join(name)).unwrap()
    }
}

fn snapshot(dir: &Path) -> Option<Snapshot> {
    let message = fs::read(dir.join("termination-log")).ok()?;
    assert!(message.len() <= 4096, "{} bytes", message.len());
    Snapshot::decode(&String::from_utf8_lossy(&message)).ok()
}

/// Whether the process exists and is not a zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}
