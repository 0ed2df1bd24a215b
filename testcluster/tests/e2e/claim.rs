//! A claim with a volume behind it, a folder of each node; and other things of the whole cluster that go with a test's namespace.

use k8s_openapi::{
    ClusterResourceScope,
    api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim},
};
use kube::{Api, Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::stage::Stage;

/// Creates the claim, and the volume that is bound to it.
pub(crate) async fn create(stage: &Stage, name: &str) {
    let volume = format!("{}-{name}", stage.namespace);
    let capacity = json!({"storage": "1Gi"});
    let of_volume = json!({"metadata": {"name": volume}, "spec": {"capacity": capacity, "accessModes": ["ReadWriteMany"],
        "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
        "claimRef": {"namespace": stage.namespace, "name": name},
        "hostPath": {"path": format!("/var/lib/{volume}"), "type": "DirectoryOrCreate"}}});
    create_of_cluster::<PersistentVolume>(stage, of_volume).await;
    let claim = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"], "storageClassName": "",
        "volumeName": volume, "resources": {"requests": capacity}}});
    let api = stage.api::<PersistentVolumeClaim>();
    api.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
}

/// Creates an object that is in no namespace; it goes when the test's namespace goes.
pub(crate) async fn create_of_cluster<K>(stage: &Stage, mut object: Value)
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()>
        + Clone
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug,
{
    let namespace = Api::<Namespace>::all(stage.client.clone()).get(&stage.namespace).await.unwrap().metadata;
    object["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Namespace",
        "name": stage.namespace, "uid": namespace.uid}]);
    let api = Api::<K>::all(stage.client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}
