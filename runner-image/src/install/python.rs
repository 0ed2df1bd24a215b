//! The virtual environment of a run's Python, and the calls of uv or pip that fill it.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use scriptrunner_api::labels;

use super::{Step, words};
use crate::{args::Environment, interpreter, program};

/// A virtual environment with the dependencies.
#[derive(Debug)]
pub(crate) struct Venv {
    pub(super) folder: PathBuf,
}

impl Venv {
    /// The same command line, with this environment's Python in place of any other: `#!/usr/bin/python3` would not see
    /// the dependencies.
    pub(crate) fn command_line(&self, mut words: Vec<OsString>) -> Vec<OsString> {
        if let Some(first) = words.first_mut()
            && interpreter::is_python(first)
        {
            *first = self.python().into();
        }
        words
    }

    /// Puts this environment's programs before all others.
    pub(crate) fn activate(&self, environment: &mut Environment) {
        let mut path = self.programs().into_os_string();
        let rest = environment.get("PATH").unwrap_or(OsStr::new(program::DEFAULT_PATH));
        path.push(":");
        path.push(rest);
        environment.set("PATH", path);
        environment.set("VIRTUAL_ENV", self.folder.clone());
    }

    fn programs(&self) -> PathBuf {
        self.folder.join("bin")
    }

    fn python(&self) -> PathBuf {
        self.programs().join("python")
    }
}

/// uv of the image, else the one that was copied with the runner.
pub(super) fn find_uv(search_path: Option<&OsStr>) -> Option<PathBuf> {
    let name = OsStr::new(labels::UV_FILE);
    program::find(name, search_path).ok().or_else(|| {
        let own = std::env::current_exe().ok()?;
        program::find(name, Some(own.parent()?.as_os_str())).ok()
    })
}

pub(super) fn uv_venv(uv: &Path, python: &Path, venv: &Venv) -> Step {
    let arguments = words(&["--no-progress", "venv", "--python"])
        .chain([python.into(), "--".into(), venv.folder.clone().into()])
        .collect();
    Step { name: "uv venv", program: uv.to_owned(), arguments, variables: Vec::new() }
}

pub(super) fn uv_pip(uv: &Path, venv: &Venv, requirements: &[String], is_without_index: bool) -> Step {
    let arguments = words(&["--no-progress", "pip", "install"])
        .chain(words(no_index(is_without_index)))
        .chain(["--python".into(), venv.python().into(), "--".into()])
        .chain(requirements.iter().map(OsString::from))
        .collect();
    Step { name: "uv pip install", program: uv.to_owned(), arguments, variables: Vec::new() }
}

/// Two steps, because `uv sync --python` only warns of a Python that `requires-python` does not admit: first uv looks for
/// an admitted one where there is none but the environment's.
pub(super) fn uv_script(uv: &Path, venv: &Venv, script: &Path, is_without_index: bool) -> [Step; 2] {
    let active = ("VIRTUAL_ENV", venv.folder.clone().into_os_string());
    let find = words(&["--no-progress", "python", "find", "--script"]).chain([script.into()]).collect();
    let sync = words(&["--no-progress", "sync"])
        .chain(words(no_index(is_without_index)))
        .chain(words(&["--active", "--python"]))
        .chain([venv.python().into(), "--script".into(), script.into()])
        .collect();
    let alone = ("PATH", venv.programs().into_os_string());
    let system = ("UV_PYTHON_PREFERENCE", OsString::from("only-system"));
    [
        Step {
            name: "check of requires-python by uv",
            program: uv.to_owned(),
            arguments: find,
            variables: vec![active.clone(), alone, system],
        },
        Step { name: "uv sync --script", program: uv.to_owned(), arguments: sync, variables: vec![active] },
    ]
}

fn no_index(is_without_index: bool) -> &'static [&'static str] {
    if is_without_index { &["--no-index"] } else { &[] }
}

pub(super) fn pip(python: &Path, venv: &Venv, requirements: &[String]) -> [Step; 2] {
    let create = words(&["-m", "venv", "--"]).chain([venv.folder.clone().into()]).collect();
    let options =
        ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--"];
    let install = words(&options).chain(requirements.iter().map(OsString::from)).collect();
    let step = |name, program, arguments| Step { name, program, arguments, variables: Vec::new() };
    [step("python -m venv", python.to_owned(), create), step("pip install", venv.python(), install)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_stay_one_argument_each() {
        let venv = Venv { folder: "/v".into() };
        let requirements = ["six ; python_version > '3'".to_owned(), "a @ file:///x y.whl".to_owned()];
        let [_, pip] = pip(Path::new("/p"), &venv, &requirements);
        for step in [uv_pip(Path::new("/uv"), &venv, &requirements, false), pip] {
            let arguments = &step.arguments;
            assert_eq!(arguments[arguments.len() - 3], "--");
            assert!(arguments.ends_with(&requirements.clone().map(OsString::from)));
        }
    }

    #[test]
    fn only_a_python_is_replaced() {
        let venv = Venv { folder: "/v".into() };
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(venv.command_line(words(&["/usr/bin/python3", "-u"])), words(&["/v/bin/python", "-u"]));
        assert_eq!(
            venv.command_line(words(&["/usr/bin/env", "python3"])),
            words(&["/usr/bin/env", "python3"])
        );
    }
}
