//! What the operator tells the runner. Pure.

use scriptrunner_api::{
    labels,
    v1alpha1::{Mode, OutputTruncation},
};

use super::{PodSettings, SessionSettings, Target};
use crate::validate::ValidRun;

/// Everything the runner must know and a user must not be able to set goes by arguments. None of them contains a `$`, so
/// that Kubernetes expands nothing.
pub(super) fn arguments(valid: &ValidRun, target: &Target, settings: &PodSettings) -> Vec<String> {
    let spec_sha256 = valid.spec_hash.split_once(':').map_or(valid.spec_hash.as_str(), |(_, digest)| digest);
    let limits = &valid.limits;
    let mut arguments = vec!["run".to_owned()];
    let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    flag("protocol", labels::PROTOCOL.to_string());
    flag("node", target.node.clone());
    flag("run", target.run.to_string());
    flag("attempt", target.attempt.to_string());
    flag("first-serial", target.first_serial.to_string());
    flag(
        "remaining",
        target.remaining.map_or_else(|| "endless".to_owned(), |remaining| remaining.to_string()),
    );
    flag("script-sha256", valid.pinned.script_sha256.clone());
    flag("spec-sha256", spec_sha256.to_owned());
    flag("history-limit", limits.history.to_string());
    flag("stdout-limit-bytes", limits.stdout_bytes.to_string());
    flag("stderr-limit-bytes", limits.stderr_bytes.to_string());
    flag("grace-seconds", limits.grace_seconds.to_string());
    // Also where nothing is to be installed: a runner that stays may be ordered to run a script that says itself what it needs.
    flag("install-timeout-seconds", limits.install_seconds.to_string());
    if limits.truncation == OutputTruncation::Head {
        flag("truncation", limits.truncation.as_argument().to_owned());
    }
    if let Some(deadline) = limits.execution_deadline_seconds {
        flag("execution-deadline-seconds", deadline.to_string());
    }
    if let Some(last_start) = target.last_start_seconds {
        flag("last-start", last_start.to_string());
    }
    let exit_codes = &valid.attempts.exit_codes;
    for (name, codes) in [("success-codes", &exit_codes.success), ("skipped-codes", &exit_codes.skipped)] {
        if !codes.is_empty() {
            flag(name, codes.iter().map(u8::to_string).collect::<Vec<_>>().join(","));
        }
    }
    if let Some(SessionSettings { address, name, authorities }) = &settings.session {
        flag("session-address", address.clone());
        flag("session-name", name.clone());
        for authority in authorities {
            flag("session-authority", authority.clone());
        }
        flag("linger-seconds", settings.times.linger_seconds.to_string());
        if target.shape.is_some() {
            flag("idle-seconds", limits.idle_seconds.to_string());
        }
    }
    if target.remaining.is_none() {
        flag("handover-seconds", settings.times.handover_seconds.to_string());
    }
    if valid.pinned.mode == Mode::PrivilegedWithHostFS {
        flag("host-root", labels::HOST_ROOT.to_owned());
    }
    arguments
}
