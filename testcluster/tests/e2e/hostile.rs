//! Scripts that behave badly: nothing of them is left, their end is told, and the node goes on.

use serde_json::json;

use crate::{
    answer::{entry, newest, state, status},
    processes,
    python_index::PythonIndex,
    stage::beside_others,
};

#[tokio::test]
async fn children_left_behind_end_with_the_pod() {
    beside_others("hostile::children", &[], async |stage| {
        let node = stage.some_node();
        // An argument that no other process of the machine has.
        let mark = format!("{}.0625", 86_400 + std::process::id());
        let script = concat!(
            "import os, subprocess, sys\n",
            "print('before', flush=True)\n",
            "for new in (False, True): subprocess.Popen(['sleep', sys.argv[1]], start_new_session=new)\n",
            "if os.fork() == 0:\n    os.setsid()\n    os.fork()\n    os.execvp('sleep', ['sleep', sys.argv[1]])\n",
            "os.close(1)\n",
        );
        let spec = json!({"nodeNames": [node], "args": [mark], "script": script});
        let object = stage.submit("subject", spec).await.until_complete().await;
        assert_eq!(newest(&object, &node).stdout, "before\n");
        processes::until_none(&stage.cluster, "sleep", &mark).await;
        stage.until_pods(0).await;
    })
    .await;
}

#[tokio::test]
async fn a_script_that_ignores_sigterm_meets_its_deadline() {
    beside_others("hostile::ignores_sigterm", &[], async |stage| {
        let node = stage.some_node();
        let script = "trap '' TERM; echo begun; while :; do sleep 0.1; done";
        let spec = json!({"nodeNames": [node], "interpreter": ["bash"], "script": script,
            "executionDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1});
        let object = stage.submit("subject", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "ExecutionDeadlineExceeded"));
        let newest = newest(&object, &node);
        assert_eq!((newest.signal, newest.stdout.as_str()), (Some(9), "begun\n"));
        let millis = newest.duration_millis.unwrap();
        assert!((2000..30_000).contains(&millis), "{millis}");
    })
    .await;
}

#[tokio::test]
async fn a_script_that_fills_memory_is_told_apart() {
    beside_others("hostile::memory", &[], async |stage| {
        let node = stage.some_node();
        let script =
            "print('begun', flush=True)\nhoard = []\nwhile True: hoard.append(bytearray(b'x' * 1048576))";
        let spec = json!({"nodeNames": [node], "script": script});
        let object = stage.submit("subject", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "OOMKilled"));
        let entry = entry(&object, &node);
        assert_eq!((entry.executions, entry.failures), (1, 1), "{entry:?}");
        assert!(entry.message.contains("memory limit"), "{}", entry.message);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_working_folder_is_made_again() {
    beside_others("hostile::deleted_folder", &[], async |stage| {
        let node = stage.some_node();
        // A mount cannot be deleted, but everything in it can.
        let script = "ls -A; touch left; rm -rf \"$PWD\"; echo \"$SCRIPTRUNNER_SERIAL $PWD\"";
        let spec = json!({"nodeNames": [node], "interpreter": ["bash"], "script": script, "runAs": "Root",
            "repeat": {"count": 3, "periodSeconds": 1}});
        let object = stage.submit("subject", spec).await.until_complete().await;
        let entry = entry(&object, &node);
        assert_eq!((entry.executions, entry.failures), (3, 0));
        for execution in &entry.history {
            assert_eq!(execution.stdout, format!("{} /scriptrunner/work\n", execution.serial));
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_interpreter_is_named() {
    beside_others("hostile::interpreter", &[], async |stage| {
        let node = stage.some_node();
        let absent = json!({"nodeNames": [node], "interpreter": ["no-such-interpreter"], "script": "1"});
        let absent = stage.submit("absent", absent).await;
        let shebang = json!({"nodeNames": [node], "script": "#!/opt/none/perl -w\n1"});
        let shebang = stage.submit("shebang", shebang).await;
        for (subject, name) in [(absent, "no-such-interpreter"), (shebang, "/opt/none/perl")] {
            let object = subject.until_failed().await;
            assert_eq!(state(&object, &node), ("Failed", "InterpreterNotStarted"));
            let entry = entry(&object, &node);
            let told = format!("{} {:?}", entry.message, entry.history);
            assert!(told.contains(name), "{told}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_requirement_that_does_not_exist_keeps_the_script_from_running() {
    beside_others("hostile::requirement", &[], async |stage| {
        let node = stage.some_node();
        let index = PythonIndex::start(&stage.cluster, "something", "").await;
        let spec = json!({"nodeNames": [node], "script": "print('ran')", "env": index.environment(),
            "dependencies": {"pip": ["something", "no-such-package==1.0"]}});
        let object = stage.submit("subject", spec).await.until_failed().await;
        assert_eq!(state(&object, &node), ("Failed", "DependencyInstallFailed"));
        let entry = entry(&object, &node);
        assert!(entry.message.contains("no-such-package"), "{}", entry.message);
        assert_eq!((entry.executions, entry.history.len()), (0, 0));
        assert_eq!(status(&object).failed, 1);
    })
    .await;
}
