//! Images for tests, packed from single files of this machine and given to every node.

use std::fs;

use scriptrunner_api::digest::sha256_hex;
use scriptrunner_testcluster::Cluster;
use serde_json::{Value, json};

/// Where Debian's `busybox-static` has its one program; `./test.sh` installs it.
const BUSYBOX: &str = "/bin/busybox";

/// An image that has busybox and nothing else, no `/tmp` and no shell by another name.
pub(crate) fn busybox(cluster: &Cluster) -> String {
    let image = "localhost/scriptrunner-test/busybox:1";
    load(cluster, image, "bin/busybox", BUSYBOX, &json!({"Entrypoint": ["/nothing"]}));
    image.to_owned()
}

/// The same, with a user by name, a working folder that does not exist, and an entry point that fails.
pub(crate) fn demanding(cluster: &Cluster) -> String {
    let image = "localhost/scriptrunner-test/demanding:1";
    let config = json!({"User": "somebody", "WorkingDir": "/not/there", "Entrypoint": ["/bin/busybox", "false"],
        "Cmd": ["ignored"], "Env": ["FROM_IMAGE=1"]});
    load(cluster, image, "bin/busybox", BUSYBOX, &config);
    image.to_owned()
}

fn load(cluster: &Cluster, image: &str, path: &str, program: &str, config: &Value) {
    let program =
        fs::read(program).unwrap_or_else(|error| panic!("{program}: {error}; install busybox-static"));
    let archive = tempfile::tempdir().unwrap();
    let file = archive.path().join(format!("{}.tar", image.replace(['/', ':'], "-")));
    fs::write(&file, docker_archive(image, path, &program, config)).unwrap();
    cluster.load_image(&file).unwrap();
}

fn docker_archive(image: &str, path: &str, program: &[u8], config: &Value) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, path, program, 0o755);
    let layer = layer.into_inner().unwrap();
    let config = json!({"architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256_hex(&layer))]}})
    .to_string();
    let name = format!("{}.json", sha256_hex(config.as_bytes()));
    let manifest = json!([{"Config": name, "RepoTags": [image], "Layers": ["layer.tar"]}]).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, &name, config.as_bytes(), 0o644);
    append(&mut archive, "layer.tar", &layer, 0o644);
    append(&mut archive, "manifest.json", manifest.as_bytes(), 0o644);
    archive.into_inner().unwrap()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_cksum();
    archive.append_data(&mut header, name, content).unwrap();
}
