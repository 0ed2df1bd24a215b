//! Starts the log: constant messages, values as fields. `RUST_LOG` narrows or widens it.
//!
//! Values may come from anybody. **Invariant:** an event is one line, and nothing in it does more than to be read.

use std::fmt;

use anyhow::Context;
use scriptrunner_api::text::{is_harmful, make_harmless, one_line};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{Format, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::args::LogFormat;

/// Starts the log of the process.
pub fn start(format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    registry.with(layer(format, std::io::stdout)).try_init().context("start the log")
}

/// Writes events in this format.
fn layer<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Json => layer
            .json()
            .event_format(Harmless {
                format: Format::default().json().flatten_event(true),
                clean: harmless_json,
            })
            .boxed(),
        LogFormat::Text => {
            layer.event_format(Harmless { format: Format::default(), clean: one_line }).boxed()
        }
    }
}

/// Lines of another format, made harmless.
struct Harmless<F> {
    format: F,
    clean: fn(&str) -> String,
}

impl<S, N, F> FormatEvent<S, N> for Harmless<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{}", (self.clean)(line.trim_end_matches('\n')))
    }
}

/// The line of JSON with texts that are harmless as they stand there, and when they are read. Newlines in them stay escaped.
fn harmless_json(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let escaped = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    match escaped.filter(|char| is_harmful(*char)) {
                        Some(harmful) => push_in_json(&mut clean, harmful),
                        None => clean.extend(["\\u", &digits]),
                    }
                }
                Some('b') => push_in_json(&mut clean, '\u{8}'),
                Some('f') => push_in_json(&mut clean, '\u{c}'),
                Some('r') => push_in_json(&mut clean, '\r'),
                Some(other) => clean.extend(['\\', other]),
                None => clean.push('\\'),
            },
            '\n' => clean.push_str("\\n"),
            other if is_harmful(other) => push_in_json(&mut clean, other),
            other => clean.push(other),
        }
    }
    clean
}

fn push_in_json(clean: &mut String, harmful: char) {
    let mut bytes = [0; 4];
    clean.push_str(&make_harmless(harmful.encode_utf8(&mut bytes).as_bytes()).replace('\\', "\\\\"));
}

#[cfg(test)]
mod tests;
