//! What a script wrote to its result file: one JSON value, bounded and harmless, or why it is not one. Pure.

use std::{collections::BTreeSet, fmt};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{digest::sha256_hex, reason::NodeReason, text::make_harmless};

/// Longest result as compact JSON, in bytes.
pub const MAX_RESULT_BYTES: usize = 1024;
/// Longest file that is read for a result; white space may make it longer than the result.
pub const MAX_RESULT_FILE_BYTES: usize = 8192;
/// How many arrays and objects may stand in each other.
pub const MAX_RESULT_DEPTH: usize = 8;
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

/// Why a file is no result; says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not UTF-8, or not one JSON value.
    #[error("the result file does not hold one JSON value: {0}")]
    Parse(String),
    /// Too long.
    #[error("the result is {0} bytes long, at most {MAX_RESULT_BYTES} are kept; write a shorter one")]
    Length(usize),
    /// Too deep.
    #[error("the result is more than {MAX_RESULT_DEPTH} levels deep; write a flatter one")]
    Depth,
}

/// Reads a result file. Numbers must be within 64-bit integers or finite doubles, keys of an object must differ; control
/// characters in texts are made visible.
pub fn parse(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.len() > MAX_RESULT_FILE_BYTES {
        return Err(Error::Length(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Error::Parse(error.to_string()))?;
    let strict: Strict = serde_json::from_str(text).map_err(|error| Error::Parse(error.to_string()))?;
    checked(strict.0)
}

/// A result as it came from a runner, whatever that is: what is no result is dropped, and the reason says so where there is
/// no other. `null` is the same as no result: the status could not tell them apart.
pub fn received(result: Option<Value>, reason: &mut String) -> Option<Value> {
    match result.map(checked) {
        Some(Ok(value)) => Some(value).filter(|value| !value.is_null()),
        Some(Err(_)) if reason.is_empty() => {
            NodeReason::ResultInvalid.as_str().clone_into(reason);
            None
        }
        Some(Err(_)) | None => None,
    }
}

/// The first 16 digits of the SHA-256 of the value as compact JSON with sorted keys.
pub fn digest(value: &Value) -> String {
    sha256_hex(value.to_string().as_bytes()).chars().take(16).collect()
}

/// Checks a value that came as JSON already, and makes its texts harmless.
pub fn checked(value: Value) -> Result<Value, Error> {
    let value = harmless(value, 0)?;
    let length = value.to_string().len();
    if length > MAX_RESULT_BYTES { Err(Error::Length(length)) } else { Ok(value) }
}

fn harmless(value: Value, depth: usize) -> Result<Value, Error> {
    let inner = depth + 1;
    if matches!(value, Value::Array(_) | Value::Object(_)) && inner > MAX_RESULT_DEPTH {
        return Err(Error::Depth);
    }
    Ok(match value {
        Value::Null | Value::Bool(_) => value,
        Value::Number(number) => Value::Number(within_bounds(number)?),
        Value::String(text) => Value::String(make_harmless(text.as_bytes())),
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| harmless(item, inner)).collect::<Result<_, _>>()?)
        }
        Value::Object(members) => {
            let mut clean = Map::new();
            for (key, member) in members {
                let key = make_harmless(key.as_bytes());
                // Two keys may look the same only after the cleaning.
                if clean.insert(key.clone(), harmless(member, inner)?).is_some() {
                    return Err(Error::Parse(format!("duplicate key {key:?}")));
                }
            }
            Value::Object(clean)
        }
    })
}

/// The API server keeps integers in 64 bits with a sign, and everything else as a finite double, of which it writes a whole
/// one as an integer: so does this, or what is stored would be another value than what was sent.
fn within_bounds(number: Number) -> Result<Number, Error> {
    if number.is_i64() {
        return Ok(number);
    }
    match number.as_f64() {
        Some(value) if !number.is_u64() && value.is_finite() && value.fract() != 0.0 => Ok(number),
        Some(value) if !number.is_u64() && value.abs() < TWO_TO_63 => {
            #[expect(clippy::cast_possible_truncation, reason = "it is whole, and within the bounds")]
            let whole = value as i64;
            Ok(whole.into())
        }
        Some(_) | None => Err(Error::Parse(format!("number {number} does not fit into 64 bits"))),
    }
}

/// A JSON value whose objects have each key once. The default of the library keeps the last of equal keys.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // Digits that do not fit into an integer arrive here, rounded.
        if value.fract() == 0.0 && value.abs() >= TWO_TO_63 {
            return Err(E::custom("a number does not fit into 64 bits"));
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut seen = BTreeSet::new();
        let mut map = Map::new();
        while let Some((key, Strict(member))) = members.next_entry::<String, Strict>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            map.insert(key, member);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::hostile::{documents, texts};

    #[test]
    fn one_bounded_value_is_a_result() {
        for (text, stored) in [
            ("{\"b\": 1, \"a\": [true, null, \"x\"]}\n", "{\"a\":[true,null,\"x\"],\"b\":1}"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775807", "9223372036854775807"),
            (" 1.5e3 ", "1500"),
            ("[-0.0, 1e-7, 2.0]", "[0,1e-7,2]"),
            ("\"\\u001b[31mred\"", "\"␛[31mred\""),
            ("[[[[[[[[]]]]]]]]", "[[[[[[[[]]]]]]]]"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), stored, "{text}");
        }
    }

    #[test]
    fn what_a_stranger_sends_is_dropped_with_a_reason() {
        let received = |value: Value, reason: &str| {
            let mut reason = reason.to_owned();
            (received(Some(value), &mut reason), reason)
        };
        let deep = (0..9).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        for hostile in [Value::from("x".repeat(2_000)), deep, u64::MAX.into(), 1e19.into()] {
            assert_eq!(received(hostile.clone(), ""), (None, "ResultInvalid".to_owned()), "{hostile}");
            assert_eq!(received(hostile, "ScriptFailed"), (None, "ScriptFailed".to_owned()));
        }
        assert_eq!(received(Value::Null, ""), (None, String::new()));
        assert_eq!(received("\u{1b}".into(), ""), (Some("\u{241b}".into()), String::new()));
    }

    #[test]
    fn digest_is_of_the_value_and_not_of_its_spelling() {
        let of = |text: &str| digest(&parse(text.as_bytes()).unwrap());
        assert_eq!(of("{\"a\": 1, \"b\": 2.0}"), of("{ \"b\":2,\"a\":1 }"));
        assert_ne!(of("[1]"), of("[\"1\"]"));
        assert_eq!(of("0").len(), 16);
    }

    proptest! {
        /// A status is read back and compared: a number that changed on the way would be written for ever, and two nodes with
        /// the same answer would be in two groups.
        #[test]
        fn any_result_is_read_back_as_it_was_written(number in any::<f64>(), text in any::<String>()) {
            let file = serde_json::to_vec(&json!({"number": number, "text": text})).unwrap();
            if let Ok(value) = parse(&file) {
                let stored: Value = serde_json::from_str(&value.to_string()).unwrap();
                prop_assert_eq!(&stored, &value);
                prop_assert_eq!(checked(stored), Ok(value));
            }
        }
    }

    #[test]
    fn the_corpus_is_kept_harmless_or_not_at_all() {
        for text in texts() {
            let file = serde_json::to_vec(&json!({text.clone(): [text.clone()]})).unwrap();
            let kept = parse(&file).unwrap().as_object().unwrap().clone();
            let (key, value) = kept.iter().next().unwrap();
            for kept in [key.as_str(), value[0].as_str().unwrap()] {
                assert_eq!(kept, make_harmless(text.as_bytes()));
            }
        }
        let kept: Vec<Value> = documents().iter().filter_map(|document| parse(document).ok()).collect();
        assert_eq!(
            kept,
            [
                json!("\u{2400}\u{241b}[2J\\u{9b}\\u{202e}\\u{200b}\\u{e0041}"),
                json!({"\\u{202e}\u{2400}": {"\u{241b}]52;c;eA==\u{2407}": "\\u{85}"}}),
                json!(0),
                json!({"__proto__": {"a": 1}}),
            ]
        );
    }

    #[test]
    fn hostile_files_are_no_results_and_say_why() {
        let long = format!("\"{}\"", "x".repeat(MAX_RESULT_BYTES));
        let huge = " ".repeat(MAX_RESULT_FILE_BYTES + 1);
        let deep = "[".repeat(100_000);
        for (bytes, word) in [
            (&b""[..], "EOF"),
            (b"nothing", "expected"),
            (b"{} {}", "trailing"),
            (b"NaN", "expected"),
            (b"Infinity", "expected"),
            (b"1e999", "number"),
            (b"9223372036854775808", "64 bits"),
            (b"-9223372036854775809", "64 bits"),
            (b"123456789012345678901234567890", "64 bits"),
            (b"{\"a\": 1, \"a\": 2}", "duplicate key"),
            (b"{\"\\u0000\": 1, \"\\\\x00\": 2}", ""),
            (b"\"\xff\"", "utf-8"),
            (b"[[[[[[[[[]]]]]]]]]", "levels deep"),
            (long.as_bytes(), "at most 1024"),
            (huge.as_bytes(), "at most 1024"),
            (deep.as_bytes(), "at most 1024"),
        ] {
            match parse(bytes) {
                Err(error) => assert!(error.to_string().contains(word), "{error}"),
                Ok(value) => assert!(word.is_empty(), "{value}"),
            }
        }
    }
}
