//! Which program installs packages of the image's operating system, and how it is called. Pure but for looking for it.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use super::{Error, Step, words};
use crate::program;

/// In this order: an image that has several is one of dnf's.
const PROGRAMS: [&str; 3] = ["dnf", "microdnf", "apt-get"];

/// The calls that install the packages.
pub(super) fn steps(
    packages: &[String],
    trusted_ca: Option<&Path>,
    search_path: Option<&OsStr>,
    is_root: bool,
) -> Result<Vec<Step>, Error> {
    let found = PROGRAMS
        .into_iter()
        .find_map(|name| program::find(OsStr::new(name), search_path).ok().map(|program| (name, program)));
    let Some((name, program)) = found else { return Err(Error::FindPackageProgram) };
    if !is_root {
        return Err(Error::RequireRoot { program: name });
    }
    // dnf takes a name for an option wherever it stands.
    if let Some(option) = packages.iter().find(|package| package.starts_with('-')) {
        return Err(Error::TakePackage { name: option.clone() });
    }
    Ok(match name {
        "apt-get" => apt_get(&program, packages, trusted_ca),
        _ => vec![dnf(name, program, packages, trusted_ca)],
    })
}

fn dnf(name: &'static str, program: PathBuf, packages: &[String], trusted_ca: Option<&Path>) -> Step {
    let arguments = words(&["-y", "--setopt=install_weak_deps=False"])
        .chain(trusted_ca.map(|path| option("--setopt=sslcacert=", path)))
        .chain(words(&["install"]))
        .chain(packages.iter().map(OsString::from))
        .collect();
    let name = if name == "dnf" { "dnf install" } else { "microdnf install" };
    Step { name, program, arguments, variables: Vec::new() }
}

fn apt_get(program: &Path, packages: &[String], trusted_ca: Option<&Path>) -> Vec<Step> {
    let options: Vec<OsString> = trusted_ca
        .map(|path| ["-o".into(), option("Acquire::https::CAInfo=", path)])
        .into_iter()
        .flatten()
        .collect();
    let step = |name, arguments| Step {
        name,
        program: program.to_owned(),
        arguments,
        variables: vec![("DEBIAN_FRONTEND", "noninteractive".into())],
    };
    // Else apt-get ends well though it reached no index. Before 2.2 it always does, and takes no notice of this.
    let update =
        options.iter().cloned().chain(words(&["-o", "APT::Update::Error-Mode=any", "update"])).collect();
    let install = options
        .iter()
        .cloned()
        .chain(words(&["install", "-y", "--no-install-recommends", "--"]))
        .chain(packages.iter().map(OsString::from))
        .collect();
    vec![step("apt-get update", update), step("apt-get install", install)]
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_but_root_installs_packages_and_options_are_none() {
        let (dir, packages) = (tempfile::tempdir().unwrap(), |name: &str| [name.to_owned()]);
        let path = Some(dir.path().as_os_str());
        let none = steps(&packages("six"), None, path, true).unwrap_err().to_string();
        assert!(none.contains("dnf, microdnf and apt-get"), "{none}");
        std::os::unix::fs::symlink("/bin/true", dir.path().join("microdnf")).unwrap();
        let nobody = steps(&packages("six"), None, path, false).unwrap_err().to_string();
        assert!(nobody.contains("microdnf needs root") && nobody.contains("runAs: Root"), "{nobody}");
        assert!(steps(&packages("--nogpgcheck"), None, path, true).is_err());
        assert_eq!(steps(&packages("six"), None, path, true).unwrap()[0].name, "microdnf install");
    }
}
