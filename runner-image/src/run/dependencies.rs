//! What a pod has installed, kept for all parts of runs in it.

use super::{Runner, part::Part};
use crate::{
    args::Environment,
    install::{self, Installer, Venv, Wanted},
    ledger::End,
};

/// The dependencies that this pod has.
pub(super) struct Installed {
    wanted: Wanted,
    venv: Option<Venv>,
    /// Those of the pod's inputs; an order brings none.
    trusted_ca: Option<Vec<u8>>,
}

impl Runner {
    /// The environment with the dependencies. What the pod has is not installed again; for another script's inline
    /// metadata the environment is made anew.
    pub(super) fn dependencies(
        &mut self,
        part: &Part,
        wanted: Wanted,
        trusted_ca: Option<Vec<u8>>,
        script: &[u8],
        environment: &Environment,
    ) -> Result<Option<&Venv>, End> {
        let before = self.installed.take();
        if before.as_ref().is_some_and(|installed| installed.wanted.of_pod != wanted.of_pod) {
            return Err(End::RunnerFailed(format!(
                "run {} needs other dependencies than this pod has; delete the pod",
                part.run
            )));
        }
        let installed = match before {
            Some(installed) if installed.wanted == wanted => installed,
            before => {
                let has_packages = before.is_some();
                let trusted_ca = before.and_then(|installed| installed.trusted_ca).or(trusted_ca);
                let installer = Installer {
                    state_dir: &self.args.state_dir,
                    work_dir: &self.args.work_dir,
                    environment,
                    grace: part.limits.grace,
                    timeout: self.args.install_timeout,
                    trusted_ca: trusted_ca.as_deref(),
                    script,
                };
                let venv = installer.install(&wanted, has_packages, &mut self.signals);
                let venv = venv.map_err(|error| match error {
                    install::Error::Interrupted => End::Stopped,
                    failed => End::InstallFailed(failed.to_string()),
                })?;
                Installed { wanted, venv, trusted_ca }
            }
        };
        Ok(self.installed.insert(installed).venv.as_ref())
    }
}
