//! What is installed and what stands in ConfigMaps and Secrets: rules of the fields that name it. Pure.

use scriptrunner_api::{
    labels,
    v1alpha1::{Dependencies, EnvFromSource, Mode, RunAs, ScriptRunnerSpec},
};

use super::{Refusal, invalid};

pub(super) fn check(spec: &ScriptRunnerSpec) -> Result<(), Refusal> {
    check_digests(spec)?;
    for (index, source) in spec.env_from.iter().enumerate() {
        check_env_from(index, source)?;
    }
    if spec.mode.is_privileged() && !spec.env_from.is_empty() {
        return invalid(
            "envFrom is for mode Normal only; write the values into the spec, where admission sees them",
        );
    }
    let Some(dependencies) = &spec.dependencies else { return Ok(()) };
    check_dependencies(dependencies)?;
    if !dependencies.packages.is_empty() && spec.mode == Mode::Normal && spec.run_as != Some(RunAs::Root) {
        return invalid(
            "dependencies.packages need root; set runAs: Root, or put the packages into an image of your own",
        );
    }
    Ok(())
}

fn check_digests(spec: &ScriptRunnerSpec) -> Result<(), Refusal> {
    let script = spec.script_from.as_ref().map(|from| ("scriptFrom", from.sha256.as_deref()));
    let trusted_ca = spec.dependencies.as_ref().and_then(|dependencies| dependencies.trusted_ca.as_ref());
    let trusted_ca = trusted_ca.map(|ca| ("dependencies.trustedCA", ca.sha256.as_deref()));
    for (field, sha256) in script.into_iter().chain(trusted_ca) {
        if let Some(digest) = sha256.filter(|digest| !is_sha256(digest)) {
            return invalid(format!(
                "{field}.sha256 is {digest:?}, it must be 64 lower-case hexadecimal digits; get it with sha256sum"
            ));
        }
        if sha256.is_none() && spec.mode.is_privileged() {
            return invalid(format!(
                "a privileged mode needs {field}.sha256, so that admission sees what is used; get it with sha256sum"
            ));
        }
    }
    Ok(())
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn check_env_from(index: usize, source: &EnvFromSource) -> Result<(), Refusal> {
    let EnvFromSource { prefix, config_map_ref, secret_ref } = source;
    if config_map_ref.is_some() == secret_ref.is_some() {
        return invalid(format!("envFrom[{index}]: give exactly one of configMapRef and secretRef"));
    }
    let prefix = prefix.as_deref().unwrap_or_default();
    if prefix.starts_with(labels::ENV_PREFIX) {
        return invalid(format!(
            "envFrom[{index}]: prefix {prefix:?}: names that start with {} are set by the runner; choose another prefix",
            labels::ENV_PREFIX
        ));
    }
    if !prefix.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=') {
        return invalid(format!("envFrom[{index}]: prefix {prefix:?} must be printable ASCII without '='"));
    }
    Ok(())
}

fn check_dependencies(dependencies: &Dependencies) -> Result<(), Refusal> {
    let Dependencies {
        pip,
        packages,
        index_url,
        extra_index_urls,
        trusted_ca: _,
        install_timeout_seconds: _, // A limit, checked with the others.
    } = dependencies;
    if let Some(requirement) =
        pip.iter().find(|requirement| requirement.is_empty() || requirement.starts_with('-'))
    {
        return invalid(format!(
            "dependencies.pip: {requirement:?} is an option, not a requirement; use indexURL, extraIndexURLs and trustedCA"
        ));
    }
    if let Some(package) = packages.iter().find(|package| !is_package(package)) {
        return invalid(format!(
            "dependencies.packages: {package:?} is no name of a package; it starts with a letter, a digit or '/', and has letters, digits and ._+:=~*@/- after that"
        ));
    }
    if let Some(url) = index_url.iter().chain(extra_index_urls).find(|url| !is_url(url)) {
        // It may hold a password.
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        return invalid(format!(
            "dependencies: an index must be an http or https URL without spaces, not one with scheme {scheme:?}"
        ));
    }
    Ok(())
}

/// What is no name could be an option of the package program.
fn is_package(name: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'/';
    let is_any = |byte: u8| byte.is_ascii_alphanumeric() || b"._+:=~*@/-".contains(&byte);
    name.bytes().next().is_some_and(is_first) && name.bytes().all(is_any)
}

fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
}
