//! How much memory sessions take. The clients are another process, so that theirs does not count.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::Duration,
};

use scriptrunner_runner::session::{self as runner, SessionConfig, Token};
use tokio::sync::mpsc;

use super::{
    super::*,
    client::{snapshot, timing},
    house::{config, open, token_of},
};

const SESSIONS: usize = 2000;
/// Tells the other process where the door is.
const DOOR: &str = "DOOR_OF_THE_MEMORY_TEST";

/// Bytes of this process in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Run by hand: `cargo test --release -p scriptrunner-operator --lib memory -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, with a second process of clients"]
async fn memory_of_idle_sessions() {
    let pods: Vec<String> = (0..SESSIONS).map(|number| format!("pod{number}")).collect();
    let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
    let house = open(DoorConfig { most_sessions: SESSIONS + 10, ..config() }, &pods).await;
    let settings = house.door.settings().unwrap();
    let before = resident();
    let began = Instant::now();
    let mut clients = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "sessions::tests::memory::clients_of_the_memory_test"])
        .env(DOOR, format!("{} {} {}", settings.address, settings.name, settings.authorities[0]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let whole = || pods.iter().filter(|uid| house.seq(uid) == Some(1)).count();
    while whole() < SESSIONS {
        assert!(began.elapsed() < Duration::from_mins(5), "{} of {SESSIONS}", whole());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let connected = began.elapsed();
    for uid in &pods {
        house.sessions.ack(uid, &Ack { boot: (*uid).to_owned(), seq: 1 });
    }
    // Two rounds of pings, so that whatever grows with use has grown.
    tokio::time::sleep(Duration::from_secs(65)).await;
    assert_eq!(house.sessions.connected(), SESSIONS);
    let after = resident();
    println!(
        "{SESSIONS} sessions within {connected:?}, each {} bytes ({before} -> {after})",
        (after - before) / SESSIONS
    );
    clients.stdin.take().unwrap().write_all(b"\n").unwrap();
    clients.wait().unwrap();
}

/// The other process: does nothing unless it is told where the door is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of the test of memory"]
async fn clients_of_the_memory_test() {
    let Ok(door) = std::env::var(DOOR) else { return };
    let mut parts = door.split(' ').map(ToOwned::to_owned);
    let mut next = || parts.next().unwrap();
    let door = runner::Door::new(&next(), &next(), &[next()]).unwrap();
    let mut kept = Vec::new();
    for number in 0..SESSIONS {
        let uid = format!("pod{number}");
        let mut long = snapshot(&uid, 1, &[1, 2, 3]);
        long.history[0].stdout = "x".repeat(40_000);
        let (outbox, receiver) = watch::channel(Some(Arc::new(long)));
        let (sender, events) = mpsc::channel(8);
        let token = Token::Text(token_of(&uid));
        let config = SessionConfig { door: door.clone(), token, boot: uid, timing: timing() };
        kept.push((outbox, events, tokio::spawn(runner::run(config, receiver, sender))));
    }
    let waited =
        tokio::task::spawn_blocking(|| BufReader::new(std::io::stdin()).read_line(&mut String::new()));
    waited.await.unwrap().unwrap();
}
