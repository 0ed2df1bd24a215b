//! Turns any bytes that a script printed into text that is safe in a status, a log or a terminal. Pure.

/// Text of the bytes with everything harmful made visible or harmless: broken UTF-8 becomes U+FFFD, `\r\n` becomes `\n`,
/// other C0 controls except tab and newline become their control pictures (U+2400 to U+241F, DEL U+2421), C1 controls,
/// bidirectional controls, line and paragraph separators and byte order marks become U+FFFD.
pub fn make_harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\r' if chars.peek() == Some(&'\n') => {}
            other => clean.push(harmless_char(other)),
        }
    }
    clean
}

fn harmless_char(char: char) -> char {
    match char {
        '\n' | '\t' => char,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(char)).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' => '\u{fffd}',
        other => other,
    }
}

/// The last `limit` bytes of the text, moved forward to the next character boundary.
pub fn tail(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut start = text.len() - limit;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// The first `limit` bytes of the text, moved back to the previous character boundary.
pub fn head(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn controls_become_visible_and_text_stays() {
        assert_eq!(
            make_harmless(b"a\tb\r\nc\rd\x1b[31m\x00\x7f"),
            "a\tb\nc\u{240d}d\u{241b}[31m\u{2400}\u{2421}"
        );
        assert_eq!(make_harmless("\u{202e}x\u{85}\u{2028}".as_bytes()), "\u{fffd}x\u{fffd}\u{fffd}");
        assert_eq!(make_harmless(b"\xff\xfeok"), "\u{fffd}\u{fffd}ok");
        assert_eq!(make_harmless("Grüße 🦀".as_bytes()), "Grüße 🦀");
    }

    #[test]
    fn cuts_fall_on_character_boundaries() {
        assert_eq!(tail("äöü", 3), "ü");
        assert_eq!(head("äöü", 3), "ä");
        assert_eq!(tail("abc", 9), "abc");
    }

    proptest! {
        #[test]
        fn any_bytes_become_text_without_controls(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let clean = make_harmless(&bytes);
            prop_assert!(clean.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
            prop_assert_eq!(make_harmless(clean.as_bytes()), clean);
        }
    }
}
