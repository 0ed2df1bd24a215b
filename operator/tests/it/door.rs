//! The runners' door against a real API server, with real pods and real tokens: whose a session is, what attackers come to,
//! and that an honest runner beside them notices nothing. The pods' images do not exist; nothing runs in them.

mod client;
mod stage;

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use scriptrunner_api::session::ToRunner;
use scriptrunner_core::observed::{PodFacts, Presence};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use self::{
    client::{Answer, ask, connect, hello, request, snapshot},
    stage::{Audience, Stage, stage},
};

/// The door refuses the token with this code, and counts it under this word.
async fn refused(stage: &Stage, token: &str, code: u16, word: &'static str) {
    let before = stage.refusals(word);
    let Answer::Refused(answered, frame) = ask(stage, token).await else { panic!("{word}: accepted") };
    assert_eq!(answered, code, "{word}: {frame:?}");
    // A pod that is not known yet, and a token that may be renewed: everybody else need not come again.
    let may_come_again = ["pod_unknown", "token_expired", "token_unknown"].contains(&word);
    assert_eq!(matches!(frame, ToRunner::RetryAfter { .. }), may_come_again, "{word}: {frame:?}");
    assert_eq!(matches!(frame, ToRunner::Refused { .. }), !may_come_again, "{word}: {frame:?}");
    stage.until(word, |stage| stage.refusals(word) == before + 1).await;
}

#[tokio::test]
async fn only_the_pods_own_token_opens_the_door() {
    stage("door-tokens", async |stage| {
        let mut honest = stage.honest("honest").await;
        let pod = stage.pod("srn-1", &json!({})).await;
        let ours = stage.token(&pod, Audience::Ours).await;
        refused(stage, &stage.token(&pod, Audience::Default).await, 401, "token_audience").await;
        refused(stage, &stage.unbound_token().await, 401, "token_unbound").await;
        refused(stage, &stage::with_claims(&ours, |claims| claims["exp"] = 1.into()), 401, "token_expired")
            .await;
        refused(stage, "a.b.c", 401, "token_unreadable").await;
        // Readable, but signed by nobody: the only one here that costs a question.
        let questions = stage.questions();
        let of_another = stage::with_claims(&ours, |claims| {
            claims["kubernetes.io"]["pod"]["uid"] = honest.uid.clone().into();
        });
        refused(stage, &of_another, 401, "token_unknown").await;
        let longer = stage::with_claims(&ours, |claims| claims["exp"] = 4_000_000_000_i64.into());
        refused(stage, &longer, 401, "token_unknown").await;
        assert_eq!(stage.questions(), questions + 2);
        let Answer::Accepted(_) = ask(stage, &ours).await else { panic!("its own token is refused") };
        honest.is_undisturbed().await;
    })
    .await;
}

#[tokio::test]
async fn pods_that_are_not_ours_or_not_what_they_say_are_refused() {
    stage("door-pods", async |stage| {
        let mut honest = stage.honest("honest").await;
        let unmarked = stage.strange_pod("stranger").await;
        refused(stage, &stage.strange_token(&unmarked).await, 503, "pod_unknown").await;
        // It runs on one node, and its marks name another.
        let nodes = stage.nodes().await;
        let astray = json!({"metadata": {"annotations": {"scriptrunner.io/node": nodes[1]}}, "spec": {"nodeName": nodes[0]}});
        let astray = stage.pod("srn-astray", &astray).await;
        refused(stage, &stage.token(&astray, Audience::Ours).await, 403, "review_bound").await;
        stage.account("builder").await;
        let other_account = stage.forged_pod("srn-account", &json!({"spec": {"serviceAccountName": "builder"}})).await;
        refused(stage, &stage.token(&other_account, Audience::Ours).await, 403, "review_user").await;
        let gone = stage.pod("srn-gone", &json!({})).await;
        let token = stage.token(&gone, Audience::Ours).await;
        let Answer::Accepted(mut session) = ask(stage, &token).await else { panic!("it is alive") };
        session.say(&hello()).await;
        stage.until("a session", |stage| stage.sessions.connected() == 2).await;
        stage.delete(&gone).await;
        assert!(matches!(session.hear().await, Some(ToRunner::Refused { .. })), "its session ends with it");
        let facts = stage.world.pods().find(&stage::uid(&gone)).unwrap();
        assert_eq!(facts.presence, Presence::Gone);
        refused(stage, &token, 410, "pod_gone").await;
        honest.is_undisturbed().await;
    })
    .await;
}

/// Where the policies are missing whoever may make pods may make one with our marks, and mint its token. It speaks for itself, under its own UID, and the
/// plan believes only pods that a status names: neither the honest pod's session nor what it brought changes.
#[tokio::test]
async fn pod_with_our_marks_speaks_for_itself_alone() {
    stage("door-forged", async |stage| {
        let mut honest = stage.honest("honest").await;
        honest.is_undisturbed().await;
        let node = stage.world.pods().find(&honest.uid).unwrap().node.clone();
        let forged =
            json!({"metadata": {"annotations": {"scriptrunner.io/node": node}}, "spec": {"nodeName": node}});
        let forged = stage.pod("srn-forged", &forged).await;
        let Answer::Accepted(mut session) = ask(stage, &stage.token(&forged, Audience::Ours).await).await
        else {
            panic!("a pod with our marks may speak")
        };
        session.say(&hello()).await;
        let before = stage.facts(&honest.uid);
        session.say(&snapshot(&honest.boot, 999, 1)).await;
        let uid = stage::uid(&forged);
        stage.until("what it says", |stage| stage.seq(&uid) == Some(999)).await;
        assert_eq!(stage.facts(&honest.uid), before);
        honest.is_undisturbed().await;
        assert_eq!(stage.ends("replaced"), 0);
    })
    .await;
}

#[tokio::test]
async fn namesake_in_another_namespace_speaks_for_itself_alone() {
    stage("door-namesake", async |stage| {
        let mut honest = stage.honest("honest").await;
        let (other, elsewhere) = stage.elsewhere("honest").await;
        let Answer::Accepted(mut session) = ask(stage, &other.token).await else {
            panic!("it is a pod of its own")
        };
        session.say(&hello()).await;
        session.say(&snapshot(&honest.boot, 999, 1)).await;
        stage.until("what it says", |stage| stage.seq(&other.uid) == Some(999)).await;
        let facts: PodFacts = (*stage.world.pods().find(&other.uid).unwrap()).clone();
        assert_eq!(
            (facts.namespace.as_str(), facts.name.as_str()),
            (elsewhere.as_str(), honest.name.as_str())
        );
        assert_ne!(stage.seq(&honest.uid), Some(999));
        honest.is_undisturbed().await;
        stage.remove_namespace(&elsewhere).await;
    })
    .await;
}

#[tokio::test]
async fn nobody_speaks_of_a_run_that_his_pod_was_not_made_for() {
    stage("door-run", async |stage| {
        let mut honest = stage.honest("honest").await;
        let pod = stage.pod("srn-1", &json!({"metadata": {"labels": {"scriptrunner.io/run": "3"}}})).await;
        let token = stage.token(&pod, Audience::Ours).await;
        let Answer::Accepted(mut session) = ask(stage, &token).await else { panic!("its own token") };
        session.say(&hello()).await;
        session.say(&snapshot("forged", 1, 2)).await;
        assert!(matches!(session.hear().await, Some(ToRunner::Refused { .. })));
        stage.until("counted", |stage| stage.ends("foreign_run") == 1).await;
        assert_eq!(stage.seq(&stage::uid(&pod)), None);
        honest.is_undisturbed().await;
    })
    .await;
}

#[tokio::test]
async fn newest_connection_of_a_pod_speaks() {
    stage("door-newest", async |stage| {
        let mut honest = stage.honest("honest").await;
        let pod = stage.pod("srn-1", &json!({})).await;
        let mut sessions = Vec::new();
        for number in 1..=3_usize {
            // A token of each, as the kubelet renews them.
            let token = stage.token(&pod, Audience::Ours).await;
            let Answer::Accepted(mut session) = ask(stage, &token).await else { panic!("its own token") };
            session.say(&hello()).await;
            stage
                .until("it speaks", |stage| {
                    stage.ends("replaced") == number as u64 - 1 && stage.sessions.connected() == 2
                })
                .await;
            sessions.push(session);
        }
        for older in &mut sessions[..2] {
            older.say(&snapshot("b", 50, 1)).await;
            assert_eq!(older.hear().await, None);
        }
        sessions[2].say(&snapshot("b", 7, 1)).await;
        let uid = stage::uid(&pod);
        stage.until("what the newest says", |stage| stage.seq(&uid) == Some(7)).await;
        honest.is_undisturbed().await;
    })
    .await;
}

/// A message that is never whole, in one piece and in drops. The limit is half a minute.
#[tokio::test]
async fn half_a_message_is_not_waited_for() {
    stage("door-half", async |stage| {
        let mut honest = stage.honest("honest").await;
        let mut sessions = Vec::new();
        for name in ["srn-half", "srn-drop"] {
            let pod = stage.pod(name, &json!({})).await;
            let Answer::Accepted(mut session) = ask(stage, &stage.token(&pod, Audience::Ours).await).await
            else {
                panic!("its own token")
            };
            session.say(&hello()).await;
            sessions.push(session);
        }
        let message = client::frame(&snapshot("b", 1, 1));
        sessions[0].write(&message[..message.len() / 2]).await;
        let (began, mut written) = (Instant::now(), 0);
        while stage.ends("too_slow") < 2 {
            assert!(began.elapsed() < Duration::from_secs(45), "{}", stage.metrics.text().unwrap());
            if began.elapsed().as_secs() >= written {
                let byte = usize::try_from(written).unwrap();
                sessions[1].write(&message[byte..=byte]).await;
                written += 1;
                honest.is_undisturbed().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(began.elapsed() > Duration::from_secs(28) && stage.sessions.connected() == 1);
    })
    .await;
}

/// Ten thousand: most say nothing at all, one in ten goes through the handshake and asks without a token. The time is
/// printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connects_without_a_token_disturb_nobody() {
    stage("door-crowd", async |stage| {
        let mut honest = stage.honest("honest").await;
        let questions = stage.questions();
        let began = Instant::now();
        let address = stage.address;
        let silent = tokio::spawn(async move {
            let connects = stream::iter(0..9_000).map(|_| async move {
                let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
                let _ = tcp.shutdown().await;
            });
            connects.buffer_unordered(64).collect::<()>().await;
        });
        let (name, authorities) = (stage.name.clone(), stage.authorities.clone());
        let asking = tokio::spawn(async move {
            let connects = stream::iter(0..1_000).map(|_| {
                let (name, authorities) = (name.clone(), authorities.clone());
                async move {
                    let mut raw = connect(address, &name, &authorities).await;
                    let without = request("x").replace("Authorization", "Nothing");
                    assert_eq!(raw.refusal(&without).await.0, 401);
                }
            });
            connects.buffer_unordered(32).collect::<()>().await;
        });
        while !(silent.is_finished() && asking.is_finished()) {
            honest.is_undisturbed().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        silent.await.unwrap();
        asking.await.unwrap();
        println!("10,000 connects without a token: {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_mins(3));
        assert_eq!((stage.refusals("no_token"), stage.questions()), (1_000, questions));
        stage.until("all are counted", |stage| stage.refusals("no_first_byte") >= 9_000).await;
    })
    .await;
}
