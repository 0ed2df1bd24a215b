//! Tests on a clock that stands still until it is told to go on.

use super::*;

const MILLI: Duration = Duration::from_millis(1);

/// A coalescer that runs, and what it passes on.
struct Scene {
    coalescer: Arc<Coalescer<&'static str>>,
    passed: mpsc::UnboundedReceiver<&'static str>,
    begin: Instant,
}

impl Scene {
    fn new() -> Self {
        let (coalescer, passed) = Coalescer::new();
        let coalescer = Arc::new(coalescer);
        let running = coalescer.clone();
        tokio::spawn(async move { running.run().await });
        Self { coalescer, passed, begin: Instant::now() }
    }

    fn trigger(&self, key: &'static str) {
        self.coalescer.trigger(key);
    }

    /// A look that takes as long as it costs.
    async fn look(&self, key: &'static str, cost: Duration, ended: Ended) {
        let mut look = self.coalescer.begin(key);
        tokio::time::advance(cost).await;
        (look.cost, look.ended) = (cost, ended);
    }

    /// What is passed on next, and when, in milliseconds from the beginning; none if nothing is.
    async fn next(&mut self) -> Option<(&'static str, u128)> {
        let key = tokio::time::timeout(Duration::from_mins(10), self.passed.recv()).await.ok()??;
        Some((key, self.begin.elapsed().as_millis()))
    }

    fn passed_now(&mut self) -> Option<&'static str> {
        self.passed.try_recv().ok()
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_at_rest_is_looked_at_at_once() {
    let mut scene = Scene::new();
    scene.trigger("a");
    scene.trigger("b");
    assert_eq!((scene.passed_now(), scene.passed_now()), (Some("a"), Some("b")));
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_one_look() {
    let mut scene = Scene::new();
    for _ in 0..1_000 {
        scene.trigger("a");
    }
    assert_eq!((scene.passed_now(), scene.passed_now()), (Some("a"), None));
    scene.look("a", 10 * MILLI, Ended::Well).await;
    assert_eq!(scene.next().await, None, "all of them came before the look");
}

#[tokio::test(start_paused = true)]
async fn after_a_look_an_object_rests_four_times_as_long_as_it_took() {
    let mut scene = Scene::new();
    scene.trigger("a");
    scene.next().await;
    scene.look("a", 100 * MILLI, Ended::Well).await;
    for _ in 0..1_000 {
        scene.trigger("a");
    }
    assert_eq!(scene.next().await, Some(("a", 500)), "all of them merged into one");
    scene.look("a", 100 * MILLI, Ended::Well).await;
    assert_eq!(scene.next().await, None);
    scene.trigger("a");
    assert_eq!(scene.passed_now(), Some("a"), "it has rested");
}

#[tokio::test(start_paused = true)]
async fn an_object_whose_status_waits_to_be_written_rests_longer() {
    let mut scene = Scene::new();
    scene.look("a", 10 * MILLI, Ended::Waiting).await;
    scene.trigger("a");
    assert_eq!(scene.next().await, Some(("a", 200)));
    scene.look("a", 100 * MILLI, Ended::Waiting).await;
    scene.trigger("a");
    assert_eq!(scene.next().await, Some(("a", 300 + 1_000)), "but not without end");
}

#[tokio::test]
async fn a_look_costs_the_time_that_it_takes_of_the_process_and_says_how_it_ended() {
    let (idle, busy) = (50 * MILLI, 10 * MILLI);
    let scene = Scene::new();
    for (is_waiting, share) in [(false, SHARE), (true, SHARE_WAITING)] {
        let begin = Instant::now();
        let look = scene.coalescer.begin("a");
        let work = async {
            tokio::time::sleep(idle).await;
            std::thread::sleep(busy);
            Ok::<_, ()>(())
        };
        look.run(work, || is_waiting).await.unwrap();
        let ended = Instant::now();
        let end = scene.coalescer.lock().ends.keys().next().unwrap().0;
        let took = ended.duration_since(begin);
        assert!(end >= begin + idle + busy + busy * share, "{is_waiting}");
        assert!(
            end <= ended + (took.saturating_sub(idle) * share).max(SHORTEST),
            "{is_waiting}: waiting costs nothing"
        );
    }
    let look = scene.coalescer.begin("a");
    look.run(std::future::ready(Err::<(), ()>(())), || true).await.unwrap_err();
    assert_eq!(scene.coalescer.lock().failures["a"], 1);
}

#[tokio::test(start_paused = true)]
async fn what_happens_during_a_look_is_looked_at_after_the_rest() {
    let mut scene = Scene::new();
    let mut look = scene.coalescer.begin("a");
    scene.trigger("a");
    scene.trigger("a");
    tokio::time::advance(50 * MILLI).await;
    look.cost = 50 * MILLI;
    drop(look);
    assert_eq!(scene.next().await, Some(("a", 250)));
    scene.look("a", MILLI, Ended::Well).await;
    assert_eq!(scene.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn events_without_end_starve_no_object() {
    let mut scene = Scene::new();
    let noisy = scene.coalescer.clone();
    tokio::spawn(async move {
        loop {
            noisy.trigger("a");
            noisy.trigger("b");
            tokio::time::sleep(MILLI).await;
        }
    });
    let mut looks = HashMap::from([("a", 0_u32), ("b", 0)]);
    while scene.begin.elapsed() < Duration::from_secs(20) {
        let (key, _) = scene.next().await.unwrap();
        *looks.get_mut(key).unwrap() += 1;
        scene.look(key, 10 * MILLI, Ended::Well).await;
    }
    // Ten milliseconds of work, forty of rest, and the other object's work may come between.
    assert!(looks.values().all(|count| (300..=401).contains(count)), "{looks:?}");
}

#[tokio::test(start_paused = true)]
async fn objects_do_not_hold_each_other_up() {
    let mut scene = Scene::new();
    scene.look("slow", 100 * MILLI, Ended::Well).await;
    scene.trigger("slow");
    scene.trigger("quick");
    assert_eq!(scene.next().await, Some(("quick", 100)));
    assert_eq!(scene.next().await, Some(("slow", 500)));
}

#[tokio::test(start_paused = true)]
async fn what_an_object_asks_for_itself_is_not_held_back_and_covers_what_waits() {
    let mut scene = Scene::new();
    scene.look("a", 100 * MILLI, Ended::Well).await;
    scene.trigger("a");
    // The controller begins by itself, within the rest.
    tokio::time::advance(100 * MILLI).await;
    scene.look("a", 10 * MILLI, Ended::Well).await;
    assert_eq!(scene.next().await, None, "what waited was seen by that look");
    scene.trigger("a");
    assert_eq!(scene.passed_now(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_older_rest_means_nothing() {
    let mut scene = Scene::new();
    scene.look("a", 100 * MILLI, Ended::Well).await;
    scene.trigger("a");
    tokio::time::advance(100 * MILLI).await;
    let look = scene.coalescer.begin("a");
    // Beyond the end of the rest that the look cut short.
    tokio::time::sleep(400 * MILLI).await;
    scene.trigger("a");
    assert_eq!(scene.passed_now(), None, "never two looks at the same time");
    drop(look);
    assert_eq!(scene.next().await, Some(("a", 620)));
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_lengthen_the_rest_however_many_events_there_are() {
    let mut scene = Scene::new();
    let mut ends = Vec::new();
    scene.trigger("a");
    for _ in 0..7 {
        ends.push(scene.next().await.unwrap().1 / 1_000);
        scene.look("a", MILLI, Ended::Failed).await;
        scene.trigger("a");
    }
    assert_eq!(ends, [0, 1, 3, 7, 15, 31, 47]);
    scene.next().await;
    scene.look("a", MILLI, Ended::Well).await;
    scene.trigger("a");
    let before = Instant::now();
    scene.next().await;
    assert_eq!(before.elapsed(), SHORTEST, "forgotten with the first that did not fail");
    scene.look("a", MILLI, Ended::Failed).await;
    scene.trigger("a");
    let before = Instant::now();
    scene.next().await;
    assert_eq!(before.elapsed(), AFTER_FAILURE);
}

#[tokio::test(start_paused = true)]
async fn a_rest_that_ends_unused_does_not_make_failures_forgotten() {
    let scene = Scene::new();
    for _ in 0..3 {
        scene.look("a", MILLI, Ended::Failed).await;
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    assert_eq!(scene.coalescer.lock().failures["a"], 3);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_not_known_is_tried_again_only_if_something_came_since() {
    let mut scene = Scene::new();
    scene.trigger("a");
    scene.next().await;
    scene.coalescer.unknown("a");
    assert_eq!(scene.next().await, None);
    scene.trigger("a");
    assert_eq!(scene.passed_now(), Some("a"), "it may be made again");
    scene.trigger("a");
    scene.coalescer.unknown("a");
    assert_eq!(scene.next().await.map(|(key, _)| key), Some("a"), "it was made in this moment");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_is_given_up_ends() {
    let mut scene = Scene::new();
    let look = scene.coalescer.begin("a");
    let endless = look.run(std::future::pending::<Result<(), ()>>(), || false);
    assert!(tokio::time::timeout(MILLI, endless).await.is_err());
    scene.trigger("a");
    assert_eq!(scene.next().await.map(|(key, _)| key), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_objects_at_rest() {
    let scene = Scene::new();
    for _ in 0..10 {
        scene.look("a", 10 * MILLI, Ended::Well).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let table = scene.coalescer.lock();
    assert_eq!((table.objects.len(), table.ends.len(), table.failures.len()), (0, 0, 0));
}

#[test]
fn many_objects_share_half_of_the_time() {
    let cost = 100 * MILLI;
    let rest_after = |cost, active, failures| rest_after(cost, active, Ended::Well, failures);
    assert_eq!(rest_after(cost, 1, 0), 400 * MILLI);
    assert_eq!(rest_after(cost, 2, 0), 400 * MILLI);
    assert_eq!(rest_after(cost, 10, 0), 2_000 * MILLI);
    assert_eq!(rest_after(cost, 1_000, 0), LONGEST_OF_ALL);
    assert_eq!(rest_after(Duration::ZERO, 1_000, 0), SHORTEST);
    assert_eq!(rest_after(500 * MILLI, 1, 0), LONGEST);
    assert_eq!(rest_after(cost, 1, u32::MAX), 16 * AFTER_FAILURE);
    assert_eq!(rest_after(Duration::MAX, u32::MAX, 0), LONGEST_OF_ALL);
}
