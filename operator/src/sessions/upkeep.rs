//! What has to be done from time to time: sessions that must end, questions whether runners are there, certificates, the
//! address. No decisions about nodes.

use std::{sync::Arc, time::Instant};

use k8s_openapi::jiff::Timestamp;
use scriptrunner_core::observed::{PodFacts, Presence};
use tokio::time::{Duration, MissedTickBehavior, interval, sleep};

use super::{
    Door, address,
    line::{End, Line},
    refusal::Refusal,
};
use crate::context::Context;

/// Pause between looks at all sessions.
const SWEEP: Duration = Duration::from_secs(1);
/// A session is asked this often whether its runner is there, in sweeps.
const PING_SWEEPS: u64 = 30;
/// One of which nothing is heard for this long is over.
const SILENCE: Duration = Duration::from_secs(90);
/// How long a session may go on beyond its pod's end, in sweeps: its last words may be on their way.
const LAST_WORDS_SWEEPS: u32 = 5;
/// What is kept of pods that are gone is looked for this often, in sweeps.
const FORGET_SWEEPS: u64 = 10;
/// Pause between looks at the Service.
const ADDRESS_PAUSE: Duration = Duration::from_mins(1);

/// Looks at all sessions until the process ends.
pub(super) async fn sweep(door: &Door) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0_u64.. {
        ticks.tick().await;
        let lines: Vec<Arc<Line>> = door.sessions().lines();
        for line in lines {
            let pod = door.world().pods().find(&line.speaker().pod_uid);
            match verdict(&line, pod.as_deref(), door.leads(), Context::now()) {
                Some(end) => line.end(end),
                // Spread over the connections.
                None if (round + line.id()).is_multiple_of(PING_SWEEPS) => line.ping(),
                None => {}
            }
        }
        if round.is_multiple_of(FORGET_SWEEPS) {
            let is_known = |pod_uid: &str| {
                door.world().pods().find(pod_uid).is_some_and(|pod| pod.presence != Presence::Gone)
            };
            door.identity().retain(Context::now(), is_known);
            door.sessions().forget_missing(Instant::now(), is_known);
        }
    }
}

/// Why the session must end now.
fn verdict(line: &Line, pod: Option<&PodFacts>, leads: bool, now: Timestamp) -> Option<End> {
    if !leads {
        return Some(End::Refused(Refusal::not_leader()));
    }
    if line.token_ends() <= now {
        let refusal = Refusal::other_token("token_expired", Duration::ZERO, "the token is over");
        return Some(End::Refused(refusal));
    }
    if line.silence() > SILENCE {
        return Some(End::Silent);
    }
    match pod.filter(|pod| pod.presence != Presence::Gone) {
        None => Some(End::Refused(Refusal::over("pod_gone", "the pod is gone"))),
        Some(pod) if pod.has_ended() && line.outlives_its_pod() >= LAST_WORDS_SWEEPS => {
            Some(End::Refused(Refusal::over("pod_ended", "the pod has ended")))
        }
        Some(_) => None,
    }
}

/// Renews what is due until the process ends, and tells runners of new authorities.
pub(super) async fn renew(door: &Door) {
    let pause = door.lifetimes().pause();
    loop {
        sleep(pause).await;
        look(door).await;
    }
}

/// Looks once at what is due.
pub(super) async fn look(door: &Door) {
    let before = door.credentials().trusted();
    if let Err(error) = door.credentials().look(door.leads(), Timestamp::now()).await {
        let error = anyhow::Error::from(error);
        tracing::warn!(
            error = format!("{error:#}"),
            "the certificate of runners' sessions could not be looked after"
        );
    }
    let after = door.credentials().trusted();
    if before != after {
        for line in door.sessions().lines() {
            line.trust(Arc::clone(&after));
        }
    }
}

/// Keeps the Service's address in mind until the process ends.
pub(super) async fn follow_address(door: &Door) {
    loop {
        sleep(ADDRESS_PAUSE).await;
        find_address(door).await;
    }
}

/// Looks once where runners find the door.
pub(super) async fn find_address(door: &Door) {
    if door.has_fixed_address() {
        return;
    }
    match address::of_service(door.client(), door.namespace(), door.request_timeout()).await {
        Ok(found) if !door.set_address(found) => {}
        Ok(Some(address)) => tracing::info!(%address, "runners find this operator at its Service"),
        Ok(None) => say_that_there_is_no_address(door),
        Err(error) => {
            tracing::warn!(error = error.to_string(), "it is not known where runners find this operator");
        }
    }
}

/// What that means for whoever runs the operator.
pub(super) fn say_that_there_is_no_address(door: &Door) {
    tracing::warn!(
        namespace = door.namespace(),
        service = address::SERVICE_NAME,
        port = address::PORT_NAME,
        "there is no such Service with such a port: pods are made without a session, and report when they end"
    );
}

#[cfg(test)]
mod tests {
    use scriptrunner_api::session::ToRunner;

    use super::*;
    use crate::sessions::{
        identity::Speaker,
        tests::{pod, speaker},
    };

    fn word(line: &Line, pod: Option<&PodFacts>, leads: bool, now: Timestamp) -> Option<&'static str> {
        verdict(line, pod, leads, now).map(|end| end.word())
    }

    #[test]
    fn session_lasts_as_long_as_pod_token_and_lead() {
        let expires = Timestamp::from_second(1000).unwrap();
        let before = Timestamp::from_second(999).unwrap();
        let line = Line::new(1, Arc::new(Speaker { renewed: expires, expires, ..speaker("a") }), before);
        let pod = pod("a");
        assert_eq!(word(&line, Some(&pod), true, before), None);
        assert_eq!(word(&line, Some(&pod), false, before), Some("not_leader"));
        assert_eq!(word(&line, Some(&pod), true, expires), Some("token_expired"));
        assert_eq!(word(&line, None, true, before), Some("pod_gone"));
        let gone = PodFacts { presence: Presence::Gone, ..pod.clone() };
        assert_eq!(word(&line, Some(&gone), true, before), Some("pod_gone"));
        for lasting in
            [PodFacts { presence: Presence::Unconfirmed, ..pod.clone() }, PodFacts { deleting: true, ..pod }]
        {
            assert_eq!(word(&line, Some(&lasting), true, before), None);
        }
    }

    #[test]
    fn token_that_is_over_is_exchanged_at_once() {
        let over = Speaker { renewed: Timestamp::MIN, expires: Timestamp::MIN, ..speaker("a") };
        let line = Line::new(1, Arc::new(over), Timestamp::MIN);
        let end = verdict(&line, Some(&pod("a")), true, Timestamp::now()).unwrap();
        assert!(matches!(end.frame(), Some(ToRunner::RetryAfter { millis: 0, .. })));
    }

    #[test]
    fn last_words_of_a_pod_that_ended_are_waited_for_a_little() {
        let line = Line::new(1, Arc::new(speaker("a")), Timestamp::MIN);
        let ended = PodFacts { phase: "Failed".to_owned(), ..pod("a") };
        let words: Vec<_> = (0..6).map(|_| word(&line, Some(&ended), true, Timestamp::now())).collect();
        assert_eq!(words, [None, None, None, None, Some("pod_ended"), Some("pod_ended")]);
    }
}
