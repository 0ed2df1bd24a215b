//! Figures that are read by people: time to answer, requests per run, writes and memory of an idle operator.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Seek, SeekFrom},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    operator, processes,
    stage::{Stage, alone},
};

/// Reads the API server's audit log from a moment on.
struct Audit {
    log: fs::File,
}

impl Audit {
    fn from_now(stage: &Stage) -> Self {
        let mut log = fs::File::open(stage.cluster.audit_log()).unwrap();
        log.seek(SeekFrom::End(0)).unwrap();
        Self { log }
    }

    /// The operator's requests since then, counted by verb and resource; what it did for other namespaces is left out.
    fn operator_requests(mut self, stage: &Stage) -> BTreeMap<String, usize> {
        let namespaces = ["", operator::NAMESPACE, stage.namespace.as_str()];
        let mut text = String::new();
        self.log.read_to_string(&mut text).unwrap();
        let mut counts = BTreeMap::new();
        for event in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let part = |name: &str| event["objectRef"][name].as_str().unwrap_or_default().to_owned();
            if event["user"]["username"] != operator::USER
                || !namespaces.contains(&part("namespace").as_str())
            {
                continue;
            }
            let resource = [part("resource"), part("subresource")].join("/");
            let request =
                format!("{} {}", event["verb"].as_str().unwrap_or_default(), resource.trim_end_matches('/'));
            *counts.entry(request).or_default() += 1;
        }
        counts
    }
}

#[tokio::test]
#[ignore = "a benchmark; run by hand"]
async fn from_apply_to_complete() {
    alone("figures::latency", &[], async |stage| {
        let mut times = Vec::new();
        for number in 0..5 {
            let spec = json!({"nodeLabelSelector": {}, "script": "print('hello')"});
            let started = Instant::now();
            stage.submit(&format!("subject-{number}"), spec).await.until_complete().await;
            times.push(started.elapsed());
            stage.until_pods(0).await;
        }
        times.sort();
        eprintln!("from apply to Complete on three nodes: median {:.2?} of {times:.2?}", times[2]);
    })
    .await;
}

#[tokio::test]
#[ignore = "a benchmark; run by hand"]
async fn requests_of_one_run() {
    alone("figures::requests", &[], async |stage| {
        operator::leader(&stage.client).await;
        let audit = Audit::from_now(&stage);
        let spec = json!({"nodeLabelSelector": {}, "script": "print('hello')"});
        stage.submit("subject", spec).await.until_complete().await;
        stage.until_pods(0).await;
        let mut counts = audit.operator_requests(&stage);
        eprintln!("requests of the operator for one run on three nodes: {counts:#?}");
        counts.retain(|request, _| !request.ends_with(" leases") && !request.ends_with(" events"));
        let patches = counts.remove("patch scriptrunners/status").unwrap_or_default();
        assert!((1..=5).contains(&patches), "{patches} writes of the status");
        // A runner that ends before it is connected needs none; the address of the door is looked up every minute.
        let reviews = counts.remove("create tokenreviews").unwrap_or_default();
        assert!(reviews <= 3, "{reviews} identities asked for");
        counts.retain(|request, _| request != "get services" && request != "get secrets");
        let expected = [("create configmaps", 1), ("create pods", 3), ("delete pods", 3)];
        counts.retain(|request, _| !request.starts_with("watch "));
        assert_eq!(counts, expected.map(|(request, count)| (request.to_owned(), count)).into());
    })
    .await;
}

#[tokio::test]
#[ignore = "a benchmark; run by hand; takes seven minutes"]
async fn an_idle_operator_with_a_hundred_finished_objects() {
    alone("figures::idle", &[], async |stage| {
        let mut subjects = Vec::new();
        for number in 0..100 {
            let spec =
                json!({"nodeNames": [stage.some_node()], "interpreter": ["bash"], "script": "echo hello"});
            subjects.push(stage.submit(&format!("subject-{number}"), spec).await);
        }
        for subject in &subjects {
            subject.until_complete().await;
        }
        stage.until_pods(0).await;
        let audit = Audit::from_now(&stage);
        // The measurement itself.
        tokio::time::sleep(Duration::from_mins(5)).await;
        let counts = audit.operator_requests(&stage);
        eprintln!("requests of an idle operator in five minutes: {counts:#?}");
        let process = processes::find_one(&stage.cluster, operator::PROGRAM, "").await;
        let megabytes = processes::resident_bytes(process) / 1_000_000;
        eprintln!("memory of the operator: {megabytes} MB");
        let reads = ["get ", "list ", "watch "];
        let writes: Vec<_> = counts
            .keys()
            .filter(|request| {
                !reads.iter().any(|verb| request.starts_with(verb)) && *request != "update leases"
            })
            .collect();
        assert_eq!(writes, Vec::<&String>::new());
        assert!(megabytes <= 60, "{megabytes} MB");
    })
    .await;
}
