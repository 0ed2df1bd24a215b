//! Lets settings of indexes and caches work whichever installer an image has: those of pip for uv, those of uv for pip. Pure.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use crate::args::Environment;

/// pip's variable and uv's of the same meaning, best first. Where both take lists, both separate them by spaces.
const SAME_MEANING: [(&str, &[&str]); 5] = [
    ("PIP_INDEX_URL", &["UV_DEFAULT_INDEX", "UV_INDEX_URL"]),
    ("PIP_EXTRA_INDEX_URL", &["UV_EXTRA_INDEX_URL"]),
    ("PIP_FIND_LINKS", &["UV_FIND_LINKS"]),
    ("PIP_TRUSTED_HOST", &["UV_INSECURE_HOST"]),
    ("PIP_CERT", &["SSL_CERT_FILE"]),
];

/// Sets what the spec says for uv, in place of all that the environment says of the same.
pub(super) fn set_for_uv(environment: &mut Environment, index: Option<&str>, extra: &[String]) {
    if let Some(url) = index {
        remove(environment, &["UV_INDEX_URL", "PIP_NO_INDEX", "UV_NO_INDEX"]);
        environment.set("UV_DEFAULT_INDEX", url);
    }
    if !extra.is_empty() {
        remove(environment, &["UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "UV_NO_INDEX"]);
        environment.set("UV_INDEX", extra.join(" "));
    }
}

/// Sets what the spec says for pip, in place of all that the environment says of the same.
pub(super) fn set_for_pip(environment: &mut Environment, index: Option<&str>, extra: &[String]) {
    if let Some(url) = index {
        remove(environment, &["PIP_NO_INDEX"]);
        environment.set("PIP_INDEX_URL", url);
    }
    if !extra.is_empty() {
        remove(environment, &["PIP_NO_INDEX"]);
        environment.set("PIP_EXTRA_INDEX_URL", extra.join(" "));
    }
}

/// Lets uv and pip trust the authorities of the file, and no others.
pub(super) fn trust(environment: &mut Environment, file: Option<&Path>) {
    if let Some(file) = file {
        remove(environment, &["SSL_CERT_DIR"]);
        for name in ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"] {
            environment.set(name, file);
        }
    }
}

fn remove(environment: &mut Environment, names: &[&str]) {
    for name in names {
        environment.remove(name);
    }
}

/// Sets uv's variables from pip's where the user set none of uv's for the same thing.
pub(super) fn for_uv(environment: &mut Environment) {
    for (pip, uv) in SAME_MEANING {
        if uv.iter().all(|name| environment.get(name).is_none())
            && let Some(value) = environment.get(pip).map(ToOwned::to_owned)
        {
            environment.set(uv[0], if pip == "PIP_FIND_LINKS" { commas_for_spaces(&value) } else { value });
        }
    }
}

/// Where uv keeps what it downloads: where the user said, else in a folder of its own where the user told pip to.
pub(super) fn cache_for_uv(environment: &mut Environment, default: &Path) {
    // To pip an empty value is none.
    let of_pip = environment.get("PIP_CACHE_DIR").filter(|folder| !folder.is_empty());
    let folder = of_pip.map_or(default.to_owned(), |folder| Path::new(folder).join("uv"));
    environment.set_default("UV_CACHE_DIR", folder);
}

/// Whether the user told pip to use no index; uv has only an option for that.
pub(super) fn is_without_index(environment: &Environment) -> bool {
    let value = environment.get("PIP_NO_INDEX").and_then(OsStr::to_str).unwrap_or_default();
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "t" | "yes" | "y" | "on")
}

/// Sets pip's variables from uv's where the user set none of pip's for the same thing.
pub(super) fn for_pip(environment: &mut Environment) {
    for (pip, uv) in SAME_MEANING {
        if let Some(value) = uv.iter().find_map(|name| environment.get(name)).map(ToOwned::to_owned) {
            environment.set_default(pip, value);
        }
    }
}

/// uv separates this one list by commas.
fn commas_for_spaces(value: &OsStr) -> OsString {
    match value.to_str() {
        Some(text) => text.split_ascii_whitespace().collect::<Vec<_>>().join(",").into(),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let mut environment = Environment::default();
        for (name, value) in variables {
            environment.set(name, *value);
        }
        environment
    }

    fn get<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
        environment.get(name).and_then(OsStr::to_str)
    }

    #[test]
    fn settings_of_one_installer_reach_the_other() {
        let mut uv = environment(&[("PIP_INDEX_URL", "https://a"), ("PIP_FIND_LINKS", "/a  /b")]);
        for_uv(&mut uv);
        assert_eq!(get(&uv, "UV_DEFAULT_INDEX"), Some("https://a"));
        assert_eq!(get(&uv, "UV_FIND_LINKS"), Some("/a,/b"));
        let mut pip = environment(&[("UV_INDEX_URL", "https://b")]);
        for_pip(&mut pip);
        assert_eq!(get(&pip, "PIP_INDEX_URL"), Some("https://b"));
    }

    #[test]
    fn spec_wins_over_the_environment() {
        let given = [
            ("PIP_NO_INDEX", "1"),
            ("PIP_INDEX_URL", "https://a"),
            ("UV_INDEX_URL", "https://b"),
            ("PIP_EXTRA_INDEX_URL", "https://c"),
            ("UV_EXTRA_INDEX_URL", "https://d"),
        ];
        let extra = ["https://y".to_owned(), "https://z".to_owned()];
        let mut uv = environment(&given);
        set_for_uv(&mut uv, Some("https://x"), &extra);
        for_uv(&mut uv);
        assert_eq!(get(&uv, "UV_DEFAULT_INDEX"), Some("https://x"));
        assert_eq!(
            (get(&uv, "UV_INDEX"), get(&uv, "UV_EXTRA_INDEX_URL")),
            (Some("https://y https://z"), None)
        );
        assert!(!is_without_index(&uv) && get(&uv, "UV_INDEX_URL").is_none());
        let mut pip = environment(&given);
        set_for_pip(&mut pip, Some("https://x"), &extra);
        for_pip(&mut pip);
        assert_eq!(get(&pip, "PIP_INDEX_URL"), Some("https://x"));
        assert_eq!(get(&pip, "PIP_EXTRA_INDEX_URL"), Some("https://y https://z"));
        assert_eq!(get(&pip, "PIP_NO_INDEX"), None);
    }

    #[test]
    fn own_settings_win() {
        let mut uv = environment(&[("PIP_INDEX_URL", "https://a"), ("UV_INDEX_URL", "https://b")]);
        for_uv(&mut uv);
        assert_eq!(get(&uv, "UV_DEFAULT_INDEX"), None);
        for_pip(&mut uv);
        assert_eq!(get(&uv, "PIP_INDEX_URL"), Some("https://a"));
    }
}
