//! The rule on a clock of its own, and the layer with scripted answers.

use tower::{ServiceExt as _, service_fn};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A rule, and its clock.
struct Scene {
    throttle: Throttle,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        Self { throttle: Throttle::new(SECOND), now: Instant::now() }
    }

    fn after(&mut self, pause: Duration) -> &mut Self {
        self.now += pause;
        self
    }

    /// A write that takes no time.
    fn fails(&mut self) -> u64 {
        self.throttle.failed(self.now, self.now, None);
        self.throttle.interval().as_secs()
    }

    fn is_answered(&mut self) -> u64 {
        self.throttle.answered(self.now, self.now);
        self.throttle.interval().as_secs()
    }
}

#[test]
fn each_failure_doubles_the_interval_up_to_a_limit() {
    let mut scene = Scene::new();
    let widths: Vec<_> = (0..8).map(|_| scene.after(SECOND).fails()).collect();
    assert_eq!(widths, [2, 4, 8, 16, 32, 32, 32, 32]);
}

#[test]
fn writes_that_were_under_way_together_count_once() {
    let mut scene = Scene::new();
    let began = scene.now;
    scene.after(SECOND);
    for _ in 0..32 {
        scene.throttle.failed(began, scene.now, None);
    }
    assert_eq!(scene.throttle.interval(), 2 * SECOND);
    assert_eq!(scene.after(SECOND).fails(), 4);
}

#[test]
fn answers_narrow_it_by_one_step_per_interval() {
    let mut scene = Scene::new();
    for _ in 0..5 {
        scene.after(SECOND).fails();
    }
    let begin = scene.now;
    let mut steps = Vec::new();
    while scene.throttle.steps > 0 {
        let before = scene.throttle.interval();
        scene.after(SECOND / 10).is_answered();
        if scene.throttle.interval() != before {
            steps.push((scene.now - begin).as_secs());
        }
    }
    assert_eq!(steps, [32, 48, 56, 60, 62]);
    assert_eq!(scene.after(SECOND).is_answered(), 1, "and no further");
}

#[test]
fn refusals_among_answers_keep_it_wide() {
    let mut scene = Scene::new();
    for _ in 0..4 {
        scene.after(SECOND).fails();
    }
    for turn in 0..100 {
        scene.after(SECOND);
        let width = if turn % 10 == 0 { scene.fails() } else { scene.is_answered() };
        assert!(width >= 16, "{turn}: {width}");
    }
}

#[test]
fn an_answer_to_what_was_asked_before_is_no_news() {
    let mut scene = Scene::new();
    let began = scene.now;
    scene.after(SECOND).fails();
    scene.after(10 * SECOND);
    scene.throttle.answered(began, scene.now);
    assert_eq!(scene.throttle.interval(), 2 * SECOND);
}

#[test]
fn the_server_is_left_alone_for_as_long_as_it_asks_but_not_for_ever() {
    let mut scene = Scene::new();
    assert_eq!(scene.throttle.hold(scene.now), None);
    scene.throttle.failed(scene.now, scene.now, Some(10 * SECOND));
    scene.throttle.failed(scene.now, scene.now, Some(3 * SECOND));
    assert_eq!(scene.throttle.hold(scene.now), Some(10 * SECOND), "the longest counts");
    scene.after(10 * SECOND);
    assert_eq!(scene.throttle.hold(scene.now), None);
    scene.throttle.failed(scene.now, scene.now, Some(Duration::from_hours(100)));
    assert_eq!(scene.throttle.hold(scene.now), Some(LONGEST_RETRY_AFTER));
}

/// What a request to a server that answers so leaves of the pressure: the interval in seconds, and the hold.
async fn left_by(method: Method, status: u16, header: Option<&str>) -> (u64, Option<Duration>) {
    let gauge = Gauge::default();
    let pressure = Pressure::new(SECOND, gauge.clone());
    let header = header.map(str::to_owned);
    let inner = service_fn(move |_: Request<Body>| {
        let mut response = Response::builder().status(status);
        if let Some(header) = &header {
            response = response.header("Retry-After", header);
        }
        std::future::ready(Ok::<_, BoxError>(response.body(()).unwrap()))
    });
    let request = Request::builder().method(method).body(Body::empty()).unwrap();
    pressure.layer(inner).oneshot(request).await.unwrap();
    assert!((gauge.get() - pressure.interval().as_secs_f64()).abs() < 0.001);
    (pressure.interval().as_secs(), pressure.hold(Context::instant()))
}

#[tokio::test(start_paused = true)]
async fn some_answers_to_writes_are_signs_of_load() {
    for (status, seconds) in [(429, 2), (503, 2), (504, 2), (200, 1), (201, 1), (403, 1), (409, 1), (500, 1)]
    {
        assert_eq!(left_by(Method::POST, status, None).await, (seconds, None), "{status}");
    }
    assert_eq!(left_by(Method::GET, 429, None).await, (1, None), "reads are not what is paced");
    assert_eq!(left_by(Method::PATCH, 429, Some("7")).await, (2, Some(7 * SECOND)));
    for nonsense in ["", "soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"] {
        assert_eq!(left_by(Method::PATCH, 429, Some(nonsense)).await, (2, None), "{nonsense}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_a_sign_of_load() {
    let request = || Request::builder().method(Method::POST).body(Body::empty()).unwrap();
    let pressure = Pressure::new(SECOND, Gauge::default());
    let broken =
        service_fn(|_: Request<Body>| std::future::ready(Err::<Response<()>, BoxError>("reset".into())));
    pressure.layer(broken).oneshot(request()).await.unwrap_err();
    assert_eq!(pressure.interval(), 2 * SECOND);
    tokio::time::advance(SECOND).await;
    let silent = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<()>, BoxError>>());
    let answer = pressure.layer(silent).oneshot(request());
    tokio::time::timeout(SECOND, answer).await.unwrap_err();
    assert_eq!(pressure.interval(), 4 * SECOND);
}
