//! Images without a registry: the pause image is packed here, others are imported from archives into every node.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{
    component::config::{CONTAINERD_SOCKET, NODE_BINARIES},
    digest::sha256,
    error::{Error, Result},
    folder::{self, ClusterFolder},
    node::Node,
    tool,
};

/// The image of the process that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "localhost/scriptrunner/pause:1";

/// Where a node's `/var` keeps the pause image's archive, to have it before the API server is there.
const PAUSE_ON_NODE: &str = "lib/testcluster/pause.tar";

/// Puts the pause image's archive into a node's `/var`.
pub(crate) fn place_pause(cluster: &ClusterFolder, var: &Path) -> Result<()> {
    let target = var.join(PAUSE_ON_NODE);
    if let Some(above) = target.parent() {
        folder::make(above, 0o755)?;
    }
    let archive = cluster.path().join("pause.tar");
    fs::copy(&archive, &target).map_err(Error::file("copy", &archive)).map(drop)
}

/// Inside a node: gives the pause image to containerd.
pub(crate) fn import_pause() -> Result<()> {
    let archive = Path::new("/var").join(PAUSE_ON_NODE);
    let program = Path::new(NODE_BINARIES).join("containerd/ctr");
    import(&program, Path::new(CONTAINERD_SOCKET), &archive).map(drop)
}

/// Packs the pause image from the program that is built beside this one.
pub(crate) fn pack_pause(program: &Path, archive: &Path) -> Result<()> {
    let program = fs::read(program).map_err(|_| Error::Machine {
        what: format!(
            "{} is missing: build it with `cargo build -p scriptrunner-testcluster`",
            program.display()
        ),
    })?;
    let packed = docker_archive(PAUSE_IMAGE, "pause", &program).map_err(Error::file("pack", archive))?;
    folder::write(archive, packed, 0o644)
}

/// A docker-archive of one layer with one program.
fn docker_archive(image: &str, name: &str, program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, name, program, 0o755)?;
    let layer = layer.into_inner()?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [format!("/{name}")]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
    })
    .to_string();
    let (config_name, layer_name) = (format!("{}.json", sha256(&config)), "layer.tar");
    let manifest = json!([{"Config": config_name, "RepoTags": [image], "Layers": [layer_name]}]).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, &config_name, config.as_bytes(), 0o644)?;
    append(&mut archive, layer_name, &layer, 0o644)?;
    append(&mut archive, "manifest.json", manifest.as_bytes(), 0o644)?;
    archive.into_inner()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_cksum();
    archive.append_data(&mut header, name, content)
}

/// Keeps an archive for the nodes that come later; gives where.
pub(crate) fn remember(cluster: &ClusterFolder, archive: &Path) -> Result<PathBuf> {
    let mut start = [0; 512];
    let mut file = File::open(archive).map_err(Error::file("open", archive))?;
    file.read_exact(&mut start).map_err(Error::file("read", archive))?;
    let metadata = file.metadata().map_err(Error::file("read", archive))?;
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    folder::make(&cluster.images(), 0o755)?;
    let kept = cluster.images().join(format!("{}-{}-{name}", metadata.mtime(), metadata.size()));
    if !kept.exists() {
        // A newer archive of the same name takes the older one's place.
        for older in
            archives(cluster)?.iter().filter(|path| path.to_string_lossy().ends_with(&format!("-{name}")))
        {
            folder::remove(older)?;
        }
        folder::link_or_copy(archive, &kept)?;
    }
    Ok(kept)
}

/// The archives that every node should have.
pub(crate) fn archives(cluster: &ClusterFolder) -> Result<Vec<PathBuf>> {
    let folder = cluster.images();
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).map_err(Error::file("read", &folder))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Imports archives into a node, except those it has; gives the names of the images.
pub(crate) fn provide(node: &Node<'_>, archives: &[PathBuf], ctr: &Path) -> Result<Vec<String>> {
    let record = node.disk().join("images.json");
    let had = fs::read_to_string(&record).ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut had = still_kept(had.unwrap_or_default());
    let mut names = Vec::new();
    for archive in archives {
        if had.contains(archive) {
            continue;
        }
        names.extend(import(ctr, &node.containerd_socket()?, archive)?);
        had.push(archive.clone());
    }
    let text = serde_json::to_string(&had)
        .map_err(|error| Error::Encode { what: "the list of images".into(), reason: error.to_string() })?;
    folder::write(&record, text, 0o644)?;
    Ok(names)
}

/// The archives of a node's record that no newer one has replaced: one that comes back has to be imported again, because
/// the image's name points to the other by now.
fn still_kept(had: Vec<PathBuf>) -> Vec<PathBuf> {
    had.into_iter().filter(|archive| archive.exists()).collect()
}

/// Gives an archive to containerd; every image is then known by its digest too, as after a pull from a registry.
fn import(ctr: &Path, socket: &Path, archive: &Path) -> Result<Vec<String>> {
    let of_images = |action: &str| {
        let mut command = Command::new(ctr);
        command.arg("--address").arg(socket).args(["--namespace", "k8s.io", "images", action]);
        command.env("PATH", tool::PATH);
        command
    };
    let said = tool::output(of_images("import").arg(archive), None)?;
    let listed = tool::output(&mut of_images("list"), None)?;
    let images = imported(&said, &listed);
    for (name, digest) in &images {
        let repository = name.rsplit_once(':').map_or(*name, |(repository, _)| repository);
        let by_digest = format!("{repository}@{digest}");
        tool::output(of_images("tag").args(["--force", name, &by_digest]), None)?;
    }
    Ok(images.into_iter().map(|(name, _)| name.to_owned()).collect())
}

/// Names and digests of the images whose digest `ctr images import` says, out of what `ctr images list` says: `NAME TYPE DIGEST SIZE ...`.
/// The names that the first one says lack their hyphens.
fn imported<'a>(said: &str, listed: &'a str) -> Vec<(&'a str, &'a str)> {
    let digests: Vec<&str> = said.split_whitespace().filter(|word| word.starts_with("sha256:")).collect();
    let lines = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let images = lines.filter_map(|words| Some((*words.first()?, *words.get(2)?)));
    let is_named = |name: &str| !name.starts_with("sha256:") && !name.contains('@');
    images.filter(|(name, digest)| is_named(name) && digests.contains(digest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_image_names_its_parts() {
        let packed = docker_archive("localhost/x:1", "x", b"program").unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[1..], ["layer.tar", "manifest.json"]);
        assert!(String::from_utf8_lossy(&packed).contains(r#""Entrypoint":["/x"]"#));
    }

    #[test]
    fn the_imported_images_are_those_of_the_digests_that_ctr_says() {
        let said = "localhost/a b/x:1  \tsaved\t\napplication/vnd.oci.image.manifest.v1+json sha256:ebeb\nImporting\telapsed: 0.1 s";
        let listed = "REF               TYPE   DIGEST      SIZE\nlocalhost/a-b/x:1 a/b+json sha256:ebeb 1 KiB\nlocalhost/a-b/x@sha256:ebeb a sha256:ebeb 1 KiB\nsha256:0123 a sha256:ebeb 1 KiB\nlocalhost/y:1 a sha256:1111 1 KiB\n";
        assert_eq!(imported(said, listed), [("localhost/a-b/x:1", "sha256:ebeb")]);
    }

    #[test]
    fn a_newer_archive_of_the_same_name_replaces_the_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        fs::write(&archive, [0; 1024]).unwrap();
        let cluster = ClusterFolder::at(folder.path().join("cluster"));
        remember(&cluster, &archive).unwrap();
        fs::write(&archive, [0; 2048]).unwrap();
        let kept = remember(&cluster, &archive).unwrap();
        assert_eq!(archives(&cluster).unwrap(), [kept]);
    }

    #[test]
    fn an_archive_that_comes_back_is_imported_again() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("image.tar");
        let cluster = ClusterFolder::at(folder.path().join("cluster"));
        fs::write(&archive, [0; 1024]).unwrap();
        let first = remember(&cluster, &archive).unwrap();
        fs::write(&archive, [0; 2048]).unwrap();
        let second = remember(&cluster, &archive).unwrap();
        assert_eq!(still_kept(vec![first, second.clone()]), [second]);
    }
}
