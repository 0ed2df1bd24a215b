//! Starts programs that outlive this one, each in a control group and a session of its own.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    cgroup::Group,
    error::{Error, Result},
    folder, tool,
};

/// A program to start.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The `testcluster` program: it joins the group and then becomes the program.
    pub(crate) launcher: &'a Path,
    /// The group.
    pub(crate) group: &'a Group,
    /// The program.
    pub(crate) program: &'a Path,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// Where its output goes, after what is there.
    pub(crate) log: PathBuf,
}

impl Launch<'_> {
    /// Starts it; afterwards it is a member of its group. Gives its pid.
    pub(crate) fn start(&self) -> Result<u32> {
        self.group.create()?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(Error::file("open", &self.log))?;
        let again = log.try_clone().map_err(Error::file("open", &self.log))?;
        let mut child = Command::new(self.launcher)
            .arg("launch")
            .arg(self.group.path())
            .arg(self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", tool::PATH)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(again)
            .current_dir("/")
            .spawn()
            .map_err(|source| Error::Start { program: self.program.display().to_string(), source })?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.group.processes().contains(&child.id()) {
            let ended = child.try_wait().map_err(Error::call("wait for a program"))?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(Error::Component {
                    component: self.program.display().to_string(),
                    state: "did not start".into(),
                    log: self.log.clone(),
                    tail: folder::tail(&self.log),
                });
            }
            sleep(Duration::from_millis(5));
        }
        Ok(child.id())
    }
}

/// The other half of a launch: joins the group and becomes the program. Returns only an error.
pub fn launch(group: &Path, program: &Path, arguments: &[String]) -> Error {
    let become_program = || -> Result<std::convert::Infallible> {
        // A session of its own: neither Ctrl-C nor the end of the terminal reaches it.
        nix::unistd::setsid().map_err(Error::call("start a session"))?;
        Group::by_path(group)?.admit(std::process::id())?;
        let source = Command::new(program).args(arguments).exec();
        Err(Error::Start { program: program.display().to_string(), source })
    };
    let Err(error) = become_program();
    error
}
