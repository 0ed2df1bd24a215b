//! Flags and environment, and what they resolve to. The only place that reads either, and the only place with defaults.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use scriptrunner_core::{
    pod::{PodSettings, RunnerTimes},
    validate::AllowedImages,
};

use crate::scope::Scope;

/// Runs scripts on nodes, and keeps each node's answers in the status of the ScriptRunner that asked.
#[derive(Parser, Debug)]
#[command(name = "scriptrunner-operator", version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the operator until it is told to stop.
    Run(RunArgs),
}

/// Flags of `run`. Each is also an environment variable.
#[derive(clap::Args, Debug)]
pub struct RunArgs {
    /// Image of the runner pods.
    #[arg(long, env = "SCRIPTRUNNER_RUNNER_IMAGE")]
    runner_image: String,
    /// Images that specs may name, separated by commas; empty for every image. An entry that ends in / allows every repository below it
    /// (registry.example/team/), any other one repository: all its images, or with a tag or a digest that one alone. Names are
    /// compared as specs write them: python is not docker.io/library/python. The runner's image and the default are always allowed.
    #[arg(long, env = "SCRIPTRUNNER_ALLOWED_IMAGES", value_delimiter = ',')]
    allowed_images: Vec<String>,
    /// Namespace that the operator's Lease lives in.
    #[arg(long, env = "SCRIPTRUNNER_NAMESPACE", default_value = "scriptrunner-system")]
    namespace: String,
    /// Namespaces whose ScriptRunners the operator looks after, separated by commas; empty for all. It needs its rights in each of them:
    /// deploy/namespaced/each-namespace.yaml.
    #[arg(long, env = "SCRIPTRUNNER_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Name of the operator's own pod: its identity in the Lease and in Events.
    #[arg(long, env = "SCRIPTRUNNER_POD_NAME")]
    pod_name: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "SCRIPTRUNNER_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Memory request and limit of runner pods; empty for none.
    #[arg(long, env = "SCRIPTRUNNER_DEFAULT_MEMORY", default_value = "256Mi")]
    default_memory: String,
    /// Ephemeral storage request and limit of runner pods; empty for none, on clusters whose kubelets cannot count it.
    #[arg(long, env = "SCRIPTRUNNER_DEFAULT_EPHEMERAL_STORAGE", default_value = "1Gi")]
    default_ephemeral_storage: String,
    /// After how many seconds without a session the pod of an endless repetition ends to hand its results over.
    #[arg(long, env = "SCRIPTRUNNER_HANDOVER_SECONDS", default_value_t = RunnerTimes::DEFAULT.handover_seconds)]
    handover_seconds: u32,
    /// How long a runner that has ended waits at most until its answer is stored, in seconds.
    #[arg(long, env = "SCRIPTRUNNER_LINGER_SECONDS", default_value_t = RunnerTimes::DEFAULT.linger_seconds)]
    linger_seconds: u32,
    /// How long an idle runner that is not connected is waited for before a new pod replaces its own, in seconds. Its longest pause
    /// between two tries is 15 seconds.
    #[arg(long, env = "SCRIPTRUNNER_RECONNECT_SECONDS", default_value_t = RunnerTimes::DEFAULT.reconnect_seconds)]
    reconnect_seconds: u32,
    /// How long after the latest possible end of its executions a runner that has not ended is given up, in seconds: its node
    /// becomes `Unknown` with reason `Hung`.
    #[arg(long, env = "SCRIPTRUNNER_HUNG_AFTER_SECONDS", default_value_t = RunnerTimes::DEFAULT.hung_after_seconds)]
    hung_after_seconds: u32,
    /// How long after its failure a node is first tried again (`backoffLimit`), in seconds; each further time takes twice as
    /// long, at most six minutes.
    #[arg(long, env = "SCRIPTRUNNER_RETRY_SECONDS", default_value_t = RunnerTimes::DEFAULT.retry_seconds)]
    retry_seconds: u32,
    /// How long the pod of a failed script is kept for a look, in seconds from its end.
    #[arg(long, env = "SCRIPTRUNNER_KEPT_POD_SECONDS", default_value_t = RunnerTimes::DEFAULT.kept_pod_seconds)]
    kept_pod_seconds: u32,
    /// How long the token of a runner is valid, in seconds, at least 600; the kubelet renews it before.
    #[arg(long, env = "SCRIPTRUNNER_TOKEN_LIFETIME_SECONDS", default_value_t = RunnerTimes::DEFAULT.token_lifetime_seconds)]
    token_lifetime_seconds: u32,
    /// Address that runners' sessions are accepted on.
    #[arg(long, env = "SCRIPTRUNNER_SESSION_LISTEN", default_value = "0.0.0.0:8443")]
    session_listen: SocketAddr,
    /// Address and port at which runners find the operator; if absent, the cluster IP of its Service.
    #[arg(long, env = "SCRIPTRUNNER_SESSION_ADDRESS")]
    session_address: Option<SocketAddr>,
    /// Identities of runners that are asked of the API server per second, over all runners.
    #[arg(long, env = "SCRIPTRUNNER_TOKEN_REVIEWS_PER_SECOND", default_value_t = 1000)]
    token_reviews_per_second: u32,
    /// Sessions at the same time, those whose runner is not known yet included.
    #[arg(long, env = "SCRIPTRUNNER_MOST_SESSIONS", default_value_t = 20_000)]
    most_sessions: u32,
    /// How long the certificate that runners see is valid, in seconds; it is renewed after two thirds of that.
    #[arg(long, env = "SCRIPTRUNNER_CERTIFICATE_SECONDS", default_value_t = 90 * 24 * 3600)]
    certificate_seconds: u32,
    /// How long the authority that signs it is valid, in seconds; the next one is made before its last tenth begins.
    #[arg(long, env = "SCRIPTRUNNER_AUTHORITY_SECONDS", default_value_t = 10 * 365 * 24 * 3600)]
    authority_seconds: u32,
    /// How long runners are told of a new authority before it signs, in seconds.
    #[arg(long, env = "SCRIPTRUNNER_AUTHORITY_OVERLAP_SECONDS", default_value_t = 24 * 3600)]
    authority_overlap_seconds: u32,
    /// Runner pods that wait for the scheduler at the same time, over all objects; those of one ScriptRunner leave room for the
    /// others'. Pods that name their node do not count.
    #[arg(long, env = "SCRIPTRUNNER_MOST_UNBOUND_PODS", default_value_t = 200)]
    most_unbound_pods: u32,
    /// Bytes per second of status writes, over all objects, counting whole objects as written.
    #[arg(long, env = "SCRIPTRUNNER_STATUS_BYTES_PER_SECOND", default_value_t = 512 * 1024)]
    status_bytes_per_second: u32,
    /// An object's status is written at most once in this many seconds.
    #[arg(long, env = "SCRIPTRUNNER_STATUS_INTERVAL_SECONDS", default_value_t = 1)]
    status_interval_seconds: u32,
    /// A change of states without a result waits this many seconds for company.
    #[arg(long, env = "SCRIPTRUNNER_STATE_INTERVAL_SECONDS", default_value_t = 10)]
    state_interval_seconds: u32,
    /// Seconds between tries while the state of the cluster (quota, policies) refuses pods.
    #[arg(long, env = "SCRIPTRUNNER_REFUSAL_RETRY_SECONDS", default_value_t = 15)]
    refusal_retry_seconds: u32,
    /// Longest pause after failures of the API server in a row, in seconds; the first is one second, and each doubles.
    #[arg(long, env = "SCRIPTRUNNER_LONGEST_BACKOFF_SECONDS", default_value_t = 300)]
    longest_backoff_seconds: u32,
    /// Seconds between two proofs that the admission policies hold; they are also proven whenever something privileged starts.
    #[arg(long, env = "SCRIPTRUNNER_POLICY_PROOF_SECONDS", default_value_t = 60)]
    policy_proof_seconds: u32,
    /// How long the Lease is valid after its last renewal, in seconds, at least 15.
    #[arg(long, env = "SCRIPTRUNNER_LEASE_SECONDS", default_value_t = 30)]
    lease_seconds: u32,
    /// Longest time of one API request, in seconds.
    #[arg(long, env = "SCRIPTRUNNER_REQUEST_TIMEOUT_SECONDS", default_value_t = 10)]
    request_timeout_seconds: u32,
    /// Form of the log.
    #[arg(long, env = "SCRIPTRUNNER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

/// Form of the log.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Lines for people.
    Text,
}

/// What the flags resolve to.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the flags say of every pod.
    pub pods: PodSettings,
    /// What the flags say of runners' sessions.
    pub door: DoorConfig,
    /// Namespace that the operator's Lease, Secret and Service live in.
    pub namespace: String,
    /// Namespaces whose ScriptRunners it looks after.
    pub scope: Scope,
    /// Identity in the Lease and in Events.
    pub identity: String,
    /// Address of /healthz, /readyz and /metrics.
    pub listen: SocketAddr,
    /// Pods that wait for the scheduler at the same time, over all objects.
    pub most_unbound_pods: usize,
    /// Bytes per second of status writes over all objects.
    pub status_bytes_per_second: u32,
    /// How often and how soon things are done.
    pub timers: Timers,
    /// How long the Lease is valid after its last renewal.
    pub lease: Duration,
    /// Longest time of one API request.
    pub request_timeout: Duration,
    /// Form of the log.
    pub log_format: LogFormat,
}

/// Where runners' sessions come in, how many, and how long certificates last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorConfig {
    /// Address that sessions are accepted on.
    pub listen: SocketAddr,
    /// Address at which runners find it; none for the cluster IP of the operator's Service.
    pub address: Option<SocketAddr>,
    /// TokenReviews per second over all runners.
    pub token_reviews_per_second: u32,
    /// Connections at the same time.
    pub most_sessions: usize,
    /// How long a serving certificate is valid.
    pub certificate: Duration,
    /// How long an authority is valid.
    pub authority: Duration,
    /// How long runners are told of a new authority before it signs.
    pub authority_overlap: Duration,
}

/// How often and how soon things are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// An object's status is written at most this often.
    pub status_interval: Duration,
    /// Changes of state without a result wait this long for company.
    pub state_interval: Duration,
    /// Pause between tries while the state of the cluster refuses pods. A change of the namespace tries at once.
    pub refusal_retry: Duration,
    /// Longest pause after failures of the API server.
    pub longest_backoff: Duration,
    /// Pause between two proofs that the admission policies hold.
    pub policy_proof: Duration,
}

impl RunArgs {
    /// Checks the flags.
    pub fn resolve(self) -> anyhow::Result<Config> {
        let Self {
            runner_image,
            allowed_images,
            namespace,
            watch_namespaces,
            pod_name,
            listen,
            default_memory,
            default_ephemeral_storage,
            handover_seconds,
            linger_seconds,
            reconnect_seconds,
            hung_after_seconds,
            retry_seconds,
            kept_pod_seconds,
            token_lifetime_seconds,
            session_listen,
            session_address,
            token_reviews_per_second,
            most_sessions,
            certificate_seconds,
            authority_seconds,
            authority_overlap_seconds,
            most_unbound_pods,
            status_bytes_per_second,
            status_interval_seconds,
            state_interval_seconds,
            refusal_retry_seconds,
            longest_backoff_seconds,
            policy_proof_seconds,
            lease_seconds,
            request_timeout_seconds,
            log_format,
        } = self;
        ensure!(!runner_image.is_empty(), "--runner-image is empty; name the image of the runner pods");
        ensure!(lease_seconds >= 15, "--lease-seconds is {lease_seconds}; it must be at least 15");
        ensure!(
            request_timeout_seconds > 0 && request_timeout_seconds * 2 <= lease_seconds,
            "--request-timeout-seconds is {request_timeout_seconds}; it must be from 1 to half of --lease-seconds ({lease_seconds})"
        );
        ensure!(status_bytes_per_second >= 1024, "--status-bytes-per-second must be at least 1024");
        ensure!(handover_seconds > 0, "--handover-seconds must be at least 1");
        ensure!(
            token_lifetime_seconds >= 600,
            "--token-lifetime-seconds is {token_lifetime_seconds}; the API server gives no token for less than 600"
        );
        ensure!(token_reviews_per_second > 0, "--token-reviews-per-second must be at least 1");
        ensure!(most_unbound_pods > 0, "--most-unbound-pods must be at least 1");
        ensure!(most_sessions > 0, "--most-sessions must be at least 1");
        let quantity = |flag: &str, text: String| -> anyhow::Result<Option<String>> {
            let starts_with_digit = text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit());
            ensure!(starts_with_digit, "{flag} is {text:?}; it must be a quantity such as 256Mi, or empty");
            Ok(Some(text).filter(|text| !text.is_empty()))
        };
        Ok(Config {
            pods: PodSettings {
                runner_image,
                allowed_images: AllowedImages::of(listed(&allowed_images)).context("--allowed-images")?,
                default_memory: quantity("--default-memory", default_memory).context("flags")?,
                default_ephemeral_storage: quantity("--default-ephemeral-storage", default_ephemeral_storage)
                    .context("flags")?,
                times: RunnerTimes {
                    handover_seconds,
                    linger_seconds,
                    token_lifetime_seconds,
                    reconnect_seconds,
                    hung_after_seconds,
                    retry_seconds,
                    kept_pod_seconds,
                },
                // Known only once the operator has its certificate.
                session: None,
            },
            door: DoorConfig {
                listen: session_listen,
                address: session_address,
                token_reviews_per_second,
                most_sessions: most_sessions as usize,
                certificate: seconds("--certificate-seconds", certificate_seconds)?,
                authority: seconds("--authority-seconds", authority_seconds)?,
                authority_overlap: seconds("--authority-overlap-seconds", authority_overlap_seconds)?,
            },
            scope: Scope::of(listed(&watch_namespaces), &namespace).context("--watch-namespaces")?,
            namespace,
            identity: pod_name,
            listen,
            most_unbound_pods: most_unbound_pods as usize,
            status_bytes_per_second,
            timers: Timers {
                status_interval: seconds("--status-interval-seconds", status_interval_seconds)?,
                state_interval: seconds("--state-interval-seconds", state_interval_seconds)?,
                refusal_retry: seconds("--refusal-retry-seconds", refusal_retry_seconds)?,
                longest_backoff: seconds("--longest-backoff-seconds", longest_backoff_seconds)?,
                policy_proof: seconds("--policy-proof-seconds", policy_proof_seconds)?,
            },
            lease: Duration::from_secs(u64::from(lease_seconds)),
            request_timeout: Duration::from_secs(u64::from(request_timeout_seconds)),
            log_format,
        })
    }
}

/// The entries of a list. A variable that is set to nothing is a list of one empty entry.
fn listed(entries: &[String]) -> impl Iterator<Item = &str> {
    let is_unset = entries.len() == 1 && entries[0].trim().is_empty();
    entries.iter().map(|entry| entry.trim()).filter(move |_| !is_unset)
}

fn seconds(flag: &str, number: u32) -> anyhow::Result<Duration> {
    ensure!(number > 0, "{flag} is 0; it must be at least 1");
    Ok(Duration::from_secs(u64::from(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> anyhow::Result<Config> {
        let always = ["operator", "run", "--runner-image=runner:1", "--pod-name=it"];
        let Command::Run(flags) = Args::try_parse_from(always.iter().chain(flags))?.command;
        flags.resolve()
    }

    #[test]
    fn a_list_of_images_is_read_whole_or_not_at_all() {
        let allowed = |flags: &[&str]| config(flags).unwrap().pods.allowed_images;
        for nothing in [&[][..], &["--allowed-images="], &["--allowed-images", " "]] {
            assert_eq!(allowed(nothing), AllowedImages::default(), "{nothing:?}");
        }
        let two = AllowedImages::of(["a.example/", "b.example/x:1"]).unwrap();
        assert_eq!(allowed(&["--allowed-images=a.example/, b.example/x:1"]), two);
        // A list with a gap would allow less than it seems to, or everything.
        for wrong in ["a.example/,", ",", "a.example/,*"] {
            let error = config(&["--allowed-images", wrong]).map(|config| config.pods.allowed_images);
            assert!(format!("{:#}", error.expect_err(wrong)).starts_with("--allowed-images: "), "{wrong}");
        }
    }

    #[test]
    fn a_list_of_namespaces_is_read_whole_or_not_at_all() {
        let scope = |flags: &[&str]| config(flags).map(|config| config.scope);
        assert_eq!(scope(&[]).unwrap(), Scope::default());
        assert_eq!(scope(&["--watch-namespaces="]).unwrap(), Scope::default());
        assert_eq!(scope(&["--watch-namespaces=b,a"]).unwrap(), Scope::of(["a", "b"], "own").unwrap());
        for wrong in ["a,", "a,A", "scriptrunner-system"] {
            let error = scope(&["--watch-namespaces", wrong]).expect_err(wrong);
            assert!(format!("{error:#}").starts_with("--watch-namespaces: "), "{error:#}");
        }
    }
}
