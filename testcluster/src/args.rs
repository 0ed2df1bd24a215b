//! The command line of `testcluster`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A real Kubernetes cluster on this machine: control plane, and nodes that are sandboxes with their own containerd,
/// kubelet and kube-proxy. Needs root.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Brings a cluster up, or brings it back; harmless when it is up.
    Up(Up),
    /// Takes a cluster down; nothing of it is left on the machine.
    Down {
        #[command(flatten)]
        cluster: Name,
    },
    /// Shows kubeconfig, kubectl, logs, components and nodes.
    Status {
        #[command(flatten)]
        cluster: Name,
    },
    /// Imports image archives (docker or OCI) into all nodes.
    LoadImage {
        #[command(flatten)]
        cluster: Name,
        /// The archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Lets something befall a node, or brings it back.
    Node {
        /// The node, as in `kubectl get nodes`.
        node: String,
        /// What to do.
        action: Action,
    },
    /// Prints the path of a file of the cluster.
    Path {
        #[command(flatten)]
        cluster: Name,
        /// kubeconfig, audit-log, logs, or the name of a binary such as kubectl.
        what: String,
    },
    /// Builds the binaries and prints their folders, without a cluster.
    Build,
    /// Joins a control group and becomes a program.
    #[command(hide = true)]
    Launch {
        group: PathBuf,
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The first process of a node.
    #[command(hide = true)]
    Sandbox { config: PathBuf },
}

/// Which cluster.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The cluster's name.
    #[arg(long, default_value = "dev")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) cluster: Name,
    /// How many nodes; 0 for a control plane alone.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) nodes: u8,
    /// What a node may use, in MiB.
    #[arg(long, default_value_t = 3072, value_parser = clap::value_parser!(u64).range(512..))]
    pub(crate) node_memory_mib: u64,
    /// How many processes and threads a node may have.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(256..))]
    pub(crate) node_processes: u32,
    /// After how long without news a node is not ready; Kubernetes has 50, tests are quicker with 20.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(15..))]
    pub(crate) node_monitor_grace_period_seconds: u32,
    /// Writes its kubeconfig to .cluster/kubeconfig too.
    #[arg(long)]
    pub(crate) default: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Action {
    /// Ends all of its processes at once, as a power cut does.
    Kill,
    /// Stops all of its processes where they are.
    Freeze,
    /// Unplugs its network.
    Cut,
    /// Undoes kill, freeze and cut.
    Heal,
}
