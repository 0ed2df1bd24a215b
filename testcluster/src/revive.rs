//! Starts again what of the control plane has ended, and waits until it serves; nodes are left as they are.

use crate::{
    api,
    cluster::Cluster,
    control_plane::{ControlPlane, Data},
    error::{Error, Result},
    machine::Lock,
    tool,
};

impl Cluster {
    /// Undoes the death of components of the control plane: what runs is left alone, etcd keeps its data.
    pub async fn revive(&self) -> Result<()> {
        tool::check_machine()?;
        let lock = Lock::cluster(self.name())?;
        let control_plane = ControlPlane::new(self.state())?;
        if control_plane.start_server()? == Data::Lost {
            return Err(Error::Machine {
                what: format!(
                    "etcd's data was broken: run `testcluster down --name {0}` and `up` again",
                    self.name()
                ),
            });
        }
        control_plane.await_server(&api::client(&self.kubeconfig()).await?).await?;
        control_plane.start_clients()?;
        drop(lock);
        control_plane.check()
    }
}
