//! An open door in a namespace of its own, under the operator's own account; pods, tokens, and an honest runner.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Parser;
use http::Method;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use scriptrunner_api::{
    labels,
    session::{AUDIENCE, Ack},
    snapshot::Snapshot,
    v1alpha1::{Execution, Mode},
};
use scriptrunner_core::observed::SessionFacts;
use scriptrunner_operator::{
    args::{Args, Command},
    manifests::operator_user,
    metrics::{Metrics, Outcome},
    policies::{OPERATOR_REQUESTS, TOKENS},
    rbac::OWN_NAMESPACE,
    scope::Scope,
    sessions::{self, Needs, SECRET_NAME, Sessions},
    watches::{self, Sink},
    world::World,
};
use scriptrunner_runner::session::{self as runner, SessionConfig, SessionEvent, Timing, Token};
use scriptrunner_testcluster::{
    Error,
    bindings::{self, Binding},
    namespace::in_namespace,
    wait,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::client::record;
use crate::{
    children::{self, Owner},
    cluster::{acting_as_kubelet, acting_as_operator, admin, grant, send},
};

const PATIENCE: Duration = Duration::from_secs(30);
const JSON: &str = "application/json";

/// An open door, and what is behind it.
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) world: Arc<World>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) address: SocketAddr,
    pub(crate) name: String,
    pub(crate) authorities: Vec<String>,
    owner: Owner,
    /// Whose pods they are.
    operator: Client,
    /// Pods whose snapshots are acknowledged as soon as they come: in place of a reconcile.
    stored: Arc<Mutex<Vec<String>>>,
    tasks: Vec<JoinHandle<()>>,
    _leads: watch::Sender<bool>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Runs a test with an open door.
pub(crate) async fn stage(test: &str, body: impl AsyncFnOnce(&Stage)) {
    let client = admin().await;
    in_namespace(&client.clone(), test, &[], async |namespace| {
        let stage = Box::pin(open(client, namespace)).await;
        Box::pin(body(&stage)).await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

async fn open(client: Client, namespace: String) -> Stage {
    let operator = acting_as_operator().await;
    grant_own_rights(&client, &operator, &namespace).await;
    let owner = children::owner(&client, &namespace, "door").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Arc::new(Metrics::new());
    let (world, sessions) = (Arc::new(World::default()), Arc::new(Sessions::new(Arc::clone(&metrics))));
    let (triggers, receiver) = mpsc::unbounded_channel();
    let sink = Sink { world: Arc::clone(&world), triggers: triggers.clone(), metrics: Arc::clone(&metrics) };
    for (kind, mut synced) in watches::start(&operator, &Scope::default(), &sink) {
        let listed = tokio::time::timeout(PATIENCE, synced.wait_for(|synced| *synced)).await;
        listed.unwrap_or_else(|_| panic!("no list of {kind}")).unwrap();
    }
    let flags = ["operator", "run", "--runner-image=none.invalid/runner:1", "--pod-name=it"];
    let Command::Run(flags) = Args::parse_from(flags).command;
    let mut config = flags.resolve().unwrap();
    config.door.address = Some(address);
    let (leads, leading) = watch::channel(true);
    let needs = Needs {
        client: operator.clone(),
        config: config.door,
        namespace: namespace.clone(),
        request_timeout: config.request_timeout,
        leads: leading,
        sessions: Arc::clone(&sessions),
        world: Arc::clone(&world),
        triggers,
        metrics: Arc::clone(&metrics),
    };
    let door = sessions::prepare(needs).await.unwrap();
    let settings = door.settings().unwrap();
    let stored: Arc<Mutex<Vec<String>>> = Arc::default();
    let storing = tokio::spawn(store(receiver, Arc::clone(&sessions), Arc::clone(&stored)));
    let serving = tokio::spawn(async move { sessions::serve(door, listener).await.unwrap() });
    Stage {
        client,
        namespace,
        sessions,
        world,
        metrics,
        address,
        name: settings.name,
        authorities: settings.authorities,
        owner,
        operator,
        stored,
        tasks: vec![storing, serving],
        _leads: leads,
    }
}

/// Acknowledges whatever the pods in `stored` brought, as a reconcile does once it is stored.
async fn store(
    mut triggers: mpsc::UnboundedReceiver<watches::Trigger>,
    sessions: Arc<Sessions>,
    stored: Arc<Mutex<Vec<String>>>,
) {
    while triggers.recv().await.is_some() {
        let pods = stored.lock().unwrap().clone();
        for (uid, facts) in sessions.facts(pods.iter().map(String::as_str)) {
            if let Some(snapshot) = facts.snapshot {
                let record = &snapshot.record;
                sessions.ack(&uid, &Ack { boot: record.boot.clone(), seq: record.seq });
            }
        }
    }
}

/// The operator's rights in its own namespace, here.
async fn grant_own_rights(client: &Client, operator: &Client, namespace: &str) {
    let rules: Vec<Value> =
        OWN_NAMESPACE.iter().map(|rule| serde_json::to_value(rule.policy_rule()).unwrap()).collect();
    let metadata = json!({"name": "door", "namespace": namespace});
    let objects = vec![
        json!({"kind": "Role", "metadata": metadata, "rules": rules}),
        json!({"kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "door"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": operator_user()}]}),
    ];
    grant(client, namespace, objects).await;
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{SECRET_NAME}");
    wait::until("the operator's rights", PATIENCE, async |seen| {
        let answer = send(operator, Method::GET, &path, JSON, &Value::Null).await;
        seen.note(format!("{answer:?}"));
        let knows = matches!(answer, Err(kube::Error::Api(status)) if status.code == 404);
        Ok::<_, kube::Error>(knows.then_some(()))
    })
    .await
    .unwrap();
}

/// For whom a token is.
#[derive(Clone, Copy)]
pub(crate) enum Audience {
    Ours,
    Default,
}

/// UID of a pod.
pub(crate) fn uid(pod: &Pod) -> String {
    pod.uid().unwrap()
}

/// The token with other claims, and the signature that it had.
pub(crate) fn with_claims(token: &str, change: impl FnOnce(&mut Value)) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    change(&mut claims);
    format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(claims.to_string()), parts[2])
}

/// A pod elsewhere, and its token.
pub(crate) struct Elsewhere {
    pub(crate) uid: String,
    pub(crate) token: String,
}

impl Stage {
    /// Connections that came to no session for this reason.
    pub(crate) fn refusals(&self, word: &'static str) -> u64 {
        self.metrics.session_refusals.get_or_create(&Outcome { outcome: word }).get()
    }

    /// Sessions that ended for this reason.
    pub(crate) fn ends(&self, word: &'static str) -> u64 {
        self.metrics.session_ends.get_or_create(&Outcome { outcome: word }).get()
    }

    /// Questions to the API server whose a token is.
    pub(crate) fn questions(&self) -> u64 {
        self.metrics.token_reviews.get_or_create(&Outcome { outcome: "answered" }).get()
    }

    /// What sessions brought for a pod.
    pub(crate) fn facts(&self, uid: &str) -> Option<SessionFacts> {
        self.sessions.facts(std::iter::once(uid)).remove(uid)
    }

    /// Number of its newest snapshot.
    pub(crate) fn seq(&self, uid: &str) -> Option<u64> {
        Some(self.facts(uid)?.snapshot?.record.seq)
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        wait::until(what, PATIENCE, async |seen| {
            seen.note(self.metrics.text().unwrap());
            Ok::<_, Error>(is_so(self).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Names of nodes.
    pub(crate) async fn nodes(&self) -> Vec<String> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await.unwrap();
        nodes.items.iter().map(ResourceExt::name_any).collect()
    }

    /// A pod of the operator, but for `change`. Returns once the watch has shown it.
    pub(crate) async fn pod(&self, name: &str, change: &Value) -> Pod {
        let pod = self.marked(&self.owner, name, change).await;
        self.make(&self.operator, &self.namespace, &pod).await.unwrap()
    }

    /// The same for what the policy of the operator's requests would refuse.
    pub(crate) async fn forged_pod(&self, name: &str, change: &Value) -> Pod {
        let pod = self.marked(&self.owner, name, change).await;
        let made = self.without(OPERATOR_REQUESTS, "the pod to be made", async || {
            self.make(&self.operator, &self.namespace, &pod).await
        });
        made.await
    }

    /// A pod with our marks, as the operator makes them, but for `change`.
    async fn marked(&self, owner: &Owner, name: &str, change: &Value) -> Value {
        let node = self.nodes().await[0].clone();
        let mut pod = children::pod(name, Mode::Normal, owner);
        let ours = json!({"metadata": {
            "labels": {labels::ATTEMPT: "1", labels::NODE_UID: "a-node"},
            "annotations": {labels::NODE: node}},
            "spec": {"schedulingGates": null, "nodeName": node, "terminationGracePeriodSeconds": 0}});
        json_patch::merge(&mut pod, &ours);
        json_patch::merge(&mut pod, change);
        pod
    }

    /// Makes a pod; returns once the watch has shown it.
    async fn make(&self, client: &Client, namespace: &str, pod: &Value) -> kube::Result<Pod> {
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        let made = pods.create(&PostParams::default(), &serde_json::from_value(pod.clone()).unwrap()).await?;
        self.until("the watch to show the pod", |stage| stage.world.pods().find(&uid(&made)).is_some()).await;
        Ok(made)
    }

    /// A pod of somebody else.
    pub(crate) async fn strange_pod(&self, name: &str) -> Pod {
        let node = self.nodes().await[0].clone();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node,
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [{"name": "runner", "image": "none.invalid/runner:1"}]}});
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    /// Does something that a policy forbids, with that policy taken away from the namespace.
    async fn without<T>(&self, policy: &str, what: &str, deed: impl AsyncFn() -> kube::Result<T>) -> T {
        let policies = [Binding::Validating(policy)];
        let bindings = bindings::narrowing().await;
        let done = bindings.without(&self.client, &policies, &self.namespace, async || {
            wait::until(what, PATIENCE, async |seen| {
                let answer = deed().await;
                seen.note(format!("{:?}", answer.as_ref().err()));
                Ok::<_, kube::Error>(answer.ok())
            })
            .await
            .unwrap()
        });
        done.await.unwrap()
    }

    /// Deletes a pod at once, and waits until the watch has shown that.
    pub(crate) async fn delete(&self, pod: &Pod) {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();
        let uid = uid(pod);
        self.until("the watch to show its end", |stage| {
            let facts = stage.world.pods().find(&uid);
            facts.is_none_or(|facts| facts.presence != scriptrunner_core::observed::Presence::Present)
        })
        .await;
    }

    /// Makes a service account.
    pub(crate) async fn account(&self, name: &str) {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts", self.namespace);
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        send(&self.client, Method::POST, &path, JSON, &account).await.unwrap();
    }

    /// The token that the kubelet gives the pod for the operator, or one of the API server's own audience.
    pub(crate) async fn token(&self, pod: &Pod, audience: Audience) -> String {
        let spec = pod.spec.as_ref().unwrap();
        match audience {
            Audience::Default => mint(&self.client, pod, audience).await.unwrap(),
            Audience::Ours => {
                let kubelet = acting_as_kubelet(spec.node_name.as_ref().unwrap()).await;
                // It may not before the API server has seen that the pod is the node's.
                wait::until("the kubelet to have the pod's token", PATIENCE, async |seen| {
                    let answer = mint(&kubelet, pod, audience).await;
                    seen.note(format!("{:?}", answer.as_ref().err()));
                    Ok::<_, kube::Error>(answer.ok())
                })
                .await
                .unwrap()
            }
        }
    }

    /// A token for the operator that is bound to a pod that is not ours, which no kubelet asks for.
    pub(crate) async fn strange_token(&self, pod: &Pod) -> String {
        self.without(TOKENS, "a token of a stranger", async || mint(&self.client, pod, Audience::Ours).await)
            .await
    }

    /// A token of the account and of no pod.
    pub(crate) async fn unbound_token(&self) -> String {
        self.without(TOKENS, "a token of no pod", async || {
            request_token(&self.client, &self.namespace, "default", Audience::Ours, &Value::Null).await
        })
        .await
    }

    /// A pod of the same name in another namespace, with an owner there. Gives the namespace too.
    pub(crate) async fn elsewhere(&self, name: &str) -> (Elsewhere, String) {
        let namespace = format!("{}-2", self.namespace);
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        send(&self.client, Method::POST, "/api/v1/namespaces", JSON, &object).await.unwrap();
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        wait::until("the account of the namespace", PATIENCE, async |_| {
            send(&self.client, Method::GET, &account, JSON, &Value::Null).await.map(Some)
        })
        .await
        .unwrap();
        let owner = children::owner(&self.client, &namespace, "door").await;
        let pod = self.marked(&owner, &format!("srn-{name}"), &json!({})).await;
        let pod = self.make(&self.operator, &namespace, &pod).await.unwrap();
        let token = self.token(&pod, Audience::Ours).await;
        (Elsewhere { uid: uid(&pod), token }, namespace)
    }

    /// Removes a namespace that is not the test's own.
    pub(crate) async fn remove_namespace(&self, name: &str) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A runner that does all that a runner does, for a pod of its own. Returns once it is connected.
    pub(crate) async fn honest(&self, name: &str) -> Honest<'_> {
        let pod = self.pod(&format!("srn-{name}"), &json!({})).await;
        let token = self.token(&pod, Audience::Ours).await;
        let uid = uid(&pod);
        self.stored.lock().unwrap().push(uid.clone());
        let door = runner::Door::new(&self.address.to_string(), &self.name, &self.authorities).unwrap();
        let timing = Timing {
            spacing: Duration::from_millis(1),
            hold_back: Duration::from_millis(1),
            ..Timing::default()
        };
        let config = SessionConfig { door, token: Token::Text(token), boot: name.to_owned(), timing };
        let (outbox, receiver) = watch::channel(None);
        let (sender, events) = mpsc::channel(64);
        tokio::spawn(runner::run(config, receiver, sender));
        let mut honest =
            Honest { stage: self, uid, name: pod.name_any(), boot: name.to_owned(), seq: 0, outbox, events };
        while honest.next().await != SessionEvent::Connected {}
        honest
    }
}

/// A token of a pod's account that is bound to the pod.
async fn mint(client: &Client, pod: &Pod, audience: Audience) -> kube::Result<String> {
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": pod.name_any(), "uid": uid(pod)});
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    request_token(client, &pod.namespace().unwrap(), account, audience, &bound).await
}

async fn request_token(
    client: &Client,
    namespace: &str,
    account: &str,
    audience: Audience,
    bound: &Value,
) -> kube::Result<String> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let audiences = match audience {
        Audience::Ours => json!([AUDIENCE]),
        Audience::Default => json!([]),
    };
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": audiences, "expirationSeconds": 600, "boundObjectRef": bound}});
    let answer = send(client, Method::POST, &path, JSON, &ask).await?;
    Ok(answer["status"]["token"].as_str().unwrap().to_owned())
}

/// An honest runner.
pub(crate) struct Honest<'a> {
    stage: &'a Stage,
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) boot: String,
    seq: u64,
    outbox: watch::Sender<Option<Arc<Snapshot>>>,
    events: mpsc::Receiver<SessionEvent>,
}

impl Honest<'_> {
    async fn next(&mut self) -> SessionEvent {
        tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("a session")
    }

    /// What it says is acknowledged soon, and nothing else happens to it.
    pub(crate) async fn is_undisturbed(&mut self) {
        self.seq += 1;
        let began = Instant::now();
        let execution =
            Execution { run: 1, attempt: 1, serial: 1, stdout: "ok".to_owned(), ..Execution::default() };
        let record = record(&self.boot, self.seq, 1);
        self.outbox.send_replace(Some(Arc::new(Snapshot { record, history: vec![execution] })));
        let ack = Ack { boot: self.boot.clone(), seq: self.seq };
        assert_eq!(self.next().await, SessionEvent::Acked(ack));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(self.stage.facts(&self.uid).is_some_and(|facts| facts.connected));
    }
}
