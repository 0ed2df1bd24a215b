//! What a trial happens on: a control plane of its own, the project's definitions and rights, fake nodes, and kwok.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use http::{HeaderValue, header};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use scriptrunner_testcluster::{
    Cluster, binaries, down,
    progress::Progress,
    up::{Wish, up},
    wait,
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    nodes::{self, FakeNode},
    process::Process,
    token::Signer,
    usage::Usage,
};

/// The operator's own namespace.
pub(crate) const SYSTEM: &str = "scriptrunner-system";
/// The operator's account, and the name of its Lease.
pub(crate) const OPERATOR: &str = "scriptrunner-operator";
/// The user that its account is.
pub(crate) const USER: &str = "system:serviceaccount:scriptrunner-system:scriptrunner-operator";
/// How long the token of the operator's account is valid.
const ACCOUNT_SECONDS: i64 = 86_400;
/// Nobody says that a fake node is alive, so its silence must not count.
const SILENCE_SECONDS: u32 = 10 * 86_400;
/// How long the control plane is looked at to see whether it idles.
const LOOK: Duration = Duration::from_secs(2);
/// An idle control plane uses less of a processor.
const IDLE: f64 = 0.15;

/// A control plane with fake nodes.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    /// May do everything.
    pub(crate) admin: Client,
    pub(crate) nodes: Vec<FakeNode>,
    /// A kubeconfig with the operator's rights.
    pub(crate) account: PathBuf,
    pub(crate) kwok: Process,
}

impl Stage {
    /// Brings everything up anew.
    pub(crate) async fn build(name: &str, count: u32, progress: &Progress) -> anyhow::Result<Self> {
        down(name).context("take the cluster of before down")?;
        let checkout = binaries::find_checkout()?;
        let kwok = binaries::kwok(&checkout, progress)?;
        let programs = std::env::current_exe().context("find this program")?;
        let programs = programs.parent().context("this program lies in no folder")?.to_owned();
        for program in ["testcluster", "pause"] {
            ensure!(
                programs.join(program).is_file(),
                "{} is missing: cargo build --release -p scriptrunner-testcluster",
                programs.join(program).display()
            );
        }
        let wish = Wish {
            name: name.to_owned(),
            nodes: 0,
            node_memory_mib: 1024,
            node_processes: 1024,
            node_monitor_grace_period_seconds: SILENCE_SECONDS,
            default: false,
            programs,
        };
        let cluster = up(&wish, progress).await?;
        let admin = cluster.client().await?;
        progress.step("installing the definitions and the operator's rights");
        install(&cluster, &checkout).await?;
        let account = account(&cluster, &admin).await?;
        progress.step(&format!("making {count} nodes"));
        let nodes = nodes::make(&admin, count).await?;
        let kwok = start_kwok(&cluster, &kwok)?;
        let stage = Self { cluster, admin, nodes, account, kwok };
        progress.step("waiting until nothing has work left");
        stage.settle().await?;
        Ok(stage)
    }

    /// Waits until the programs of the control plane and kwok idle: kwok asks for the pods of each node once, and
    /// controllers look at every new node.
    async fn settle(&self) -> anyhow::Result<()> {
        wait::until("an idle control plane", Duration::from_mins(5), async |seen| {
            let (start, before) = (Instant::now(), self.used()?);
            tokio::time::sleep(LOOK).await;
            let used = self.used()?.saturating_sub(before);
            let busy = used.as_secs_f64() / start.elapsed().as_secs_f64();
            seen.note(format!("{busy:.2} processors in use"));
            anyhow::Ok((busy < IDLE).then_some(()))
        })
        .await
        .context("settle")
    }

    /// Processor time that the control plane and kwok have used.
    fn used(&self) -> anyhow::Result<Duration> {
        self.programs()?.iter().map(|(_, pid)| Ok(Usage::of(*pid)?.cpu)).sum()
    }

    /// Ends what runs beside the control plane, and the control plane too unless it is to be kept.
    pub(crate) async fn strike(self, keep: bool) -> anyhow::Result<()> {
        let Self { cluster, kwok, .. } = self;
        kwok.end().await?;
        if !keep {
            down(cluster.name())?;
        }
        Ok(())
    }

    /// A client with the operator's rights that calls itself `agent`, which the audit log repeats.
    pub(crate) async fn operators_client(&self, agent: &'static str) -> anyhow::Result<Client> {
        let kubeconfig = Kubeconfig::read_from(&self.account).context("read the operator's kubeconfig")?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("use the operator's kubeconfig")?;
        config.proxy_url = None;
        config.default_retry = false;
        config.headers.push((header::USER_AGENT, HeaderValue::from_static(agent)));
        Client::try_from(config).context("make a client")
    }

    /// The cluster's own key for tokens.
    pub(crate) fn signer(&self) -> anyhow::Result<Signer> {
        Signer::open(&self.cluster.state().folder().pki())
    }

    /// Makes a namespace, and gives the UID of its account `default`, without which there are no pods.
    pub(crate) async fn namespace(&self, name: &str) -> anyhow::Result<String> {
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).context("make a namespace")?;
        let api: Api<Namespace> = Api::all(self.admin.clone());
        api.create(&PostParams::default(), &namespace)
            .await
            .with_context(|| format!("create namespace {name:?}"))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.admin.clone(), name);
        let found = wait::until("the namespace's account", Duration::from_mins(1), async |_| {
            accounts.get_opt("default").await
        });
        found.await?.uid().context("an account should have a UID")
    }

    /// The programs of the control plane that use a processor: name and number.
    pub(crate) fn programs(&self) -> anyhow::Result<Vec<(String, u32)>> {
        let mut programs = vec![("kwok".to_owned(), self.kwok.pid()?)];
        for name in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            let pid = self.cluster.component_process(name)?.with_context(|| format!("{name} has ended"))?;
            programs.push((name.to_owned(), pid));
        }
        Ok(programs)
    }
}

/// Everything of crds/ and deploy/ but the Deployment: the operator runs beside the cluster.
async fn install(cluster: &Cluster, checkout: &Path) -> anyhow::Result<()> {
    kubectl_apply(cluster, &[checkout.join("crds")]).await?;
    let mut files = Vec::new();
    for file in fs::read_dir(checkout.join("deploy")).context("read deploy/")? {
        let path = file.context("read deploy/")?.path();
        if path.extension().is_some_and(|end| end == "yaml") && !path.ends_with("30-operator.yaml") {
            files.push(path);
        }
    }
    files.sort();
    kubectl_apply(cluster, &files).await?;
    unbind(cluster).await
}

/// The policies that only kubelets satisfy, left out: here nodes are played by others.
const OF_KUBELETS: [&str; 2] = ["scriptrunner-pod-outcome", "scriptrunner-tokens"];

async fn unbind(cluster: &Cluster) -> anyhow::Result<()> {
    let mut command = kubectl(cluster, &["delete", "validatingadmissionpolicybinding", "--ignore-not-found"]);
    command.args(OF_KUBELETS);
    let output = command.output().await.context("run kubectl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl delete of bindings: {said}");
    Ok(())
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(cluster.kubectl());
    command.env_clear().args(arguments).arg("--kubeconfig").arg(cluster.kubeconfig());
    // Without a home it would leave its cache in the current folder.
    command.arg("--cache-dir").arg(cluster.logs().join("kubectl"));
    command
}

async fn kubectl_apply(cluster: &Cluster, paths: &[PathBuf]) -> anyhow::Result<()> {
    let mut command = kubectl(cluster, &["apply", "--server-side"]);
    for path in paths {
        command.arg("--filename").arg(path);
    }
    let output = command.output().await.context("run kubectl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl apply of {paths:?}: {said}");
    Ok(())
}

/// Writes a kubeconfig with a token of the operator's account, and nothing else that it could use.
async fn account(cluster: &Cluster, admin: &Client) -> anyhow::Result<PathBuf> {
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), SYSTEM);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(ACCOUNT_SECONDS), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(OPERATOR, &PostParams::default(), &request)
        .await
        .context("ask for a token of the operator's account")?;
    let token = answer.status.context("a token request should be answered")?.token;
    let kubeconfig = fs::read_to_string(cluster.kubeconfig()).context("read the kubeconfig")?;
    let kubeconfig = Kubeconfig::from_yaml(&kubeconfig).context("read the kubeconfig")?;
    let mut kubeconfig: Value = serde_json::to_value(&kubeconfig).context("read the kubeconfig")?;
    // The administrator's certificate would win over the token.
    kubeconfig["users"][0]["user"] = json!({"token": token});
    let path = cluster.logs().join("operator.kubeconfig");
    fs::write(&path, kubeconfig.to_string()).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn start_kwok(cluster: &Cluster, program: &Path) -> anyhow::Result<Process> {
    let stages = cluster.logs().join("kwok.yaml");
    fs::write(&stages, include_str!("../kwok.yaml"))
        .with_context(|| format!("write {}", stages.display()))?;
    let kubeconfig = cluster.kubeconfig();
    let arguments = [("kubeconfig", &kubeconfig), ("config", &stages)]
        .map(|(name, path)| format!("--{name}={}", path.display()));
    Process::start(program, &arguments, &[], cluster.logs().join("kwok.log"))
}
