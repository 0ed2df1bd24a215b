use std::pin::pin;

use axum::{Router, extract::State};
use futures::{FutureExt, StreamExt, channel::mpsc};
use kube::Config;
use tokio::sync::Mutex;

use super::*;

type Events = Arc<Mutex<mpsc::UnboundedReceiver<io::Result<String>>>>;

/// An API server of a few lines, a proxy before it, and clients of both.
struct Scene {
    proxy: ApiProxy,
    through: Client,
    events: mpsc::UnboundedSender<io::Result<String>>,
    arrived: Arc<Mutex<Vec<String>>>,
}

async fn serve(
    State((arrived, events)): State<(Arc<Mutex<Vec<String>>>, Events)>,
    request: axum::extract::Request,
) -> axum::response::Response {
    let call = Call::of(request.method(), request.uri());
    arrived.lock().await.push(call.to_string());
    if call.verb != "watch" {
        return axum::response::Response::new(format!("{{\"done\":{:?}}}", call.to_string()).into());
    }
    let events = futures::stream::unfold(events, async |events| {
        let next = events.lock().await.next().await;
        next.map(|event| (event, events))
    });
    axum::response::Response::new(axum::body::Body::from_stream(events))
}

fn client(url: &str) -> Client {
    let mut config = Config::new(url.parse().unwrap());
    config.default_retry = false;
    config.proxy_url = None;
    Client::try_from(config).unwrap()
}

async fn scene() -> Scene {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let upstream = client(&format!("http://{}", listener.local_addr().unwrap()));
    let (events, receiver) = mpsc::unbounded();
    let arrived = Arc::default();
    let router =
        Router::new().fallback(serve).with_state((Arc::clone(&arrived), Arc::new(Mutex::new(receiver))));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let proxy = ApiProxy::start(upstream).await.unwrap();
    let through = client(&format!("http://{}", proxy.address));
    Scene { proxy, through, events, arrived }
}

impl Scene {
    /// Creates a pod; the answer, or the kind of failure.
    async fn create(&self) -> Result<String, String> {
        let request = Request::post("/api/v1/namespaces/n/pods").body(b"{}".to_vec()).unwrap();
        self.through.request_text(request).await.map_err(|error| match error {
            kube::Error::Api(status) => format!("{} {}", status.code, status.reason),
            _ => "broken".to_owned(),
        })
    }

    async fn arrived(&self) -> usize {
        self.arrived.lock().await.len()
    }
}

const POD: &str = "{\"done\":\"create pods n\"}";

fn is_create(call: &Call) -> bool {
    call.is("create pods")
}

#[tokio::test]
async fn requests_pass_and_are_recorded() {
    let scene = scene().await;
    assert_eq!(scene.create().await.as_deref(), Ok(POD));
    let records = scene.proxy.records();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].call.to_string().as_str(), records[0].answer), ("create pods n", Some(200)));
    assert!(scene.proxy.kubeconfig().contains(&scene.proxy.address.to_string()));
}

#[tokio::test]
async fn refusals_come_before_or_after_the_deed() {
    let scene = scene().await;
    let conflict = Refusal::new(409, "Conflict");
    let before = scene.proxy.inject(is_create, Turn::nth(2), Fault::Refuse(conflict));
    let after = scene.proxy.inject(is_create, Turn::nth(3), Fault::Answer(Refusal::new(504, "Timeout")));
    assert_eq!(scene.create().await.as_deref(), Ok(POD));
    assert_eq!((scene.create().await, scene.arrived().await), (Err("409 Conflict".into()), 1));
    assert_eq!((scene.create().await, scene.arrived().await), (Err("504 Timeout".into()), 2));
    assert_eq!(scene.create().await.as_deref(), Ok(POD));
    assert_eq!((before.lift(), after.lift()), (1, 1));
    let answers: Vec<_> = scene.proxy.records().iter().map(|record| record.answer).collect();
    assert_eq!(answers, [Some(200), None, Some(200), Some(200)]);
}

#[tokio::test]
async fn connections_break_before_or_after_the_deed() {
    let scene = scene().await;
    let before = scene.proxy.inject(is_create, Turn::nth(1), Fault::Break);
    let after = scene.proxy.inject(is_create, Turn::nth(2), Fault::Lose);
    assert_eq!((scene.create().await, scene.arrived().await), (Err("broken".into()), 0));
    assert_eq!((scene.create().await, scene.arrived().await), (Err("broken".into()), 1));
    assert_eq!((before.hits(), after.hits()), (1, 1));
}

#[tokio::test]
async fn a_delayed_request_arrives_though_its_sender_is_gone() {
    let scene = scene().await;
    let _delay = scene.proxy.inject(is_create, Turn::every(), Fault::Delay(Duration::from_millis(300)));
    let impatient = tokio::time::timeout(Duration::from_millis(100), scene.create()).await;
    assert!(impatient.is_err() && scene.arrived().await == 0);
    crate::wait::until("the request to arrive", Duration::from_secs(10), async |_| {
        Ok::<_, Infallible>((scene.arrived().await == 1).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_test_decides_what_becomes_of_a_stopped_request() {
    let scene = scene().await;
    let deadline = Duration::from_secs(10);
    let mut before = scene.proxy.stop(is_create, Turn::first(2), Moment::Before);
    let (answer, arrived) = tokio::join!(scene.create(), async {
        let stopped = before.reached(deadline).await.unwrap();
        let arrived = scene.arrived().await;
        stopped.go_on();
        arrived
    });
    assert_eq!((answer.as_deref(), arrived), (Ok(POD), 0));
    let (answer, ()) = tokio::join!(scene.create(), async { drop(before.reached(deadline).await.unwrap()) });
    assert_eq!((answer, scene.arrived().await), (Err("broken".into()), 1));
    let mut after = scene.proxy.stop(is_create, Turn::nth(1), Moment::After);
    let (answer, arrived) = tokio::join!(scene.create(), async {
        let _dropped = after.reached(deadline).await.unwrap();
        scene.arrived().await
    });
    assert_eq!((answer, arrived), (Err("broken".into()), 2));
    assert_eq!((before.hits(), after.hits()), (2, 1));
}

#[tokio::test]
async fn what_a_watch_brings_is_held_and_its_connection_cut() {
    let scene = scene().await;
    let request = Request::get("/api/v1/pods?watch=true").body(client::Body::empty()).unwrap();
    scene.events.unbounded_send(Ok("one".into())).unwrap();
    let mut body = scene.through.send(request).await.unwrap().into_body();
    let text = async |body: &mut client::Body| {
        let frame = body.frame().await.unwrap();
        frame.map(|frame| String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    };
    assert_eq!(text(&mut body).await.unwrap(), "one");
    let held = scene.proxy.hold_watches("pods");
    scene.events.unbounded_send(Ok("two".into())).unwrap();
    crate::wait::until("an event to be held back", Duration::from_secs(10), async |_| {
        Ok::<_, Infallible>((held.hits() == 1).then_some(()))
    })
    .await
    .unwrap();
    assert!(pin!(text(&mut body)).now_or_never().is_none());
    drop(held);
    assert_eq!(text(&mut body).await.unwrap(), "two");
    assert_eq!(scene.proxy.cut_watches("pods"), 1);
    assert!(text(&mut body).await.is_err());
}
