//! Installs dependencies: packages of the operating system into the image, Python's into a virtual environment of the pod.

mod index;
mod inline;
mod os_packages;
mod python;
mod wanted;

use std::{
    ffi::{OsStr, OsString},
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::geteuid;
use scriptrunner_api::{labels, snapshot::MAX_RECORD_TEXT_BYTES, text::tail};

use self::wanted::OfPod;
pub(crate) use self::{python::Venv, wanted::Wanted};
use crate::{
    args::Environment,
    capture::Kept,
    folders, log,
    mask::Mask,
    process::{self, CutBy, Ending, Finished, Job, Limits, Outlet},
    program,
    signals::Signals,
};

const VENV: &str = "venv";
const CACHE: &str = "cache";
/// The script as uv reads it; alone in its folder.
const INLINE_DIR: &str = "inline.d";
const INLINE_NAME: &str = "script.py";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot find a Python to install for: {source}; use an image that has one")]
    FindPython { source: program::Error },
    #[error(
        "the script has inline metadata (# /// script), and there is no uv to read it; use an image that has uv"
    )]
    FindUv,
    #[error(
        "dependencies.pip and the script's inline metadata (# /// script) exclude each other; use one of them"
    )]
    CombineInline,
    #[error(
        "the script's inline metadata (# /// script) has no end; end it with a line `# ///`, and let every line before that begin with `# `, or be `#` alone"
    )]
    EndInline,
    #[error("the script has more than one block of inline metadata (# /// script); leave one")]
    ReadInline,
    #[error(
        "dependencies.packages needs one of dnf, microdnf and apt-get, and the image has none of them; use an image that has one, or has the packages"
    )]
    FindPackageProgram,
    #[error(
        "dependencies.packages: {program} needs root; set runAs: Root, use a privileged mode, or an image that has the packages"
    )]
    RequireRoot { program: &'static str },
    #[error("dependencies.packages: {name:?} is no package but an option")]
    TakePackage { name: String },
    #[error("cannot write {path:?} for the installers: {source}")]
    WriteFile { path: PathBuf, source: io::Error },
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
    /// Certificate authorities that installers trust, in PEM.
    pub(crate) trusted_ca: Option<&'a [u8]>,
    pub(crate) script: &'a [u8],
}

/// One call of an installer.
#[derive(Debug)]
struct Step {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Of this call only.
    variables: Vec<(&'static str, OsString)>,
}

/// One installation: its environment, and since when it goes on.
struct Work<'a> {
    installer: &'a Installer<'a>,
    environment: Environment,
    mask: Mask,
    started: Instant,
}

impl Installer<'_> {
    /// Installs what is wanted; packages only if the pod does not have them yet. An environment only if there is something
    /// for a Python.
    pub(crate) fn install(
        &self,
        wanted: &Wanted,
        has_packages: bool,
        signals: &mut Signals,
    ) -> Result<Option<Venv>, Error> {
        let of_pod = &wanted.of_pod;
        let needs_packages = !of_pod.packages.is_empty() && !has_packages;
        if !needs_packages && wanted.python.is_none() {
            return Ok(None);
        }
        let urls = of_pod.index_url.iter().chain(&of_pod.extra_index_urls).map(String::as_bytes);
        let values = self.environment.iter().map(|(_, value)| value.as_encoded_bytes());
        let block = wanted.inline.iter().map(String::as_bytes);
        let mut work = Work {
            installer: self,
            environment: self.environment.clone(),
            mask: Mask::of(urls.chain(values).chain(block)),
            started: Instant::now(),
        };
        let trusted_ca = self.trusted_ca.map(|bytes| self.write_trusted_ca(bytes)).transpose()?;
        if needs_packages {
            let search_path = self.environment.get("PATH");
            let is_root = geteuid().is_root();
            for step in os_packages::steps(&of_pod.packages, trusted_ca.as_deref(), search_path, is_root)? {
                work.perform(&step, signals)?;
            }
        }
        match &wanted.python {
            Some(python) => {
                let venv = Venv { folder: self.state_dir.join(VENV) };
                index::trust(&mut work.environment, trusted_ca.as_deref());
                self.install_python(&mut work, wanted, python, &venv, signals)?;
                Ok(Some(venv))
            }
            None => Ok(None),
        }
    }

    fn install_python(
        &self,
        work: &mut Work<'_>,
        wanted: &Wanted,
        python: &OsStr,
        venv: &Venv,
        signals: &mut Signals,
    ) -> Result<(), Error> {
        let search_path = self.environment.get("PATH");
        let python = program::find(python, search_path).map_err(|source| Error::FindPython { source })?;
        folders::remove_whatever(&venv.folder)
            .map_err(|source| Error::WriteFile { path: venv.folder.clone(), source })?;
        let cache = self.state_dir.join(CACHE);
        let OfPod { pip, index_url, extra_index_urls, .. } = &wanted.of_pod;
        let uv = python::find_uv(search_path);
        let environment = &mut work.environment;
        let steps: Vec<Step> = if let Some(uv) = uv {
            index::set_for_uv(environment, index_url.as_deref(), extra_index_urls);
            index::for_uv(environment);
            index::cache_for_uv(environment, &cache);
            environment.set("UV_PYTHON_DOWNLOADS", "never");
            let is_without_index = index::is_without_index(environment);
            let mut steps = vec![python::uv_venv(&uv, &python, venv)];
            if wanted.inline.is_some() {
                let script = self.write_inline()?;
                steps.extend(python::uv_script(&uv, venv, &script, is_without_index));
            } else {
                steps.push(python::uv_pip(&uv, venv, pip, is_without_index));
            }
            steps
        } else if wanted.inline.is_some() {
            return Err(Error::FindUv);
        } else {
            index::set_for_pip(environment, index_url.as_deref(), extra_index_urls);
            index::for_pip(environment);
            environment.set_default("PIP_CACHE_DIR", cache.clone());
            python::pip(&python, venv, pip).into()
        };
        for step in steps {
            work.perform(&step, signals)?;
        }
        // Its space counts against the pod's limit. A folder that the user named is another one, and stays.
        let _ = fs::remove_dir_all(&cache);
        Ok(())
    }

    /// A copy that every installer may read: apt-get downloads as another user.
    fn write_trusted_ca(&self, bytes: &[u8]) -> Result<PathBuf, Error> {
        let path = self.state_dir.join(labels::TRUSTED_CA_FILE);
        let written = folders::remove_whatever(&path)
            .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path))
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.set_permissions(Permissions::from_mode(0o444))
            });
        written.map_err(|source| Error::WriteFile { path: path.clone(), source })?;
        Ok(path)
    }

    fn write_inline(&self) -> Result<PathBuf, Error> {
        let folder = self.state_dir.join(INLINE_DIR);
        let path = folder.join(INLINE_NAME);
        let written = folders::remove_whatever(&folder)
            .and_then(|()| DirBuilder::new().mode(0o700).create(&folder))
            .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path))
            .and_then(|mut file| file.write_all(self.script));
        written.map_err(|source| Error::WriteFile { path: path.clone(), source })?;
        Ok(path)
    }
}

impl Work<'_> {
    fn perform(&self, step: &Step, signals: &mut Signals) -> Result<(), Error> {
        log::line(&format!("{} with {}", step.name, step.program.display()));
        let mut environment = self.environment.clone();
        for (name, value) in &step.variables {
            environment.set(name, value.clone());
        }
        let timeout = self.installer.timeout;
        let job = Job {
            program: &step.program,
            arguments: &step.arguments,
            environment: &environment,
            folder: self.installer.work_dir,
            outlet: Outlet::Stderr,
            mask: Some(&self.mask),
        };
        let limits = Limits {
            deadline: Some(timeout.saturating_sub(self.started.elapsed())),
            grace: self.installer.grace,
            stdout_bytes: MAX_RECORD_TEXT_BYTES,
            stderr_bytes: MAX_RECORD_TEXT_BYTES,
            kept: Kept::Tail,
        };
        let finished = process::execute(&job, &limits, signals)
            .map_err(|source| Error::StartInstaller { program: step.program.clone(), source })?;
        judge(step.name, &finished, timeout)
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
}
