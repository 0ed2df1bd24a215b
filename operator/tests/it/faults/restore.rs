//! An object comes back from a backup: with its status nothing runs again, without one it is a new object.

use scriptrunner_api::v1alpha1::ScriptRunner;

use super::{
    ledger,
    scene::scene,
    subject::{Subject, status},
    witness::Witness,
};

const REPEATS: u64 = 2;

#[tokio::test]
async fn an_object_from_a_backup_runs_again_only_without_its_status() {
    scene("faults::restore", async |scene| {
        let witness = Witness::begin(scene).await;
        let mut operator = scene.start().await;
        let subject = Subject::create(scene, "subject", REPEATS).await;
        subject.until_told_exactly(&witness, REPEATS).await;
        operator.kill().await;
        let backup = subject.get().await;

        // A status can only be written once its object is there, so the operator that sees both comes later.
        let restored = subject.restore(&backup, true).await;
        let mut operator = scene.start().await;
        let is_seen = |object: &ScriptRunner| {
            object.status.as_ref().and_then(|status| status.object_uid.as_ref())
                == restored.metadata.uid.as_ref()
        };
        let object = subject.until("the restored object to be seen", is_seen).await;
        witness.until_rest(&subject.name).await;
        subject.assert_exact(&subject.get().await, REPEATS);
        assert_eq!(status(&object).run, backup.status.as_ref().unwrap().run, "the same run");
        assert!(witness.pods_per_node(&subject.name).values().all(|pods| *pods == 1), "nothing ran again");
        // And it goes on from there.
        subject.run_once_more().await;
        let object = subject.until_run_over(2).await;
        for entry in status(&object).nodes.values() {
            assert_eq!((entry.run, entry.attempts, entry.executions), (2, 1, REPEATS + 1), "{entry:?}");
        }
        subject.until_no_pods().await;
        operator.kill().await;

        ledger::remove(scene, &subject.name);
        subject.restore(&backup, false).await;
        let operator = scene.start().await;
        subject.until_told_exactly(&witness, REPEATS).await;
        subject.delete().await;
        drop(operator);
    })
    .await;
}
