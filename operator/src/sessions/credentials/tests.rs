//! Against a scripted API server that keeps one Secret.

use std::{sync::Mutex as StdMutex, time::Duration};

use http::Method;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use serde_json::{Value, json};

use super::*;
use crate::{
    scripted::{Answer, Asked, Record, client, failure},
    sessions::authority::later,
};

const NAME: &str = "scriptrunner-operator.ns.svc";
const LIFETIMES: Lifetimes = Lifetimes {
    leaf: Duration::from_hours(3),
    authority: Duration::from_hours(100),
    overlap: Duration::from_hours(2),
};

/// The Secret that the server keeps.
#[derive(Clone, Default)]
pub(in crate::sessions) struct Kept(Arc<StdMutex<(Option<Value>, u64)>>);

impl Kept {
    fn get(&self) -> Option<Secret> {
        self.0.lock().unwrap().0.clone().map(|secret| serde_json::from_value(secret).unwrap())
    }

    /// Somebody else writes it.
    fn put(&self, secret: Option<Value>) {
        let mut kept = self.0.lock().unwrap();
        kept.1 += 1;
        let version = kept.1.to_string();
        kept.0 = secret.map(|mut secret| {
            secret["metadata"]["resourceVersion"] = version.into();
            secret
        });
    }

    pub(in crate::sessions) fn answer(&self, asked: &Asked) -> Answer {
        let current = self.0.lock().unwrap().0.clone();
        let version = |secret: &Value| secret["metadata"]["resourceVersion"].clone();
        match (&asked.method, current) {
            (&Method::GET, Some(secret)) => Answer::Says(200, secret),
            (_, None) if asked.method != Method::POST => failure(404, "NotFound", "gone"),
            (&Method::POST, Some(_)) => failure(409, "AlreadyExists", "it is there"),
            (&Method::PUT, Some(secret)) if version(&secret) != version(&asked.body) => {
                failure(409, "Conflict", "changed")
            }
            _ => {
                self.put(Some(asked.body.clone()));
                Answer::Says(200, self.0.lock().unwrap().0.clone().unwrap())
            }
        }
    }

    fn client(&self) -> (Client, Record) {
        let kept = self.clone();
        client(move |asked| kept.answer(asked))
    }
}

fn store(client: Client) -> Store {
    Store::new(client, "ns", Duration::from_millis(200))
}

fn leads(leads: bool) -> (watch::Sender<bool>, watch::Receiver<bool>) {
    watch::channel(leads)
}

async fn open(client: Client) -> Result<Credentials, Error> {
    let (_sender, mut receiver) = leads(true);
    Credentials::open(store(client), NAME.to_owned(), LIFETIMES, &mut receiver).await
}

fn foreign(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": data})
}

#[tokio::test]
async fn secret_is_made_once_and_read_after_that() {
    let kept = Kept::default();
    let (client, record) = kept.client();
    let first = open(client.clone()).await.unwrap();
    let second = open(client).await.unwrap();
    assert_eq!(first.trusted(), second.trusted());
    assert_eq!(
        record.brief(),
        ["GET scriptrunner-operator-session", "POST secrets", "GET scriptrunner-operator-session"]
    );
    assert_eq!(record.all()[1].path, "/api/v1/namespaces/ns/secrets");
    assert_eq!((first.trusted().len(), first.news()), (1, None));
    assert_eq!(kept.get().unwrap().type_.as_deref(), Some("Opaque"));
}

#[tokio::test]
async fn two_that_start_at_once_agree() {
    let kept = Kept::default();
    let raced = Kept::default();
    let (other, _) = raced.client();
    open(other).await.unwrap();
    let theirs = serde_json::to_value(raced.get().unwrap()).unwrap();
    // Between our reading and our writing the other one is faster.
    let (slow, record) = {
        let kept = kept.clone();
        client(move |asked| {
            if asked.method == Method::POST {
                kept.put(Some(theirs.clone()));
            }
            kept.answer(asked)
        })
    };
    open(slow).await.unwrap();
    assert_eq!(record.brief().len(), 3, "{:?}", record.brief());
    assert!(kept.get().unwrap().data == raced.get().unwrap().data);
}

#[tokio::test]
async fn empty_secret_is_filled() {
    let kept = Kept::default();
    kept.put(Some(foreign(&json!({}))));
    let (client, record) = kept.client();
    open(client).await.unwrap();
    assert_eq!(record.brief()[1], "PUT scriptrunner-operator-session");
    assert!(kept.get().unwrap().data.unwrap().contains_key("material.json"));
}

#[tokio::test]
async fn what_others_wrote_is_an_error_that_names_the_secret_and_the_way_out() {
    for data in
        [json!({"tls.crt": "eA=="}), json!({"material.json": "eA=="}), json!({"material.json": "e30="})]
    {
        let kept = Kept::default();
        kept.put(Some(foreign(&data)));
        let (client, record) = kept.client();
        let text = open(client).await.err().unwrap().to_string();
        assert!(text.starts_with("Secret ns/scriptrunner-operator-session is not what"), "{text}");
        assert!(text.contains("delete it"), "{text}");
        assert_eq!(record.brief().len(), 1, "nothing is overwritten");
    }
}

#[tokio::test]
async fn certificate_of_another_name_is_not_taken() {
    let kept = Kept::default();
    let (client, _) = kept.client();
    open(client.clone()).await.unwrap();
    let (_sender, mut leads) = leads(true);
    let other = Credentials::open(store(client), "other.ns.svc".to_owned(), LIFETIMES, &mut leads).await;
    assert!(matches!(other.err(), Some(Error::Secret(secret::Error::Read { .. }))));
}

#[tokio::test]
async fn process_that_does_not_lead_waits_for_the_secret_and_reads_it_then() {
    let kept = Kept::default();
    let (client, record) = kept.client();
    let (sender, mut receiver) = leads(false);
    let opening = tokio::spawn({
        let store = store(client.clone());
        async move { Credentials::open(store, NAME.to_owned(), LIFETIMES, &mut receiver).await }
    });
    while record.brief().is_empty() {
        tokio::task::yield_now().await;
    }
    let leader = open(client).await.unwrap();
    sender.send_replace(true);
    let follower = opening.await.unwrap().unwrap();
    assert_eq!(follower.trusted(), leader.trusted());
}

#[tokio::test]
async fn authorities_change_step_by_step_and_every_step_is_stored() {
    let kept = Kept::default();
    let (client, _) = kept.client();
    let credentials = open(client.clone()).await.unwrap();
    let start = Timestamp::now();
    let hour = |hours| later(start, Duration::from_hours(hours));
    let first = credentials.trusted();
    credentials.look(true, hour(1)).await.unwrap();
    assert_eq!(kept.0.lock().unwrap().1, 1, "nothing is due");
    credentials.look(true, hour(3)).await.unwrap();
    assert_eq!((kept.0.lock().unwrap().1, credentials.trusted()), (2, first.clone()), "a new leaf");
    credentials.look(false, hour(89)).await.unwrap();
    assert_eq!(kept.0.lock().unwrap().1, 2, "only who leads writes");
    credentials.look(true, hour(89)).await.unwrap();
    let both = credentials.trusted();
    assert_eq!((both.len(), &both[0]), (2, &first[0]));
    assert_eq!(credentials.news(), Some(both.clone()));
    assert_eq!(open(client.clone()).await.unwrap().trusted(), both, "as a restart sees it");
    credentials.look(true, hour(90)).await.unwrap();
    assert_eq!(credentials.trusted(), both);
    credentials.look(true, hour(92)).await.unwrap();
    assert_eq!(*credentials.trusted(), both[1..]);
    assert!(credentials.news().is_some(), "who connects may still trust the old one");
    assert_eq!(*open(client).await.unwrap().trusted(), both[1..]);
}

#[tokio::test]
async fn secret_that_vanished_or_was_scribbled_on_is_put_back() {
    let kept = Kept::default();
    let (client, _) = kept.client();
    let credentials = open(client).await.unwrap();
    let ours = kept.get().unwrap().data;
    let stranger = Kept::default();
    open(stranger.client().0).await.unwrap();
    let stranger = serde_json::to_value(stranger.get().unwrap()).unwrap();
    for harm in [None, Some(foreign(&json!({}))), Some(foreign(&json!({"a": "eA=="})))] {
        kept.put(harm.clone());
        credentials.look(false, Timestamp::now()).await.unwrap();
        assert!(kept.get().is_none_or(|secret| secret.data != ours), "only who leads writes");
        credentials.look(true, Timestamp::now()).await.unwrap();
        assert!(kept.get().unwrap().data == ours);
    }
    // Sound, but nothing that a runner believes.
    kept.put(Some(stranger));
    credentials.look(true, Timestamp::now()).await.unwrap();
    assert!(kept.get().unwrap().data == ours);
}

#[tokio::test]
async fn step_whose_answer_was_lost_is_found_again() {
    let kept = Kept::default();
    let (client, _) = kept.client();
    let here = open(client.clone()).await.unwrap();
    let there = open(client).await.unwrap();
    let later = later(Timestamp::now(), Duration::from_hours(89));
    there.look(true, later).await.unwrap();
    let versions = kept.0.lock().unwrap().1;
    here.look(true, later).await.unwrap();
    assert_eq!(here.trusted(), there.trusted());
    assert_eq!(kept.0.lock().unwrap().1, versions, "it is not made twice");
}

#[tokio::test]
async fn failing_server_changes_nothing_and_is_told() {
    let kept = Kept::default();
    let credentials = open(kept.client().0).await.unwrap();
    let before = credentials.trusted();
    let (refusing, _) = client(|_| failure(403, "Forbidden", "no"));
    let (hanging, _) = client(|_| Answer::Hangs);
    for (broken, expected) in
        [(refusing, "get Secret ns/scriptrunner-operator-session: "), (hanging, "no answer")]
    {
        let credentials = Credentials { store: store(broken.clone()), ..reopened(&kept).await };
        let text = credentials.look(true, Timestamp::now()).await.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
        assert_eq!(credentials.trusted(), before);
        assert!(open(broken).await.is_err());
    }
}

async fn reopened(kept: &Kept) -> Credentials {
    open(kept.client().0).await.unwrap()
}
