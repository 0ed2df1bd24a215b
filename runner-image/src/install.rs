//! Installs dependencies into a virtual environment of the pod, with uv, or with pip where the image has no uv.

mod index;

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use scriptrunner_api::{snapshot::MAX_RECORD_TEXT_BYTES, text::tail};

use crate::{
    args::Environment,
    capture::Kept,
    interpreter, log,
    process::{self, CutBy, Ending, Finished, Job, Limits, Outlet},
    program,
    signals::Signals,
};

const VENV: &str = "venv";
const CACHE: &str = "cache";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot find a Python to install for: {source}; use an image that has one")]
    FindPython { source: program::Error },
    #[error("cannot start installer {program:?}: {source}")]
    StartInstaller { program: PathBuf, source: io::Error },
    /// The installer failed; with its last words.
    #[error("{step} {ending}: {output}")]
    Install { step: &'static str, ending: String, output: String },
    /// The runner was told to stop.
    #[error("the pod was told to end while dependencies were installed")]
    Interrupted,
}

/// Where and how to install.
pub(crate) struct Installer<'a> {
    pub(crate) state_dir: &'a Path,
    pub(crate) work_dir: &'a Path,
    pub(crate) environment: &'a Environment,
    pub(crate) grace: Duration,
    /// How long all installing together may take.
    pub(crate) timeout: Duration,
}

/// A virtual environment with the dependencies.
#[derive(Debug)]
pub(crate) struct Venv {
    folder: PathBuf,
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
        let mut path = self.folder.join("bin").into_os_string();
        let rest = environment.get("PATH").unwrap_or(OsStr::new(program::DEFAULT_PATH));
        path.push(":");
        path.push(rest);
        environment.set("PATH", path);
        environment.set("VIRTUAL_ENV", self.folder.clone());
    }

    fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }
}

struct Step {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Installer<'_> {
    /// Installs the requirements for the Python that the command line names, else for `python3`.
    pub(crate) fn install(
        &self,
        requirements: &[String],
        command_line: &[OsString],
        signals: &mut Signals,
    ) -> Result<Venv, Error> {
        let started = Instant::now();
        let venv = Venv { folder: self.state_dir.join(VENV) };
        let cache = self.state_dir.join(CACHE);
        let search_path = self.environment.get("PATH");
        let named = command_line.first().filter(|word| interpreter::is_python(word));
        let python = program::find(named.map_or(OsStr::new("python3"), OsString::as_os_str), search_path)
            .map_err(|source| Error::FindPython { source })?;
        let mut environment = self.environment.clone();
        let steps = if let Ok(uv) = program::find(OsStr::new("uv"), search_path) {
            index::for_uv(&mut environment);
            environment.set_default("UV_CACHE_DIR", cache.clone());
            uv_steps(&uv, &python, &venv, requirements, index::is_without_index(&environment))
        } else {
            index::for_pip(&mut environment);
            environment.set_default("PIP_CACHE_DIR", cache.clone());
            pip_steps(&python, &venv, requirements)
        };
        for step in steps {
            self.perform(&step, &environment, self.timeout.saturating_sub(started.elapsed()), signals)?;
        }
        // Its space counts against the pod's limit, and nothing is installed again.
        let _ = fs::remove_dir_all(&cache);
        Ok(venv)
    }

    fn perform(
        &self,
        step: &Step,
        environment: &Environment,
        rest: Duration,
        signals: &mut Signals,
    ) -> Result<(), Error> {
        log::line(&format!("{} with {}", step.name, step.program.display()));
        let job = Job {
            program: &step.program,
            arguments: &step.arguments,
            environment,
            folder: self.work_dir,
            outlet: Outlet::Stderr,
        };
        let limits = Limits {
            deadline: Some(rest),
            grace: self.grace,
            stdout_bytes: MAX_RECORD_TEXT_BYTES,
            stderr_bytes: MAX_RECORD_TEXT_BYTES,
            kept: Kept::Tail,
        };
        let finished = process::execute(&job, &limits, signals)
            .map_err(|source| Error::StartInstaller { program: step.program.clone(), source })?;
        judge(step.name, &finished, self.timeout)
    }
}

fn judge(step: &'static str, finished: &Finished, timeout: Duration) -> Result<(), Error> {
    let ending = match (finished.cut_by, finished.ending) {
        (Some(CutBy::Stop), _) => return Err(Error::Interrupted),
        (Some(CutBy::Deadline), _) => {
            format!("took longer than installTimeoutSeconds, {} s", timeout.as_secs())
        }
        (None, Ending::Code(0)) => return Ok(()),
        (None, Ending::Code(code)) => format!("exited with code {code}"),
        (None, Ending::Signal(signal)) => format!("was ended by signal {signal}"),
    };
    let words = [&finished.stderr.text, &finished.stdout.text];
    let words = words.into_iter().find(|text| !text.trim().is_empty()).map_or("", |text| text.trim());
    // The end says why, so it must survive the message's limit.
    let room = MAX_RECORD_TEXT_BYTES.saturating_sub(step.len() + ending.len() + ": ".len() + " ".len());
    Err(Error::Install { step, output: whole_lines(words, room).to_owned(), ending })
}

/// The last lines that fit; the end of the last line if not even that does.
fn whole_lines(text: &str, room: usize) -> &str {
    if text.len() <= room {
        return text;
    }
    // One byte more, so that a line which begins exactly there is not lost.
    tail(text, room + 1).split_once('\n').map_or(tail(text, room), |(_, lines)| lines)
}

fn uv_steps(
    uv: &Path,
    python: &Path,
    venv: &Venv,
    requirements: &[String],
    is_without_index: bool,
) -> Vec<Step> {
    let create = words(&["--no-progress", "venv", "--python"])
        .chain([python.into(), "--".into(), venv.folder.clone().into()])
        .collect();
    let install = words(&["--no-progress", "pip", "install"])
        .chain(words(if is_without_index { &["--no-index"] } else { &[] }))
        .chain(["--python".into(), venv.python().into(), "--".into()])
        .chain(requirements.iter().map(OsString::from))
        .collect();
    vec![
        Step { name: "uv venv", program: uv.to_owned(), arguments: create },
        Step { name: "uv pip install", program: uv.to_owned(), arguments: install },
    ]
}

fn pip_steps(python: &Path, venv: &Venv, requirements: &[String]) -> Vec<Step> {
    let create = words(&["-m", "venv", "--"]).chain([venv.folder.clone().into()]).collect();
    let options =
        ["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--"];
    let install = words(&options).chain(requirements.iter().map(OsString::from)).collect();
    vec![
        Step { name: "python -m venv", program: python.to_owned(), arguments: create },
        Step { name: "pip install", program: venv.python(), arguments: install },
    ]
}

fn words<'a>(words: &'a [&'a str]) -> impl Iterator<Item = OsString> + use<'a> {
    words.iter().map(OsString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_whole_lines_if_one_fits() {
        assert_eq!(whole_lines("first\nsecond\nthird", 14), "second\nthird");
        assert_eq!(whole_lines("first\nsecond\nthird", 12), "second\nthird");
        assert_eq!(whole_lines("first\nsecond\nthird", 11), "third");
        assert_eq!(whole_lines("first\nsecond", 12), "first\nsecond");
        assert_eq!(whole_lines("0123456789", 4), "6789");
    }

    #[test]
    fn requirements_stay_one_argument_each() {
        let venv = Venv { folder: "/v".into() };
        let requirements = ["six ; python_version > '3'".to_owned(), "a @ file:///x y.whl".to_owned()];
        for steps in [
            uv_steps(Path::new("/uv"), Path::new("/p"), &venv, &requirements, false),
            pip_steps(Path::new("/p"), &venv, &requirements),
        ] {
            let arguments = &steps[1].arguments;
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
