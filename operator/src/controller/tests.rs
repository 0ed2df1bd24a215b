//! What is asked of a scripted API server when objects are gone.

use http::Method;
use serde_json::json;

use super::*;
use crate::scripted::{Answer, Record, client, context, failure, pod_facts};

/// What the parts of a controller share that knows of no object.
fn parts(context: Context) -> Parts {
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    let (coalescer, _) = Coalescer::new();
    Parts { context: Arc::new(context), store, coalescer: Arc::new(coalescer), orphans: Notify::new() }
}

fn with_pods(parts: &Parts, object: &str, count: usize) {
    for number in 0..count {
        parts.context.world.pods().put(pod_facts(object, &format!("{object}-{number}"), true));
    }
    parts.orphans.notify_one();
}

fn deletions(record: &Record, object: &str) -> usize {
    let all = record.all();
    all.iter().filter(|asked| asked.method == Method::DELETE && asked.path.contains(object)).count()
}

/// Waits until so many pods of the object were deleted; gives the seconds that it took.
async fn until_deleted(record: &Record, object: &str, count: usize) -> f64 {
    let begin = Instant::now();
    while deletions(record, object) < count {
        assert!(begin.elapsed() < Duration::from_mins(1), "{} of {object}", deletions(record, object));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begin.elapsed().as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_one_object_do_not_wait_for_all_those_of_another() {
    let (client, record) = client(|asked| match asked.method {
        Method::DELETE => Answer::Late(
            Duration::from_millis(500),
            200,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}),
        ),
        _ => failure(404, "NotFound", "gone"),
    });
    let parts = parts(context(client));
    let story = async {
        with_pods(&parts, "large", 1_000);
        until_deleted(&record, "large", 1).await;
        with_pods(&parts, "small", 3);
        let seconds = until_deleted(&record, "small", 3).await;
        // A second of rest, and its turn.
        assert!(seconds < 3.0, "{seconds}");
        assert!(deletions(&record, "large") < 300);
        until_deleted(&record, "large", 1_000).await;
    };
    tokio::select! {
        () = sweep_on_demand(&parts) => {}
        () = story => {}
    }
    assert_eq!(deletions(&record, "large"), 1_000, "each once");
}
