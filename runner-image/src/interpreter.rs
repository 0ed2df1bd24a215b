//! Decides which command line runs a script. Pure.

mod uv_run;

use std::ffi::{OsStr, OsString};

use scriptrunner_api::pinned::PinnedSpec;
use std::os::unix::ffi::OsStrExt;

pub(crate) use self::uv_run::Error;

/// Runs a script that says nothing about it; unbuffered, so that a killed script's output is not lost.
const DEFAULT: [&str; 2] = ["python3", "-u"];

/// The interpreter and its options, without the script: the spec's, else the `#!` line's, else `python3 -u`; that also
/// in place of `uv run --script`.
pub(crate) fn choose(spec: &PinnedSpec, script: &[u8]) -> Result<Vec<OsString>, Error> {
    let given = spec.interpreter.as_ref().filter(|given| !given.is_empty());
    let given = given.map(|words| words.iter().map(OsString::from).collect()).or_else(|| shebang(script));
    Ok(match given {
        Some(given) if !uv_run::is_meant(&given)? => given,
        _ => DEFAULT.map(OsString::from).to_vec(),
    })
}

/// The `#!` line as Linux reads it: the first word is the interpreter, the rest one single argument. A `\r` that a
/// CRLF script has at the end of the line is left out, for Linux would look for an interpreter of that name.
fn shebang(script: &[u8]) -> Option<Vec<OsString>> {
    let line = script.strip_prefix(b"#!")?;
    let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = trim_blanks(line.strip_suffix(b"\r").unwrap_or(line));
    let end = line.iter().position(|&byte| is_blank(byte)).unwrap_or(line.len());
    let (interpreter, argument) = (&line[..end], trim_blanks(&line[end..]));
    if interpreter.is_empty() {
        return None;
    }
    let words = [interpreter, argument];
    Some(
        words
            .into_iter()
            .filter(|word| !word.is_empty())
            .map(|word| OsStr::from_bytes(word).into())
            .collect(),
    )
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim_blanks(mut line: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = line
        && is_blank(*first)
    {
        line = rest;
    }
    while let [rest @ .., last] = line
        && is_blank(*last)
    {
        line = rest;
    }
    line
}

/// Whether the program is a Python 3 by its name (`python`, `python3`, `python3.13`, in any folder), so that an
/// environment with dependencies can stand in for it.
pub(crate) fn is_python(program: &OsStr) -> bool {
    let bytes = program.as_encoded_bytes();
    let name = bytes.rsplit(|&byte| byte == b'/').next().unwrap_or(bytes);
    let Some(version) = name.strip_prefix(b"python") else { return false };
    match version {
        b"" | b"3" => true,
        _ => version
            .strip_prefix(b"3.")
            .is_some_and(|minor| !minor.is_empty() && minor.iter().all(u8::is_ascii_digit)),
    }
}

/// The Python that a command line runs, by itself or through `env`.
pub(crate) fn python_of(command_line: &[OsString]) -> Option<OsString> {
    let (first, rest) = command_line.split_first()?;
    if is_python(first) {
        return Some(first.clone());
    }
    let is_env = first.as_encoded_bytes().rsplit(|&byte| byte == b'/').next() == Some(b"env");
    let words = rest.iter().filter_map(|word| word.to_str()).flat_map(str::split_ascii_whitespace);
    // `-S` may stick to its argument; other options and variables stand before the program.
    let program = words
        .map(|word| word.strip_prefix("-S").unwrap_or(word))
        .find(|word| !word.is_empty() && !word.starts_with('-') && !word.contains('='))?;
    (is_env && is_python(OsStr::new(program))).then(|| program.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(interpreter: Option<&[&str]>, script: &str) -> Vec<String> {
        let spec = PinnedSpec {
            interpreter: interpreter.map(|words| words.iter().map(|&word| word.to_owned()).collect()),
            ..serde_json::from_str(r#"{"scriptSha256": ""}"#).unwrap()
        };
        choose(&spec, script.as_bytes())
            .unwrap()
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn spec_wins_over_shebang_wins_over_default() {
        assert_eq!(chosen(Some(&["perl", "-w"]), "#!/bin/sh\n"), ["perl", "-w"]);
        assert_eq!(chosen(None, "#!/bin/sh\n"), ["/bin/sh"]);
        assert_eq!(chosen(None, "print(1)\n#!/bin/sh\n"), ["python3", "-u"]);
        assert_eq!(chosen(Some(&["uv", "run", "-s"]), "#!/bin/sh\n"), ["python3", "-u"]);
    }

    #[test]
    fn shebang_is_read_as_linux_reads_it() {
        for (script, words) in [
            ("#!/bin/sh", vec!["/bin/sh"]),
            ("#! \t/bin/sh \t\necho", vec!["/bin/sh"]),
            ("#!/usr/bin/env python3\r\n", vec!["/usr/bin/env", "python3"]),
            ("#!/usr/bin/env -S python3  -u \n", vec!["/usr/bin/env", "-S python3  -u"]),
            ("#!/bin/sh -e -x", vec!["/bin/sh", "-e -x"]),
            ("#!/usr/bin/env -S uv run --script\n", vec!["python3", "-u"]),
            ("#!\n/bin/sh", vec!["python3", "-u"]),
            ("#!  \r\n", vec!["python3", "-u"]),
            (" #!/bin/sh", vec!["python3", "-u"]),
            ("\u{feff}#!/bin/sh", vec!["python3", "-u"]),
            ("", vec!["python3", "-u"]),
        ] {
            assert_eq!(chosen(None, script), words, "{script:?}");
        }
    }

    #[test]
    fn pythons_are_known_by_name() {
        for name in ["python", "python3", "python3.13", "/usr/bin/python3"] {
            assert!(is_python(OsStr::new(name)), "{name}");
        }
        for name in ["python2", "python3.", "python3.x", "pypy3", "/python3/sh", "env", "python3-dbg"] {
            assert!(!is_python(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn python_is_seen_through_env() {
        let of = |words: &[&str]| {
            python_of(&words.iter().map(OsString::from).collect::<Vec<_>>())
                .map(|word| word.into_string().unwrap())
        };
        assert_eq!(of(&["/usr/bin/python3.12", "-u"]).unwrap(), "/usr/bin/python3.12");
        for words in
            [&["/usr/bin/env", "python3"][..], &["env", "-S python3 -u"], &["env", "-i", "A=b", "-Spython3"]]
        {
            assert_eq!(of(words).unwrap(), "python3", "{words:?}");
        }
        for words in [&["sh"][..], &["/usr/bin/env"], &["env", "sh", "python3"], &["sh", "python3"], &[]] {
            assert_eq!(of(words), None, "{words:?}");
        }
    }
}
