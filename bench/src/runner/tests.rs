//! A runner without an operator, and what an operator can tell it.

use scriptrunner_testcluster::{pki::Pki, slot::Slot};

use super::*;
use crate::{ledger::Ledger, theatre::Act, token::Signer};

fn theatre(idle: Duration) -> (Arc<Theatre>, watch::Sender<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    Pki::new(pki.clone(), Slot::all().next().unwrap(), "unit").ensure(&[]).unwrap();
    let (cue, cued) = watch::channel(0);
    let (longest, period) = (Duration::ZERO, Duration::from_hours(1));
    let act = Act { sessions: false, longest, period, idle, cue: cued };
    let ledger = Arc::new(Ledger::default());
    (Arc::new(Theatre::new(Signer::open(&pki).unwrap(), "a-1".into(), ledger, act)), cue)
}

fn pod(remaining: &str) -> Pod {
    let line = format!("run --run 1 --attempt 1 --first-serial 1 --history-limit 2 --remaining {remaining}");
    Pod { node: "n1".into(), args: line.split(' ').map(str::to_owned).collect(), ..Pod::default() }
}

fn runner<'a>(theatre: &'a Theatre, pod: &'a Pod) -> (Runner<'a>, mpsc::Sender<SessionEvent>) {
    let mut runner = Runner::new(theatre, pod, &Orders::read(&pod.args).unwrap()).unwrap();
    let (say, heard) = mpsc::channel(16);
    runner.line.heard = heard;
    (runner, say)
}

#[tokio::test]
async fn a_runner_without_a_session_ends_with_its_message() {
    let (theatre, _cue) = theatre(Duration::ZERO);
    let three = pod("3");
    let ending = theatre.run(&three, Instant::now());
    // The period is an hour, so only the first of three comes by itself.
    assert!(tokio::time::timeout(Duration::from_millis(50), ending).await.is_err());
    let Ending { exit_code, message } = theatre.run(&pod("1"), Instant::now()).await;
    let Snapshot { record, history } = Snapshot::decode(&message).unwrap();
    assert_eq!((exit_code, record.state.as_str(), record.executions, history.len()), (0, "Succeeded", 1, 1));
    assert!(history[0].stdout.starts_with("kernel"), "{:?}", history[0]);
    assert_eq!(theatre.ledger.unstored().0, 1);
}

#[tokio::test]
async fn every_cue_is_an_execution_until_the_operator_says_stop() {
    let (theatre, cue) = theatre(Duration::ZERO);
    let pod = pod("endless");
    let (mut runner, say) = runner(&theatre, &pod);
    let mut snapshots = runner.line.outbox.subscribe();
    let part = Part { first_serial: 1, remaining: None };
    let told = async {
        for executions in 1..=2 {
            let finished = |newest: &Option<Arc<Snapshot>>| {
                newest
                    .as_ref()
                    .is_some_and(|it| it.record.executions == executions && it.record.exit_code == Some(0))
            };
            snapshots.wait_for(finished).await.unwrap();
            cue.send_modify(|cue| *cue += 1);
        }
        say.send(SessionEvent::Stop { reason: "enough".into() }).await.unwrap();
    };
    let (wish, ()) = tokio::join!(runner.execute(&part, Instant::now()), told);
    assert!(matches!(wish.unwrap(), Wish::Stop));
    assert_eq!(runner.stop().exit_code, 6);
}

#[tokio::test]
async fn a_waiting_runner_takes_up_a_newer_run_and_no_older_one() {
    let (theatre, _cue) = theatre(Duration::from_mins(1));
    let pod = pod("1");
    let (mut runner, say) = runner(&theatre, &pod);
    for run in [1, 2] {
        let order = RunOrder {
            run,
            attempt: 1,
            first_serial: 1,
            remaining: 1,
            spec: String::new(),
            script: String::new(),
            history_limit: 3,
            stdout_limit_bytes: 1,
            stderr_limit_bytes: 1,
            grace_seconds: 1,
            execution_deadline_seconds: None,
        };
        say.send(SessionEvent::Run(Box::new(order))).await.unwrap();
    }
    let seq = runner.end(NodeState::Succeeded);
    assert!(matches!(runner.linger(seq).await, Wish::None));
    let order = runner.order.take().unwrap();
    assert_eq!(order.run, 2);
    let part = runner.take_up(&order);
    runner.execute(&part, Instant::now()).await.unwrap();
    let Record { run, executions, serial, seq: newest, .. } = &runner.record;
    assert_eq!((*run, *executions, *serial), (2, 1, 1), "none was executed in the run before");
    assert!(*newest > seq, "numbers of snapshots go on");
}
