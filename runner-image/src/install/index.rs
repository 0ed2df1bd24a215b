//! Lets index settings work whichever installer an image has: those of pip for uv, those of uv for pip. Pure.

use std::ffi::{OsStr, OsString};

use crate::args::Environment;

/// pip's variable and uv's of the same meaning, best first. Where both take lists, both separate them by spaces.
const SAME_MEANING: [(&str, &[&str]); 5] = [
    ("PIP_INDEX_URL", &["UV_DEFAULT_INDEX", "UV_INDEX_URL"]),
    ("PIP_EXTRA_INDEX_URL", &["UV_EXTRA_INDEX_URL"]),
    ("PIP_FIND_LINKS", &["UV_FIND_LINKS"]),
    ("PIP_TRUSTED_HOST", &["UV_INSECURE_HOST"]),
    ("PIP_CERT", &["SSL_CERT_FILE"]),
];

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
    fn own_settings_win() {
        let mut uv = environment(&[("PIP_INDEX_URL", "https://a"), ("UV_INDEX_URL", "https://b")]);
        for_uv(&mut uv);
        assert_eq!(get(&uv, "UV_DEFAULT_INDEX"), None);
        for_pip(&mut uv);
        assert_eq!(get(&uv, "PIP_INDEX_URL"), Some("https://a"));
    }
}
