//! Builds the cluster's binaries from the pinned Go modules, once, into the user's cache folder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::sha256,
    error::{Error, Result},
    folder,
    machine::Lock,
    progress::Progress,
    tool,
};

/// The version of Kubernetes; that of the go.mod file.
pub const KUBERNETES_VERSION: &str = "v1.36.3";

/// Newest Go that is too old: (major, minor).
const GO_TOO_OLD: (u32, u32) = (1, 25);

/// A go.mod and what is built from it.
struct Module {
    name: &'static str,
    /// (Go package, binary).
    packages: &'static [(&'static str, &'static str)],
}

const MODULES: [Module; 4] = [
    Module {
        name: "kubernetes",
        packages: &[
            ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
            ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
            ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
            ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
            ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
            ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
            ("go.etcd.io/etcd/server/v3", "etcd"),
        ],
    },
    Module {
        name: "containerd",
        packages: &[
            ("github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
            ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
            ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
        ],
    },
    Module {
        name: "cni",
        packages: &[
            ("github.com/containernetworking/plugins/plugins/main/bridge", "bridge"),
            ("github.com/containernetworking/plugins/plugins/main/loopback", "loopback"),
            ("github.com/containernetworking/plugins/plugins/ipam/host-local", "host-local"),
            ("github.com/containernetworking/plugins/plugins/meta/portmap", "portmap"),
        ],
    },
    Module { name: "coredns", packages: &[("github.com/coredns/coredns", "coredns")] },
];

/// Plays nodes and pods at a scale that no machine has. No cluster needs it, so it is built only when it is asked for.
const KWOK: Module = Module { name: "kwok", packages: &[("sigs.k8s.io/kwok/cmd/kwok", "kwok")] };

/// Finds the program `kwok`, which plays nodes and pods, building it if it is missing.
pub fn kwok(checkout: &Path, progress: &Progress) -> Result<PathBuf> {
    let count = Count { done: 0, total: KWOK.packages.len() };
    KWOK.ensure(checkout, &go_version()?, count, progress).map(|folder| folder.join("kwok"))
}

/// The folders with the binaries, one per Go module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binaries {
    /// etcd, the control plane, kubelet, kube-proxy and kubectl.
    pub kubernetes: PathBuf,
    /// containerd, its shim and ctr.
    pub containerd: PathBuf,
    /// The plugins for the pods' network.
    pub cni: PathBuf,
    /// The name server.
    pub coredns: PathBuf,
}

impl Binaries {
    /// Finds the binaries of a checkout, building those that are missing.
    pub fn ensure(checkout: &Path, progress: &Progress) -> Result<Self> {
        let go = go_version()?;
        let total = MODULES.iter().map(|module| module.packages.len()).sum();
        let mut done = 0;
        let mut folders = Vec::new();
        for module in &MODULES {
            let count = Count { done, total };
            folders.push(module.ensure(checkout, &go, count, progress)?);
            done += module.packages.len();
        }
        let mut folders = folders.into_iter();
        let mut next = || folders.next().unwrap_or_default();
        Ok(Self { kubernetes: next(), containerd: next(), cni: next(), coredns: next() })
    }

    /// Where a binary is, by its name.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        [&self.kubernetes, &self.containerd, &self.cni, &self.coredns]
            .into_iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    }

    /// The kubectl that fits the cluster.
    pub fn kubectl(&self) -> PathBuf {
        self.kubernetes.join("kubectl")
    }
}

#[derive(Clone, Copy)]
struct Count {
    done: usize,
    total: usize,
}

impl Module {
    fn ensure(&self, checkout: &Path, go: &str, count: Count, progress: &Progress) -> Result<PathBuf> {
        let source = checkout.join("testcluster/binaries").join(self.name);
        let cache = cache_folder()?.join(format!("{}-{}", self.name, self.key(&source, go)?));
        if cache.is_dir() {
            return Ok(cache);
        }
        let _lock = Lock::take(cache.with_extension("lock"))?;
        if cache.is_dir() {
            return Ok(cache);
        }
        let unfinished = cache.with_extension("new");
        folder::remove(&unfinished)?;
        folder::make(&unfinished, 0o755)?;
        for (index, (package, binary)) in self.packages.iter().enumerate() {
            let Count { done, total } = count;
            progress.step(&format!("building {binary} ({} of {total})", done + index + 1));
            let mut build = Command::new("go");
            build.current_dir(&source).args(["build"]).args(self.flags()).arg("-o");
            build.arg(unfinished.join(binary)).arg(package).env("CGO_ENABLED", "0").env_remove("GOFLAGS");
            tool::output(&mut build, None)?;
        }
        fs::rename(&unfinished, &cache).map_err(Error::file("rename", &unfinished))?;
        Ok(cache)
    }

    fn flags(&self) -> Vec<String> {
        let version = "-X k8s.io/component-base/version";
        let linker = if self.name == "kubernetes" {
            // Without these the server says it is v0.0.0, and clients misjudge it.
            format!(
                "-s -w {version}.gitVersion={KUBERNETES_VERSION} {version}.gitMajor=1 {version}.gitMinor=36"
            )
        } else {
            "-s -w".to_owned()
        };
        vec!["-mod=readonly".into(), "-trimpath".into(), "-ldflags".into(), linker]
    }

    /// A short text that changes with anything that changes the binaries.
    fn key(&self, source: &Path, go: &str) -> Result<String> {
        let mut all = format!("{:?}{:?}{go}", self.flags(), self.packages).into_bytes();
        for file in ["go.mod", "go.sum"] {
            let path = source.join(file);
            all.extend(fs::read(&path).map_err(Error::file("read", &path))?);
        }
        let mut key = sha256(all);
        key.truncate(12);
        Ok(key)
    }
}

fn cache_folder() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("scriptrunner/bin")).ok_or_else(|| Error::Machine {
        what: "neither XDG_CACHE_HOME nor HOME is set: set one, the binaries are kept there".into(),
    })
}

fn go_version() -> Result<String> {
    let found = |found: &str| Error::FindGo { found: found.into() };
    let version = tool::output(Command::new("go").args(["env", "GOVERSION"]), None)
        .map_err(|_| found("no program \"go\" on the search path (sudo may have shortened it: try `sudo env PATH=$PATH ...`)"))?;
    let version = version.trim();
    if parse_go_version(version).is_some_and(|version| version > GO_TOO_OLD) {
        return Ok(version.into());
    }
    Err(found(&format!("Go {version:?} is too old")))
}

fn parse_go_version(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.strip_prefix("go")?.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The root of the repository this program was built in, or else of the one around the current folder.
pub fn find_checkout() -> Result<PathBuf> {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let here = env::current_dir().map_err(Error::call("find the current folder"))?;
    let found = built_in
        .ancestors()
        .chain(here.ancestors())
        .find(|folder| folder.join("testcluster/binaries/kubernetes/go.mod").is_file());
    found.map(Path::to_owned).ok_or(Error::FindCheckout { path: here })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_compared_as_numbers() {
        assert_eq!(parse_go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(parse_go_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(parse_go_version("devel +abc"), None);
        assert!(parse_go_version("go1.100").unwrap() > GO_TOO_OLD);
        assert!(parse_go_version("go1.25.9").unwrap() <= GO_TOO_OLD);
    }

    #[test]
    fn the_version_is_that_of_the_go_mod_file() {
        let path = find_checkout().unwrap().join("testcluster/binaries/kubernetes/go.mod");
        let text = fs::read_to_string(path).unwrap();
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        assert!(lines.any(|words| words.starts_with(&["k8s.io/kubernetes", KUBERNETES_VERSION])));
    }

    #[test]
    fn every_built_package_is_a_pinned_tool() {
        for module in MODULES.iter().chain([&KWOK]) {
            let path = find_checkout().unwrap().join("testcluster/binaries").join(module.name).join("go.mod");
            let text = fs::read_to_string(path).unwrap();
            for (package, _) in module.packages {
                assert!(text.contains(package), "{package}");
            }
        }
    }
}
