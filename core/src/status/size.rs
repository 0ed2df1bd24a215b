//! Counts the bytes that a value takes in the API server's storage. Pure.
//!
//! Custom resources are stored as JSON that Go wrote, and Go writes `<`, `>` and `&` with six bytes each. A script that
//! prints markup would otherwise exceed the storage's limit although its object looks small here.

use std::io::{self, Write};

use scriptrunner_api::v1alpha1::ScriptRunnerStatus;
use serde::Serialize;

/// Bytes that Go's escape (`\u003c`) takes beyond the character itself.
const MORE_PER_ESCAPED: usize = 5;

/// Bytes of the value as stored: those of its JSON as serde_json writes it, and five more for each `<`, `>` and `&`.
/// U+2028 and U+2029, which Go escapes too, are not in texts that were made harmless.
pub fn stored_bytes<T: Serialize + ?Sized>(value: &T) -> usize {
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).expect("plain data should serialise");
    counter.0
}

/// Bytes of an object's field: comma, name, colon and value.
pub(crate) fn field_bytes<T: Serialize + ?Sized>(name: &str, value: &T) -> usize {
    name.len() + 4 + stored_bytes(value)
}

/// The longest end of the text whose JSON, without its quotes, takes at most `room` bytes.
pub(crate) fn tail_within(text: &str, room: usize) -> &str {
    &text[text.len() - taken(text.chars().rev(), room)..]
}

/// The longest beginning of the text whose JSON, without its quotes, takes at most `room` bytes.
pub(crate) fn head_within(text: &str, room: usize) -> &str {
    &text[..taken(text.chars(), room)]
}

/// The status without its nodes, by far its smaller part.
pub(crate) fn without_nodes(status: &ScriptRunnerStatus) -> ScriptRunnerStatus {
    let ScriptRunnerStatus {
        observed_generation,
        accepted_generation,
        object_uid,
        conditions,
        run,
        recent_runs,
        last_successful_time,
        desired,
        pending,
        active,
        succeeded,
        failed,
        skipped,
        unknown,
        failing,
        connected,
        progress,
        output_groups,
        output_group_count,
        nodes: _,
        truncation,
    } = status;
    ScriptRunnerStatus {
        observed_generation: *observed_generation,
        accepted_generation: *accepted_generation,
        object_uid: object_uid.clone(),
        conditions: conditions.clone(),
        run: run.clone(),
        recent_runs: recent_runs.clone(),
        last_successful_time: last_successful_time.clone(),
        desired: *desired,
        pending: *pending,
        active: *active,
        succeeded: *succeeded,
        failed: *failed,
        skipped: *skipped,
        unknown: *unknown,
        failing: *failing,
        connected: *connected,
        progress: progress.clone(),
        output_groups: output_groups.clone(),
        output_group_count: *output_group_count,
        nodes: std::collections::BTreeMap::new(),
        truncation: truncation.clone(),
    }
}

/// Bytes of text in the leading characters whose JSON takes at most `room` bytes.
fn taken(chars: impl Iterator<Item = char>, room: usize) -> usize {
    let (mut json, mut bytes) = (0, 0);
    for char in chars {
        json += match char {
            '"' | '\\' | '\n' | '\t' | '\r' | '\u{8}' | '\u{c}' => 2,
            '\u{0}'..='\u{1f}' => 6,
            '<' | '>' | '&' => 1 + MORE_PER_ESCAPED,
            other => other.len_utf8(),
        };
        if json > room {
            break;
        }
        bytes += char.len_utf8();
    }
    bytes
}

struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let escaped = bytes.iter().filter(|byte| matches!(byte, b'<' | b'>' | b'&')).count();
        self.0 += bytes.len() + escaped * MORE_PER_ESCAPED;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// JSON as the API server's `encoding/json` writes it.
    fn go(text: &str) -> String {
        let json = serde_json::to_string(text).unwrap();
        json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    }

    #[test]
    fn markup_counts_as_stored() {
        assert_eq!(stored_bytes("<a&b>\n\""), r#""\u003ca\u0026b\u003e\n\"""#.len());
        assert_eq!(field_bytes("stdout", "ab"), r#","stdout":"ab""#.len());
        assert_eq!((tail_within("ä<ö", 7), tail_within("ä<ö", 8), head_within("\n<", 7)), ("ö", "<ö", "\n"));
    }

    proptest! {
        #[test]
        fn cut_texts_fill_their_room(text in "[\\x00-\\x7f<>&\"äé␛🦀]{0,40}", room in 0..60_usize) {
            prop_assert_eq!(stored_bytes(text.as_str()), go(&text).len());
            for part in [tail_within(&text, room), head_within(&text, room)] {
                let bytes = go(part).len() - 2;
                prop_assert!(bytes <= room);
                prop_assert!(part == text || bytes + 6 > room);
            }
        }
    }
}
