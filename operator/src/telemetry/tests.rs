//! Tests of the log: each event is one harmless line.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use scriptrunner_api::{
    hostile::texts,
    text::{is_harmful, make_harmless},
};
use serde_json::Value;

use super::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that these events make.
fn lines(format: LogFormat, events: impl FnOnce()) -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let registry = tracing_subscriber::registry().with(layer(format, move || writer.clone()));
    tracing::subscriber::with_default(registry, events);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

/// One event for each way in which a value can come into a line.
fn say(text: &str) {
    tracing::info!(%text, "displayed");
    tracing::info!(?text, "debugged");
    tracing::info!(text, "as text");
    tracing::info!("{text}");
    let span = tracing::info_span!("span", %text, debugged = ?text);
    let _entered = span.enter();
    tracing::info!("in a span");
}

#[test]
fn an_event_is_one_line_in_which_nothing_does_more_than_to_be_read() {
    for format in [LogFormat::Text, LogFormat::Json] {
        for text in texts() {
            let lines = lines(format, || say(&text));
            assert_eq!(lines.len(), 5, "{lines:?}");
            for line in &lines {
                assert!(!line.chars().any(is_harmful), "{line:?}");
            }
        }
    }
}

#[test]
fn json_says_what_was_said() {
    for text in texts() {
        let lines = lines(LogFormat::Json, || say(&text));
        let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told = |event: &Value, field: &str| event[field].as_str().unwrap().replace('\u{240d}', "");
        let said = make_harmless(text.as_bytes()).replace('\u{240d}', "");
        for (event, field) in [(&events[0], "text"), (&events[2], "text"), (&events[3], "message")] {
            assert_eq!(told(event, field), said);
        }
        assert_eq!(told(&events[4]["span"], "text"), said);
    }
}

#[test]
fn plain_events_stay_as_they_are() {
    let events = || tracing::warn!(node = "n1", path = r"C:\new", quoted = "\"ä\"\n", "a constant message");
    let text = lines(LogFormat::Text, events).remove(0);
    assert!(text.ends_with(r#"a constant message node="n1" path="C:\\new" quoted="\"ä\"\n""#), "{text}");
    let json: Value = serde_json::from_str(&lines(LogFormat::Json, events)[0]).unwrap();
    assert_eq!((&json["path"], &json["quoted"]), (&r"C:\new".into(), &"\"ä\"\n".into()));
    assert_eq!((&json["level"], &json["message"]), (&"WARN".into(), &"a constant message".into()));
}
