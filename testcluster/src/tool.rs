//! Runs programs of the distribution (ip, nft, ...), and checks that they are there.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::error::{Error, Result};

/// Search path of everything this program starts: what sudo or a desktop session sets differs too much.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Programs a cluster needs and the packages that have them.
const NEEDED: &[(&str, &str)] = &[
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
];

/// Checks user and programs; the first thing that is wrong is the error.
pub fn check_machine() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::LackRoot);
    }
    for (tool, package) in NEEDED {
        if find(tool, PATH).is_none() {
            return Err(Error::FindTool { tool: (*tool).into(), package: (*package).into() });
        }
    }
    Ok(())
}

/// The first program of this name on a search path.
pub(crate) fn find(tool: &str, path: &str) -> Option<PathBuf> {
    path.split(':').map(|folder| Path::new(folder).join(tool)).find(|file| file.is_file())
}

/// Runs `line`, whose words are separated by single spaces, and gives what it wrote.
pub(crate) fn run(line: &str) -> Result<String> {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).env("PATH", PATH);
    output(&mut command, None)
}

/// Runs a command to its end, with `input` on its standard input.
pub(crate) fn output(command: &mut Command, input: Option<&str>) -> Result<String> {
    let program = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = |source| Error::Start { program: program.clone(), source };
    let mut child = command.spawn().map_err(start)?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(text.as_bytes()).map_err(Error::call(format!("write to {program:?}")))?;
    }
    let output = child.wait_with_output().map_err(Error::call(format!("wait for {program:?}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().rev().take(3).collect::<Vec<_>>();
    let said = said.into_iter().rev().collect::<Vec<_>>().join(" | ");
    Err(Error::Run { program, status: output.status, output: said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_what_it_said() {
        let error = run("ls /nonexistent-folder").unwrap_err().to_string();
        assert!(error.contains("ls /nonexistent-folder") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(output(Command::new("cat").env("PATH", PATH), Some("hello")).unwrap(), "hello");
    }
}
