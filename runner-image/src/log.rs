//! The runner's own log: plain lines on stderr, which leave stdout to the script. Never blocks.

use std::{io::Write, time::Duration};

use scriptrunner_api::text::{head, one_line};

use crate::poll::is_writable;

/// Longest line, so that writing it to a pipe with room cannot block.
const MAX_LINE_BYTES: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes one harmless line, or drops it if nobody has read stderr for a while: a full log must not stop PID 1.
pub(crate) fn line(text: &str) {
    let mut stderr = std::io::stderr();
    if !is_writable(&stderr, PATIENCE) {
        return;
    }
    let text = format!("scriptrunner: {}", one_line(text));
    let line = format!("{}\n", head(&text, MAX_LINE_BYTES - 1));
    // There is nobody left to tell.
    let _ = stderr.write_all(line.as_bytes());
}
