//! What the operator identifies itself with, kept in step with the Secret: made at first, renewed in time, put back when
//! somebody removed it. Talks to the API server.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::{
    authority::{Lifetimes, Material, Step, next_step},
    secret::{self, Found, Store, Written},
    tls::{self, Presented, certified_key, first_material, perform, trusted},
};

/// Why there is nothing to identify the operator with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Secret.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The process ends before it led.
    #[error("the election ended")]
    AwaitLead,
}

/// What the operator identifies itself with.
pub(super) struct Credentials {
    store: Store,
    name: String,
    lifetimes: Lifetimes,
    presented: Arc<Presented>,
    current: Mutex<Current>,
}

struct Current {
    material: Material,
    /// What runners are to trust.
    trusted: Arc<Vec<String>>,
}

impl Current {
    fn of(material: Material) -> Result<Self, tls::Error> {
        Ok(Self { trusted: Arc::new(trusted(&material)?), material })
    }
}

impl Credentials {
    /// Reads the Secret. If there is none it is made, by the process that leads.
    pub(super) async fn open(
        store: Store,
        name: String,
        lifetimes: Lifetimes,
        leads: &mut watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        let (material, key) = loop {
            let version = match store.read().await? {
                Found::Material { material, version: _ } => match certified_key(&material, &name) {
                    Ok(key) => break (*material, key),
                    Err(error) => return Err(store.foreign(error.to_string()).into()),
                },
                Found::Foreign { reason, version: _ } => return Err(store.foreign(reason).into()),
                Found::Nothing => None,
                Found::Empty { version } => Some(version),
            };
            if !*leads.borrow() {
                leads.wait_for(|leads| *leads).await.map_err(|_| Error::AwaitLead)?;
                // Whoever led before may have made it.
                continue;
            }
            let material = first_material(&name, Timestamp::now(), &lifetimes)?;
            let key = certified_key(&material, &name)?;
            match store.write(version, &material).await? {
                Written::Stored { version: _ } => {
                    tracing::info!(name, "made a certificate for runners' sessions");
                    break (material, key);
                }
                Written::Outdated => {}
            }
        };
        let presented = Arc::new(Presented::new(key));
        let current = Mutex::new(Current::of(material)?);
        Ok(Self { store, name, lifetimes, presented, current })
    }

    /// The certificate of new connections.
    pub(super) fn presented(&self) -> Arc<Presented> {
        Arc::clone(&self.presented)
    }

    /// The name in the certificate.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What runners are to trust: authorities in DER, base64.
    pub(super) fn trusted(&self) -> Arc<Vec<String>> {
        Arc::clone(&self.current().trusted)
    }

    /// What a runner is told as soon as it is connected; none while no other authority than the first can be what it
    /// trusts already.
    pub(super) fn news(&self) -> Option<Arc<Vec<String>>> {
        let current = self.current();
        let has_changed = current.material.authority.number > 1 || current.material.next.is_some();
        has_changed.then(|| Arc::clone(&current.trusted))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn material(&self) -> Material {
        self.current().material.clone()
    }

    /// Compares with the Secret and does what is due. Only the process that leads writes.
    pub(super) async fn look(&self, leads: bool, now: Timestamp) -> Result<(), Error> {
        let Some(mut version) = self.agree(leads).await? else { return Ok(()) };
        loop {
            let material = self.material();
            let step = next_step(&material, now, &self.lifetimes);
            if step == Step::Keep || !leads {
                return Ok(());
            }
            let next = perform(step, &material, &self.name, now, &self.lifetimes)?;
            let key = certified_key(&next, &self.name)?;
            // Stored first: a process that dies here must not have shown what nobody knows.
            match self.store.write(Some(version), &next).await? {
                Written::Stored { version: stored } => version = stored,
                Written::Outdated => return Ok(()),
            }
            tracing::info!(?step, material = ?next, "renewed what runners know this operator by");
            self.adopt(next, key)?;
        }
    }

    /// Makes the Secret and this process agree. Gives the Secret's version if they do now.
    async fn agree(&self, leads: bool) -> Result<Option<String>, Error> {
        let ours = self.material();
        let (version, reason) = match self.store.read().await? {
            Found::Material { version, material } if *material == ours => return Ok(Some(version)),
            Found::Material { version, material } => match certified_key(&material, &self.name) {
                Ok(key) if !leads || follows(&material, &ours) => {
                    self.adopt(*material, key)?;
                    return Ok(Some(version));
                }
                Ok(_) => (Some(version), "it holds what runners do not know".to_owned()),
                Err(error) => (Some(version), error.to_string()),
            },
            Found::Nothing => (None, "it was deleted".to_owned()),
            Found::Empty { version } => (Some(version), "it was emptied".to_owned()),
            Found::Foreign { version, reason } => (Some(version), reason),
        };
        if !leads {
            return Ok(None);
        }
        tracing::warn!(secret = secret::SECRET_NAME, reason, "putting the Secret back as it was");
        match self.store.write(version, &ours).await? {
            Written::Stored { version } => Ok(Some(version)),
            Written::Outdated => Ok(None),
        }
    }

    fn adopt(&self, material: Material, key: CertifiedKey) -> Result<(), Error> {
        let current = Current::of(material)?;
        self.presented.replace(key);
        *self.current() = current;
        Ok(())
    }
}

/// Whether runners that know `ours` believe `theirs`: a step that this process took and whose answer it did not get.
fn follows(theirs: &Material, ours: &Material) -> bool {
    ours.trusted().any(|known| *known == theirs.authority)
}

#[cfg(test)]
pub(super) mod tests;
