//! Everything that can go wrong with a local cluster; each text says what to do about it.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A reason why the local cluster could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program was started by a user who may not make sandboxes.
    #[error("not root: sandboxes need mounts and network namespaces; run it again with sudo")]
    LackRoot,
    /// A program of the distribution is not installed.
    #[error("{tool:?} is missing: install the package {package:?} (for example: apt-get install {package})")]
    FindTool {
        /// The program.
        tool: String,
        /// The Debian package that has it.
        package: String,
    },
    /// Go is not installed or too old.
    #[error(
        "{found}: the cluster's binaries are built with Go; install Go 1.26 or newer from https://go.dev/dl"
    )]
    FindGo {
        /// What was found instead.
        found: String,
    },
    /// The folder with the binaries' go.mod files was not found.
    #[error("no folder testcluster/binaries above {path:?}: run this inside a checkout of the repository")]
    FindCheckout {
        /// Where the search began.
        path: PathBuf,
    },
    /// A cluster name that cannot become part of node names.
    #[error(
        "cluster name {name:?} is not usable: use up to 20 lower-case letters, digits and hyphens, starting with a letter"
    )]
    ParseName {
        /// The name as given.
        name: String,
    },
    /// There is no cluster of this name.
    #[error("no cluster {name:?}: start it with `testcluster up --name {name}`")]
    FindCluster {
        /// The name.
        name: String,
    },
    /// The cluster has no such node.
    #[error("no node {node:?}: the nodes are {known:?}")]
    FindNode {
        /// The name as given.
        node: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The node is not running, so nothing can be done inside of it.
    #[error("node {node:?} is not running: bring it back with `testcluster node {node} heal`")]
    ReachNode {
        /// The node.
        node: String,
    },
    /// Every slot is used or overlaps the machine's networks.
    #[error(
        "no free address range: 10.233.0-31.0/24, 10.160-191.0.0/16 and 10.96-127.0.0/16 are all taken; stop a cluster with `testcluster down --name NAME` ({taken})"
    )]
    TakeSlot {
        /// What holds them.
        taken: String,
    },
    /// The cluster's addresses are used by something else on the machine.
    #[error(
        "address range {range:?} of cluster {name:?} is taken by {owner:?}: remove that route, or run `testcluster down --name {name}` and `up` again to get another range"
    )]
    TakeAddress {
        /// The range.
        range: String,
        /// The cluster.
        name: String,
        /// Who holds it.
        owner: String,
    },
    /// A port the cluster needs is used by another program.
    #[error(
        "port {address} for {component} is taken: stop the program that listens there (`ss -ltnp` names it)"
    )]
    TakePort {
        /// Address and port.
        address: String,
        /// The component.
        component: String,
    },
    /// A file or folder could not be read, written, made or removed.
    #[error("cannot {doing} {path:?}: {source}")]
    File {
        /// The verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {doing}: {source}")]
    Call {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program:?}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program:?} ended with {status}: {output}")]
    Run {
        /// Program and arguments.
        program: String,
        /// Its exit status.
        status: ExitStatus,
        /// The end of what it said.
        output: String,
    },
    /// A component did not get ready, or died.
    #[error("{component} {state}; its log {log:?} ends with: {tail}")]
    Component {
        /// The component or node.
        component: String,
        /// What is wrong with it.
        state: String,
        /// Its log file.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// A certificate or key could not be made.
    #[error("cannot make the certificate of {subject:?}: {source}")]
    Certify {
        /// Whose certificate.
        subject: String,
        /// What rcgen said.
        source: rcgen::Error,
    },
    /// The cluster's recorded state is not readable.
    #[error("{path:?} is not readable ({reason}): remove the cluster with `testcluster down`")]
    ParseState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value could not be written as JSON or YAML.
    #[error("cannot encode {what}: {reason}")]
    Encode {
        /// The value.
        what: String,
        /// What the encoder said.
        reason: String,
    },
    /// The API server said no.
    #[error("cannot {doing}: {source}")]
    Api {
        /// What was asked.
        doing: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The kubeconfig could not be used.
    #[error("kubeconfig {path:?} is not usable: {reason}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something did not come about in time.
    #[error("{what}: not within {deadline:?}; last seen: {seen}")]
    Wait {
        /// What was waited for.
        what: String,
        /// How long.
        deadline: Duration,
        /// The state at the end.
        seen: String,
    },
    /// The machine's kernel or set-up lacks something.
    #[error("{what}")]
    Machine {
        /// What is missing and what to do about it.
        what: String,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file<E: Into<io::Error>>(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source: source.into() }
    }

    /// For `map_err` on system calls.
    pub(crate) fn call<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Call { doing, source: source.into() }
    }

    /// For `map_err` on requests to the API server.
    pub(crate) fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Api { doing, source: Box::new(source) }
    }
}
