//! Archives for the installers of operating systems on the machine's address in the cluster, each with one package that is made here.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use axum::{
    Router,
    http::{StatusCode, Uri},
};
use scriptrunner_testcluster::Cluster;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

/// The package that archives have where no other is asked for, and its program in `/usr/bin`.
const PACKAGE: (&str, &str) = ("sr-test-package", "sr-test-program");

/// What each program is.
const PROGRAM: &str = "#!/bin/sh\necho from a package\n";

/// Serves the files of a folder until it is dropped.
pub(crate) struct PackageArchive {
    url: String,
    task: JoinHandle<()>,
    /// Removed with the archive.
    _folder: TempDir,
}

impl PackageArchive {
    /// A Debian archive without suites: `deb URL ./`.
    pub(crate) async fn debian(cluster: &Cluster) -> Self {
        let (package, program) = PACKAGE;
        Self::debian_with(cluster, package, program).await
    }

    /// The same with a package and its program in `/usr/bin` by these names.
    pub(crate) async fn debian_with(cluster: &Cluster, package: &str, program: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = format!(
            "Package: {package}\nVersion: 1.0\nArchitecture: all\nMaintainer: test <test@localhost>\nDescription: test\n"
        );
        make_deb(folder.path(), &control, program);
        let file = fs::read(folder.path().join("package.deb")).unwrap();
        let (size, digest) = (file.len(), scriptrunner_api::digest::sha256_hex(&file));
        let index = format!("{control}Filename: ./package.deb\nSize: {size}\nSHA256: {digest}\n");
        fs::write(folder.path().join("Packages"), index).unwrap();
        Self::serve(cluster, folder).await
    }

    /// A repository of rpms.
    pub(crate) async fn rpm(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_rpm(folder.path());
        run(Command::new("createrepo_c").arg("--quiet").arg(folder.path()));
        Self::serve(cluster, folder).await
    }

    /// Files by whose configuration apt-get uses this archive and no other, mounted at `/srv/apt`.
    pub(crate) fn settings_for_apt_get(&self) -> Value {
        json!({"sources.list": format!("deb [trusted=yes] {} ./\n", self.url),
            "apt.conf": "Dir::Etc::SourceList \"/srv/apt/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n"})
    }

    /// The file by which dnf uses this archive, in its folder of repositories.
    pub(crate) fn settings_for_dnf(&self) -> Value {
        json!({"test.repo": format!("[test]\nname=test\nbaseurl={}\ngpgcheck=0\nproxy=_none_\n", self.url)})
    }

    async fn serve(cluster: &Cluster, folder: TempDir) -> Self {
        let root = folder.path().to_owned();
        // apt-get asks for `/./Packages`.
        let answer = async move |uri: Uri| {
            let path = uri.path().trim_start_matches("/./").trim_start_matches('/');
            if path.split('/').any(|part| part == "..") {
                return Err(StatusCode::NOT_FOUND);
            }
            fs::read(root.join(path)).map_err(|_| StatusCode::NOT_FOUND)
        };
        let routes = Router::new().fallback(answer);
        let listener = TcpListener::bind((cluster.gateway(), 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, task, _folder: folder }
    }
}

impl Drop for PackageArchive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets apt-get in the pods of a spec read the settings of an archive, which a ConfigMap of this name has.
pub(crate) fn let_apt_get_read(config_map: &str, spec: &mut Value) {
    let wanted = [
        json!({"name": "APT_CONFIG", "value": "/srv/apt/apt.conf"}),
        json!({"name": "NO_PROXY", "value": "*"}),
    ];
    match spec["env"].as_array_mut() {
        Some(env) => env.extend(wanted),
        None => spec["env"] = wanted.into_iter().collect(),
    }
    spec["podTemplate"] = json!({"volumes": [{"name": "apt", "configMap": {"name": config_map}}],
        "volumeMounts": [{"name": "apt", "mountPath": "/srv/apt", "readOnly": true}]});
}

/// `package.deb` in `folder`.
fn make_deb(folder: &Path, control: &str, program: &str) {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("DEBIAN")).unwrap();
    fs::write(root.path().join("DEBIAN/control"), control).unwrap();
    write_program(root.path(), program);
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build"])
        .arg(root.path())
        .arg(folder.join("package.deb")));
}

/// `noarch/*.rpm` in `folder`.
fn make_rpm(folder: &Path) {
    let work = tempfile::tempdir().unwrap();
    let root = work.path().join("files");
    let (package, program) = PACKAGE;
    write_program(&root, program);
    // Nothing of the image is known to rpm, so nothing may be required of it.
    let spec = format!(
        "Name: {package}\nVersion: 1.0\nRelease: 1\nSummary: test\nLicense: none\nBuildArch: noarch\nAutoReqProv: no\n\n%description\ntest\n\n%install\ncp -a {}/. %{{buildroot}}\n\n%files\n/usr/bin/{program}\n",
        root.display()
    );
    let file = work.path().join("test.spec");
    fs::write(&file, spec).unwrap();
    run(Command::new("rpmbuild")
        .args(["-bb", "--quiet"])
        .arg(format!("--define=_topdir {}", work.path().join("top").display()))
        .arg(format!("--define=_rpmdir {}", folder.display()))
        .arg(&file));
}

fn write_program(root: &Path, name: &str) {
    let folder = root.join("usr/bin");
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join(name);
    fs::write(&program, PROGRAM).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run(command: &mut Command) {
    let name = command.get_program().to_string_lossy().into_owned();
    let ended = command.output().unwrap_or_else(|error| panic!("{name}: {error}; ./test.sh e2e installs it"));
    assert!(ended.status.success(), "{name}: {}", String::from_utf8_lossy(&ended.stderr));
}
