//! Knows the command line of a script that uv is to run (`#!/usr/bin/env -S uv run --script`). The dependencies are the
//! runner's to install, so such a script gets the default Python instead. Pure.

use std::ffi::OsString;

/// Options of uv that say nothing about what runs, in what and with what.
const WITHOUT_MEANING: [&str; 6] =
    ["--quiet", "--verbose", "--no-progress", "--no-project", "--no-python-downloads", SCRIPT];
const SCRIPT: &str = "--script";
/// The short names of those that have one; `s` is `--script`.
const SHORT: &str = "qvs";

/// Why a script cannot run as its `uv run` says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "\"uv run --script\" stands for the default Python, and {word:?} with it has no effect; remove it: env says what to set, dependencies or the script's inline metadata what to install, image and interpreter with which Python to run"
    )]
    KeepWord { word: String },
    #[error("\"uv run\" without --script would start the script over and over; add --script")]
    AddScript,
}

/// Whether uv is to run the script, by itself or through `env`.
pub(super) fn is_meant(command_line: &[OsString]) -> Result<bool, Error> {
    let Some(words) = command_line.iter().map(|word| word.to_str()).collect::<Option<Vec<_>>>() else {
        return Ok(false);
    };
    let mut words = words.into_iter().flat_map(str::split_ascii_whitespace).peekable();
    let mut refused = None;
    if words.next_if(|word| name(word) == "env").is_some() {
        // `-S` may stick to its argument.
        let mut words_of_env = words.by_ref().map(|word| word.strip_prefix("-S").unwrap_or(word));
        let program = words_of_env.find(|word| {
            let is_setting = word.starts_with('-') || word.contains('=');
            refused = refused.or(is_setting.then_some(*word));
            !word.is_empty() && !is_setting
        });
        if program.map(name) != Some("uv") {
            return Ok(false);
        }
    } else if words.next().map(name) != Some("uv") {
        return Ok(false);
    }
    let Some(found) = read(words) else { return Ok(false) };
    match refused.or(found.refused) {
        // What follows may be a secret.
        Some(word) if found.has_script => {
            Err(Error::KeepWord { word: word.split('=').next().unwrap_or(word).to_owned() })
        }
        // Then the next word was the option's, or a program's name.
        Some(_) => Ok(false),
        None if found.has_script => Ok(true),
        None => Err(Error::AddScript),
    }
}

fn name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// What stands after `uv`.
#[derive(Default)]
struct Found<'a> {
    is_run: bool,
    has_script: bool,
    /// The first word that means something.
    refused: Option<&'a str>,
}

/// None if uv is to do something else than to run the script, which is appended to these words.
fn read<'a>(words: impl Iterator<Item = &'a str>) -> Option<Found<'a>> {
    let mut found = Found::default();
    let mut may_be_value = false;
    for word in words {
        let short =
            word.strip_prefix('-').filter(|letters| letters.chars().all(|letter| SHORT.contains(letter)));
        let is_option = word.starts_with('-');
        let is_refused = is_option && short.is_none_or(str::is_empty) && !WITHOUT_MEANING.contains(&word);
        if !is_option && !found.is_run && word == "run" {
            found.is_run = true;
        } else if !is_option && !may_be_value {
            return None;
        }
        found.has_script |= word == SCRIPT || short.is_some_and(|letters| letters.contains('s'));
        found.refused = found.refused.or(is_refused.then_some(word));
        may_be_value = is_refused && !word.contains('=');
    }
    found.is_run.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(words: &[&str]) -> Result<bool, Error> {
        is_meant(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn uv_is_known_in_all_its_clothes() {
        for words in [
            &["/usr/bin/env", "-S uv run --script"][..],
            &["/usr/bin/env", "-S", "uv", "run", "--script"],
            &["env", "-Suv run -s"],
            &["/usr/local/bin/uv", "run --script"],
            &["uv", "run", "--quiet", "--script"],
            &["uv", "--no-progress", "-q", "run", "-vs", "--no-project"],
        ] {
            assert_eq!(meant(words), Ok(true), "{words:?}");
        }
    }

    #[test]
    fn what_is_no_script_of_uv_is_left_alone() {
        for words in [
            &[][..],
            &["env"],
            &["uv"],
            &["uv", "--script"],
            &["uv", "pip", "run", "--script"],
            &["uv", "run", "python", "-s"],
            &["uv", "run", "--script", "other.py"],
            &["uv", "run", "--with", "rich", "python", "-s"],
            &["uv", "run", "--module", "pytest"],
            &["uvx", "run", "--script"],
            &["python3", "uv", "run", "--script"],
            &["env", "-S", "python3", "uv", "run", "--script"],
        ] {
            assert_eq!(meant(words), Ok(false), "{words:?}");
        }
    }

    #[test]
    fn words_with_a_meaning_are_refused_without_their_values() {
        for (words, word) in [
            (&["uv", "run", "--with", "rich", "--script"][..], "--with"),
            (&["uv", "run", "-s", "--python=3.12"], "--python"),
            (&["uv", "run", "-s", "-p3.12"], "-p3.12"),
            (&["uv", "--directory", "/x", "run", "-s"], "--directory"),
            (&["uv", "run", "--script", "--"], "--"),
            (&["env", "-S UV_INDEX=https://u:p@x/ uv run --script"], "UV_INDEX"),
            (&["env", "-i", "uv", "run", "--script"], "-i"),
        ] {
            assert_eq!(meant(words), Err(Error::KeepWord { word: word.to_owned() }), "{words:?}");
        }
        assert_eq!(meant(&["/usr/bin/env", "-S uv run -q"]), Err(Error::AddScript));
    }
}
