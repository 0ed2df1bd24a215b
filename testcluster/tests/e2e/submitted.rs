//! A ScriptRunner that a test has created: waiting for what its status says, editing it, deleting it.

use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use scriptrunner_api::{condition::ConditionType, v1alpha1::ScriptRunner};
use scriptrunner_testcluster::wait;
use serde_json::Value;

use crate::{
    answer::{holds_now, summary},
    stage::PATIENCE,
};

/// A ScriptRunner in the API server.
pub(crate) struct Submitted {
    api: Api<ScriptRunner>,
    name: String,
}

impl Submitted {
    pub(crate) fn new(api: Api<ScriptRunner>, name: &str) -> Self {
        Self { api, name: name.to_owned() }
    }

    /// The object as it is now.
    pub(crate) async fn get(&self) -> ScriptRunner {
        self.api.get(&self.name).await.unwrap()
    }

    /// Waits until the object is as described.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&ScriptRunner) -> bool) -> ScriptRunner {
        let what = format!("ScriptRunner {:?}: {what}", self.name);
        wait::until(&what, PATIENCE, async |seen| {
            let object = self.api.get(&self.name).await?;
            seen.note(summary(&object));
            Ok::<_, kube::Error>(is_so(&object).then_some(object))
        })
        .await
        .unwrap()
    }

    /// Waits until the spec as it is now was looked at.
    pub(crate) async fn until_observed(&self) -> ScriptRunner {
        let is_observed = |object: &ScriptRunner| {
            object.status.as_ref().and_then(|status| status.observed_generation) == object.metadata.generation
        };
        self.until("its spec is observed", is_observed).await
    }

    /// Waits for condition Complete.
    pub(crate) async fn until_complete(&self) -> ScriptRunner {
        self.until_over(ConditionType::Complete).await
    }

    /// Waits for condition Failed.
    pub(crate) async fn until_failed(&self) -> ScriptRunner {
        self.until_over(ConditionType::Failed).await
    }

    /// Waits until the run of the spec as it is now is over, and demands that it ended so.
    async fn until_over(&self, expected: ConditionType) -> ScriptRunner {
        let is_over = |object: &_| {
            holds_now(object, ConditionType::Complete) || holds_now(object, ConditionType::Failed)
        };
        let object = self.until(expected.as_str(), is_over).await;
        assert!(holds_now(&object, expected), "{} was expected: {}", expected.as_str(), summary(&object));
        object
    }

    /// Changes the object by a merge patch.
    pub(crate) async fn edit(&self, patch: Value) -> ScriptRunner {
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap()
    }

    /// Changes the status behind the operator's back, under its account: the policies let nobody else.
    pub(crate) async fn edit_status(&self, operators: &Api<ScriptRunner>, patch: Value) {
        let params = PatchParams::default();
        operators.patch_status(&self.name, &params, &Patch::Merge(&patch)).await.unwrap();
    }

    /// Deletes the object and waits until it is gone; that it is not there is fine.
    pub(crate) async fn delete(&self) {
        match self.api.delete(&self.name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return,
            answer => drop(answer.unwrap()),
        }
        self.until_gone().await;
    }

    /// Waits until the object is gone.
    pub(crate) async fn until_gone(&self) {
        wait::until(&format!("ScriptRunner {:?} to be gone", self.name), PATIENCE, async |_| {
            Ok::<_, kube::Error>(self.api.get_opt(&self.name).await?.is_none().then_some(()))
        })
        .await
        .unwrap();
    }
}
