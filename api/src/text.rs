//! Decides what text is harmless in a status, an Event, a log or a terminal, and makes any text so. Pure. Nothing else decides
//! this.

/// Text of the bytes with everything harmful made visible: broken UTF-8 becomes U+FFFD, `\r\n` becomes `\n`, other C0 controls
/// except tab and newline become their control pictures (U+2400 to U+241F, DEL U+2421), and what else [`is_harmful`] is written
/// out, as `\u{202e}`. A script may print such letters itself; they do nothing.
pub fn make_harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\r' if chars.peek() == Some(&'\n') => {}
            other => push_harmless(&mut clean, other),
        }
    }
    clean
}

/// The text in one line, harmless: a newline is written out as `\n`.
pub fn one_line(text: &str) -> String {
    make_harmless(text.as_bytes()).replace('\n', "\\n")
}

/// The first `limit` bytes of the harmless text. Of a longer one no more is looked at than that.
pub fn harmless_head(text: &str, limit: usize) -> String {
    // Cleaning shortens at most by half (`\r\n`), and the last character may be half of that.
    let clean = make_harmless(head(text, 2 * limit + 1).as_bytes());
    head(&clean, limit).to_owned()
}

/// Whether a character does something to what stands around it, or is there and not seen: controls but tab and newline,
/// bidirectional controls, separators of lines and paragraphs, everything that Unicode tells displays to ignore
/// (`Default_Ignorable_Code_Point`: zero-width characters, variation selectors, tags, fillers), annotations, and what is no
/// character. Emoji that are joined of several, and scripts that use joiners, show these written out.
pub fn is_harmful(char: char) -> bool {
    match char {
        '\n' | '\t' | ' '..='~' => false,
        '\u{0}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{fdd0}'..='\u{fdef}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        other => u32::from(other) & 0xfffe == 0xfffe,
    }
}

fn push_harmless(clean: &mut String, char: char) {
    match char {
        '\n' | '\t' => clean.push(char),
        '\u{0}'..='\u{1f}' => clean.push(char::from_u32(0x2400 + u32::from(char)).unwrap_or('\u{fffd}')),
        '\u{7f}' => clean.push('\u{2421}'),
        other if is_harmful(other) => clean.extend(other.escape_unicode()),
        other => clean.push(other),
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
    use crate::hostile::CORPUS;
    use proptest::prelude::*;

    #[test]
    fn controls_become_visible_and_text_stays() {
        assert_eq!(
            make_harmless(b"a\tb\r\nc\rd\x1b[31m\x00\x7f"),
            "a\tb\nc\u{240d}d\u{241b}[31m\u{2400}\u{2421}"
        );
        assert_eq!(make_harmless(b"\xff\xfeok"), "\u{fffd}\u{fffd}ok");
        for kept in
            ["Grüße 🦀", "\u{645}\u{631}\u{62d}\u{628}\u{627} שלום", "e\u{301} नमस्ते 日本\u{3000}語 \u{a0}"]
        {
            assert_eq!(make_harmless(kept.as_bytes()), kept);
        }
    }

    #[test]
    fn what_is_not_seen_is_written_out() {
        assert_eq!(
            make_harmless("\u{202e}x\u{85}\u{2028}\u{200b}\u{e0041}\u{ffff}".as_bytes()),
            "\\u{202e}x\\u{85}\\u{2028}\\u{200b}\\u{e0041}\\u{ffff}"
        );
    }

    #[test]
    fn the_corpus_is_harmful_and_becomes_harmless() {
        for (name, bytes) in CORPUS {
            let (clean, line) = (make_harmless(bytes), one_line(&String::from_utf8_lossy(bytes)));
            assert_ne!(line.as_bytes(), *bytes, "{name}");
            assert_eq!(clean.chars().find(|char| is_harmful(*char)), None, "{name}: {clean:?}");
            assert!(!line.contains('\n') && !line.chars().any(is_harmful), "{name}: {line:?}");
        }
    }

    #[test]
    fn every_control_is_harmful_and_no_letter_but_those_without_a_shape() {
        let all = || char::MIN..=char::MAX;
        assert!(all().filter(|&char| char.is_control() && char != '\n' && char != '\t').all(is_harmful));
        let letters: String = all().filter(|&char| char.is_alphanumeric() && is_harmful(char)).collect();
        assert_eq!(letters, "\u{115f}\u{1160}\u{3164}\u{ffa0}");
    }

    #[test]
    fn cuts_fall_on_character_boundaries() {
        assert_eq!(tail("äöü", 3), "ü");
        assert_eq!(head("äöü", 3), "ä");
        assert_eq!(tail("abc", 9), "abc");
    }

    #[test]
    fn lines_are_one_and_heads_are_of_the_harmless_text() {
        assert_eq!(one_line("a\r\nb\tc\n\u{1b}"), "a\\nb\tc\\n\u{241b}");
        assert_eq!(harmless_head("a\u{202e}b", 5), "a\\u{2");
    }

    proptest! {
        #[test]
        fn any_bytes_become_text_without_controls(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let clean = make_harmless(&bytes);
            prop_assert!(clean.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
            prop_assert_eq!(make_harmless(clean.as_bytes()), clean);
        }

        #[test]
        fn any_text_becomes_harmless_once_and_for_all(text in any::<String>(), limit in 0usize..100) {
            let clean = make_harmless(text.as_bytes());
            prop_assert!(!clean.chars().any(is_harmful));
            prop_assert_eq!(make_harmless(clean.as_bytes()), clean.as_str());
            prop_assert_eq!(harmless_head(&text, limit), head(&clean, limit));
            let line = one_line(&text);
            prop_assert!(!line.contains('\n') && !line.chars().any(is_harmful));
        }
    }
}
