//! Whose a session is. The API server says it, of a token that is bound to a pod; what is said over the session itself is
//! believed of that pod alone. Talks to the API server.
//!
//! Before it is asked, what the token says of itself must fit to a pod that is known and alive, so that junk costs no
//! question.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use k8s_openapi::{
    api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus},
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, api::PostParams};
use scriptrunner_api::{digest::sha256_hex, session::AUDIENCE};
use scriptrunner_core::observed::{PodFacts, Presence};

use super::{
    claims::{self, Claims, Unfit},
    refusal::Refusal,
    reviews::{Busy, Reviews},
};
use crate::{context::Context, metrics::Metrics, world::World};

/// The watch may lag behind the pod.
const POD_UNKNOWN: Duration = Duration::from_millis(500);
/// Another connection of the pod is being looked at.
const POD_BUSY: Duration = Duration::from_millis(500);
/// The kubelet renews a token long before it ends, but not always at once.
const TOKEN_EXPIRED: Duration = Duration::from_secs(5);
/// The API server does not know the token: it may lag, or the pod is gone.
const TOKEN_UNKNOWN: Duration = Duration::from_secs(5);
/// The API server could not be asked.
const API_FAILED: Duration = Duration::from_secs(2);

const EXTRA: &str = "authentication.kubernetes.io/";

/// Who speaks: a pod, and what it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    /// UID of the pod.
    pub(super) pod_uid: String,
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) pod: String,
    /// Name of the ScriptRunner that it was made for.
    pub(super) owner: String,
    /// The node that it runs on.
    pub(super) node: String,
    /// The run that it was made for.
    pub(super) run: u64,
    /// Ordinal of the pod within that run.
    pub(super) attempt: u32,
    /// From when on the kubelet has most likely renewed its token.
    pub(super) renewed: Timestamp,
    /// When its token ends.
    pub(super) expires: Timestamp,
}

impl Speaker {
    fn of(pod: &PodFacts, claims: &Claims) -> Self {
        let Claims { pod_uid: _, issued, expires } = claims;
        let expires = *expires;
        let lifetime = issued.map_or(SignedDuration::ZERO, |issued| expires.duration_since(issued));
        Self {
            pod_uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            owner: pod.owner_name.clone(),
            node: pod.node.clone(),
            run: pod.run,
            attempt: pod.attempt,
            // Kubelets renew a token when a fifth of its time is left.
            renewed: expires.saturating_sub(lifetime / 10).unwrap_or(expires),
            expires,
        }
    }

    /// Whether it may speak of this run. A runner that waited for a further run is of a newer one than its pod.
    pub(super) fn may_speak_of(&self, run: u64, attempt: u32) -> bool {
        run > self.run || (run == self.run && attempt == self.attempt)
    }
}

/// Finds out who speaks.
pub(super) struct Identity {
    client: Client,
    world: Arc<World>,
    metrics: Arc<Metrics>,
    reviews: Reviews,
    timeout: Duration,
    /// What the API server said of the newest token of each pod, by the pod's UID, and the token's digest.
    verdicts: Mutex<HashMap<String, (String, Arc<Speaker>)>>,
}

impl Identity {
    pub(super) fn new(
        client: Client,
        world: Arc<World>,
        metrics: Arc<Metrics>,
        reviews_per_second: u32,
        timeout: Duration,
    ) -> Self {
        let reviews = Reviews::new(reviews_per_second);
        Self { client, world, metrics, reviews, timeout, verdicts: Mutex::default() }
    }

    fn verdicts(&self) -> MutexGuard<'_, HashMap<String, (String, Arc<Speaker>)>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose the token is. `is_stored` says of a pod whether its outcome is stored.
    pub(super) async fn identify(
        &self,
        token: &str,
        is_stored: impl Fn(&str) -> bool,
    ) -> Result<Arc<Speaker>, Refusal> {
        let now = Context::now();
        let claims = claims::read(token, now).map_err(unfit)?;
        let pod = live(self.world.pods().find(&claims.pod_uid))?;
        if is_stored(&pod.uid) {
            return Err(Refusal::over("stored", "what the pod did is stored"));
        }
        let digest = sha256_hex(token.as_bytes());
        if let Some(speaker) = self.remembered(&pod.uid, &digest, now) {
            return Ok(speaker);
        }
        let _turn = self.reviews.turn(&pod.uid).await.map_err(busy)?;
        let status = self.review(token).await?;
        let speaker = accept(&status, &claims, &pod).map_err(|mismatch| {
            tracing::warn!(
                namespace = pod.namespace,
                pod = pod.name,
                ?mismatch,
                "a token is not that of the pod it names"
            );
            mismatch.refusal()
        })?;
        let speaker = Arc::new(speaker);
        self.verdicts().insert(pod.uid.clone(), (digest, Arc::clone(&speaker)));
        Ok(speaker)
    }

    fn remembered(&self, pod_uid: &str, digest: &str, now: Timestamp) -> Option<Arc<Speaker>> {
        let verdicts = self.verdicts();
        let (known, speaker) = verdicts.get(pod_uid)?;
        (known == digest && speaker.expires > now).then(|| Arc::clone(speaker))
    }

    /// Forgets what was said of pods for which `keep` is false, and of tokens that are over.
    pub(super) fn retain(&self, now: Timestamp, keep: impl Fn(&str) -> bool) {
        self.verdicts().retain(|pod_uid, (_, speaker)| speaker.expires > now && keep(pod_uid));
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, Refusal> {
        let question = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let api = Api::<TokenReview>::all(self.client.clone());
        let params = PostParams::default();
        let answer = tokio::time::timeout(self.timeout, api.create(&params, &question)).await;
        let reason = match answer {
            Ok(Ok(TokenReview { status: Some(status), .. })) => {
                Metrics::count(&self.metrics.token_reviews, "answered");
                return Ok(status);
            }
            Ok(Ok(_)) => "an answer without a status".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        Metrics::count(&self.metrics.token_reviews, "failed");
        tracing::warn!(reason, "cannot ask the API server whose a token is");
        Err(Refusal::later("api", API_FAILED, "the API server could not be asked whose the token is"))
    }
}

fn unfit(unfit: Unfit) -> Refusal {
    let never = |word, reason| Refusal::never(StatusCode::UNAUTHORIZED, word, reason);
    match unfit {
        Unfit::Unreadable => never("token_unreadable", "the token is not one of a service account"),
        Unfit::Audience => never("token_audience", "the token is not for this operator"),
        Unfit::Unbound => never("token_unbound", "the token is not bound to a pod"),
        Unfit::Expired => Refusal::other_token("token_expired", TOKEN_EXPIRED, "the token is over"),
    }
}

fn busy(busy: Busy) -> Refusal {
    match busy {
        Busy::Pod => Refusal::later("pod_busy", POD_BUSY, "another connection of the pod is being looked at"),
        Busy::Everybody { wait } => Refusal::later("busy", wait, "many runners come at once"),
    }
}

/// The pod, if it is one that can have a session.
fn live(pod: Option<Arc<PodFacts>>) -> Result<Arc<PodFacts>, Refusal> {
    let unknown = || Refusal::later("pod_unknown", POD_UNKNOWN, "the pod is not known here yet");
    let pod = pod.ok_or_else(unknown)?;
    match pod.presence {
        Presence::Gone => Err(Refusal::over("pod_gone", "the pod is gone")),
        Presence::Unconfirmed => Err(unknown()),
        Presence::Present if pod.deleting => Err(Refusal::over("pod_deleting", "the pod is being deleted")),
        Presence::Present if pod.has_ended() => Err(Refusal::over("pod_ended", "the pod has ended")),
        Presence::Present => Ok(pod),
    }
}

/// How the API server's answer differs from what the pod's own token would bring.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mismatch {
    /// It does not know the token.
    Unauthenticated,
    /// It does not say that the token is for us.
    Audience,
    /// It is of another account.
    User(String),
    /// It is bound to something else.
    Bound(&'static str),
}

impl Mismatch {
    fn refusal(&self) -> Refusal {
        let never = |word, reason| Refusal::never(StatusCode::FORBIDDEN, word, reason);
        match self {
            Self::Unauthenticated => {
                Refusal::other_token("token_unknown", TOKEN_UNKNOWN, "the API server does not know the token")
            }
            Self::Audience => never("review_audience", "the token is not for this operator"),
            Self::User(_) => never("review_user", "the token is of another account than the pod's"),
            Self::Bound(_) => never("review_bound", "the token is not bound to the pod that it names"),
        }
    }
}

/// Who speaks, by what the API server says of a token that names this pod.
fn accept(status: &TokenReviewStatus, claims: &Claims, pod: &PodFacts) -> Result<Speaker, Mismatch> {
    if status.authenticated != Some(true) {
        return Err(Mismatch::Unauthenticated);
    }
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(Mismatch::Audience);
    }
    let user = status.user.clone().unwrap_or_default();
    let name = user.username.unwrap_or_default();
    if name != format!("system:serviceaccount:{}:default", pod.namespace) {
        return Err(Mismatch::User(name));
    }
    let extra = user.extra.unwrap_or_default();
    let says = |what: &str, expected: &str| {
        // Exactly one value: of several nobody could say which counts.
        extra.get(&format!("{EXTRA}{what}")).is_some_and(|values| *values == [expected])
    };
    for (what, expected) in [("pod-uid", &claims.pod_uid), ("pod-uid", &pod.uid), ("pod-name", &pod.name)] {
        if !says(what, expected) {
            return Err(Mismatch::Bound(what));
        }
    }
    if !says("node-name", &pod.node) {
        return Err(Mismatch::Bound("node-name"));
    }
    Ok(Speaker::of(pod, claims))
}

#[cfg(test)]
mod tests;
