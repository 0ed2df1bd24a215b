//! The runner's arguments and environment: the only place that reads either.
//!
//! Everything that the operator decides is an argument; the environment belongs to the user and is passed on.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use scriptrunner_api::labels;

use crate::capture::Kept;

/// `scriptrunner_api::v1alpha1::DEFAULT_INSTALL_TIMEOUT_SECONDS` as text.
const DEFAULT_INSTALL_TIMEOUT: &str = "600";

/// Runs a script on one node and reports what it answered.
#[derive(Parser, Debug)]
#[command(name = "scriptrunner-runner", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run the script of the pod: install, execute as often as told, report in the termination message.
    ///
    /// Exit codes, for people (the operator reads the message): 0 succeeded, skipped or handed over, 1 the script failed or
    /// the runner could not work, 2 wrong usage, 3 a dependency could not be installed, 4 the inputs are not the pinned
    /// ones, 5 the pod was started a second time, 6 the runner was told to stop. Of several runs the last one counts.
    Run(Box<RunArgs>),
    /// Copy the runner, and uv where the image has it, into a folder that pods of other images mount: done by an init
    /// container of the runner's image. Exit code 1 if that is not possible.
    CopyRunner(CopyArgs),
}

#[derive(Args, Debug, Clone)]
pub(crate) struct CopyArgs {
    /// Folder to copy to; it must exist.
    #[arg(long, value_name = "FOLDER", value_parser = absolute, default_value = labels::RUNNER_DIR)]
    pub(crate) to: PathBuf,
}

#[derive(Args, Debug, Clone)]
pub(crate) struct RunArgs {
    /// Version of the contract that the operator speaks.
    #[arg(long)]
    pub(crate) protocol: u32,
    /// Name of the node.
    #[arg(long)]
    pub(crate) node: String,
    /// Number of the run.
    #[arg(long)]
    pub(crate) run: u64,
    /// Ordinal of this pod within the run on this node, from 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: u32,
    /// Serial of the first execution of this pod.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) first_serial: u64,
    /// Executions to make: a number from 1, or `endless`.
    #[arg(long, value_parser = remaining)]
    pub(crate) remaining: Remaining,
    /// SHA-256 that the script must have, 64 lower-case hexadecimal digits.
    #[arg(long, value_parser = sha256)]
    pub(crate) script_sha256: String,
    /// SHA-256 that `spec.json` must have, 64 lower-case hexadecimal digits.
    #[arg(long, value_parser = sha256)]
    pub(crate) spec_sha256: String,
    /// How many executions are kept.
    #[arg(long)]
    pub(crate) history_limit: usize,
    /// Bytes of cleaned stdout kept per execution.
    #[arg(long)]
    pub(crate) stdout_limit_bytes: usize,
    /// Bytes of cleaned stderr kept per execution.
    #[arg(long)]
    pub(crate) stderr_limit_bytes: usize,
    /// Which part of an output that is longer than its limit is kept.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) truncation: Kept,
    /// Seconds that installing all dependencies may take together.
    #[arg(long = "install-timeout-seconds", value_name = "SECONDS", value_parser = seconds, default_value = DEFAULT_INSTALL_TIMEOUT)]
    pub(crate) install_timeout: Duration,
    /// Seconds between SIGTERM and SIGKILL.
    #[arg(long = "grace-seconds", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) grace: Duration,
    /// Seconds that one execution may take; no limit if absent.
    #[arg(long = "execution-deadline-seconds", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) execution_deadline: Option<Duration>,
    #[command(flatten)]
    pub(crate) exit_codes: ExitCodes,
    /// Seconds after which an endless repetition whose answers the operator does not acknowledge is handed over to the
    /// next pod.
    #[arg(long = "handover-seconds", value_name = "SECONDS", value_parser = seconds, default_value = "600")]
    pub(crate) handover: Duration,
    /// When the execution before `--first-serial` started, in seconds of Unix time by this node's clock; the first
    /// execution waits until a period has passed since.
    #[arg(long, value_name = "UNIX_SECONDS", allow_negative_numbers = true)]
    pub(crate) last_start: Option<i64>,
    #[command(flatten)]
    pub(crate) session: SessionArgs,
    /// Where the node's root is mounted; given only if it is.
    #[arg(long)]
    pub(crate) host_root: Option<PathBuf>,
    /// Folder of the pinned inputs.
    #[arg(long, hide = true, value_parser = absolute, default_value = labels::INPUT_DIR)]
    pub(crate) input_dir: PathBuf,
    /// Working folder and HOME of the script.
    #[arg(long, hide = true, value_parser = absolute, default_value = labels::WORK_DIR)]
    pub(crate) work_dir: PathBuf,
    /// Folder of the runner's own state.
    #[arg(long, hide = true, value_parser = absolute, default_value = labels::STATE_DIR)]
    pub(crate) state_dir: PathBuf,
    /// File that the kubelet reads as the termination message.
    #[arg(long, hide = true, value_parser = absolute, default_value = labels::TERMINATION_LOG)]
    pub(crate) termination_log: PathBuf,
}

/// What exit codes of the script beside 0 mean, if not a failure. Of the pod: an order that comes over the session changes
/// nothing of it.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct ExitCodes {
    /// Exit codes beside 0 that count as success: numbers from 1 to 255, separated by commas.
    #[arg(long = "success-codes", value_name = "CODES", value_delimiter = ',', value_parser = exit_code())]
    pub(crate) success: Vec<u8>,
    /// Exit codes that say there was nothing to do, neither success nor failure: numbers from 1 to 255, separated by commas.
    #[arg(long = "skipped-codes", value_name = "CODES", value_delimiter = ',', value_parser = exit_code())]
    pub(crate) skipped: Vec<u8>,
}

fn exit_code() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(1..)
}

/// Where the operator is, and what it is waited for.
#[derive(Args, Debug, Clone)]
pub(crate) struct SessionArgs {
    /// Address and port at which the operator holds sessions; if absent, there is none.
    #[arg(long = "session-address", value_name = "ADDRESS")]
    pub(crate) address: Option<String>,
    /// The name that the operator's certificate must have.
    #[arg(long = "session-name", value_name = "NAME", default_value = "")]
    pub(crate) name: String,
    /// An authority that may sign the operator's certificate: a certificate in DER, base64. Can be repeated.
    #[arg(long = "session-authority", value_name = "DER")]
    pub(crate) authorities: Vec<String>,
    /// Seconds that a runner which has ended waits at most until its answer is stored.
    #[arg(long = "linger-seconds", value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    pub(crate) linger: Duration,
    /// Seconds that a runner whose answer is stored stays for an order to run again.
    #[arg(long = "idle-seconds", value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    pub(crate) idle: Duration,
    /// File with the token that the runner identifies itself with.
    #[arg(long, hide = true, value_parser = absolute, default_value_os_t = token_file())]
    pub(crate) token_file: PathBuf,
}

fn token_file() -> PathBuf {
    Path::new(labels::TOKEN_DIR).join(labels::TOKEN_FILE)
}

/// How many executions this pod is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remaining {
    Count(u64),
    Endless,
}

fn remaining(text: &str) -> Result<Remaining, String> {
    if text == "endless" {
        return Ok(Remaining::Endless);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err("give a number from 1, or `endless`".to_owned()),
        Ok(count) => Ok(Remaining::Count(count)),
    }
}

fn sha256(text: &str) -> Result<String, String> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() == 64 && text.bytes().all(is_digit) {
        Ok(text.to_owned())
    } else {
        Err("give 64 lower-case hexadecimal digits".to_owned())
    }
}

/// The script runs in another folder than the runner.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    // Bounded, so that no sum of times can overflow.
    text.parse::<u32>().map(|seconds| Duration::from_secs(seconds.into())).map_err(|error| error.to_string())
}

/// Environment variables of the script and of the installers: the runner's own, without what only the runner may set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The environment that the runner was started with, without names that start with `SCRIPTRUNNER_`: a Service named
    /// `scriptrunner` makes the kubelet set such names.
    pub(crate) fn inherited() -> Self {
        let is_ours = |name: &OsStr| name.as_encoded_bytes().starts_with(labels::ENV_PREFIX.as_bytes());
        Self { variables: std::env::vars_os().filter(|(name, _)| !is_ours(name)).collect() }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.insert(name.into(), value.into());
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.variables.remove(OsStr::new(name));
    }

    /// Sets the variable unless the user did.
    pub(crate) fn set_default(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.entry(name.into()).or_insert_with(|| value.into());
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.variables.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_definition_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let default = scriptrunner_api::v1alpha1::DEFAULT_INSTALL_TIMEOUT_SECONDS;
        assert_eq!(DEFAULT_INSTALL_TIMEOUT, default.to_string());
    }

    #[test]
    fn exit_codes_are_lists_and_absent_ones_are_empty() {
        #[derive(Parser, Debug)]
        struct Line {
            #[command(flatten)]
            codes: ExitCodes,
        }
        let parse = |line: &str| {
            let line = Line::try_parse_from(std::iter::once("runner").chain(line.split_whitespace())).ok()?;
            Some((line.codes.success, line.codes.skipped))
        };
        assert_eq!(parse(""), Some((vec![], vec![])));
        assert_eq!(parse("--success-codes 2,3 --skipped-codes 255"), Some((vec![2, 3], vec![255])));
        for wrong in ["0", "256", "-1", "x", "2,", "2,,3"] {
            assert_eq!(parse(&format!("--success-codes {wrong}")), None, "{wrong}");
            assert_eq!(parse(&format!("--skipped-codes {wrong}")), None, "{wrong}");
        }
    }

    #[test]
    fn only_whole_digests_and_positive_counts_are_taken() {
        assert_eq!(sha256(&"a1".repeat(32)).unwrap(), "a1".repeat(32));
        for wrong in ["", &"A1".repeat(32), &"a".repeat(63), &"g".repeat(64)] {
            assert!(sha256(wrong).is_err(), "{wrong}");
        }
        assert_eq!(remaining("endless"), Ok(Remaining::Endless));
        assert_eq!(remaining("3"), Ok(Remaining::Count(3)));
        assert!(remaining("0").is_err() && remaining("-1").is_err() && remaining("Endless").is_err());
    }
}
