//! What a hostile script, node or user may say: one list, for the tests of every crate. Pure.

/// Texts as bytes, each with a name: what terminals obey, what is not seen, what changes the order of what is seen, what
/// passes for another line of a log or of metrics, and what is no text.
pub const CORPUS: &[(&str, &[u8])] = &[
    ("CSI", b"\x1b[2J\x1b[1;1H\x1b[31mred\x1b[0m"),
    ("CSI of C1", "\u{9b}2J\u{9b}31mred".as_bytes()),
    ("CSI as one byte", b"\x9b31mred"),
    ("OSC 0, a title", b"\x1b]0;title\x07"),
    ("OSC 8, a link", b"\x1b]8;;https://example.com\x1b\\innocent\x1b]8;;\x1b\\"),
    ("OSC 52, the clipboard", b"\x1b]52;c;cm0gLXJmIC8=\x07"),
    ("OSC of C1 without an end", "\u{9d}52;c;eA==".as_bytes()),
    ("DCS", b"\x1bP$q\"p\x1b\\ \x1bP+q544e\x1b\\"),
    ("SOS, PM and APC", b"\x1bXa\x1b\\\x1b^b\x1b\\\x1b_c\x1b\\"),
    ("reset", b"\x1bc"),
    (
        "every C0 control",
        b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f",
    ),
    (
        "every C1 control",
        "\u{80}\u{81}\u{82}\u{83}\u{84}\u{85}\u{86}\u{87}\u{88}\u{89}\u{8a}\u{8b}\u{8c}\u{8d}\u{8e}\u{8f}\
         \u{90}\u{91}\u{92}\u{93}\u{94}\u{95}\u{96}\u{97}\u{98}\u{99}\u{9a}\u{9b}\u{9c}\u{9d}\u{9e}\u{9f}"
            .as_bytes(),
    ),
    ("NULs", b"\0a\0\0b\0"),
    ("overwritten", b"rm -rf /\rls      \x08\x08\x08ok\x0b\x0c"),
    ("bidi embeddings and overrides", "\u{202a}a\u{202b}b\u{202c}c\u{202d}d\u{202e}e".as_bytes()),
    ("bidi isolates and marks", "\u{2066}a\u{2067}b\u{2068}c\u{2069}d\u{200e}e\u{200f}f\u{61c}g".as_bytes()),
    ("old format controls", "\u{206a}a\u{206b}b\u{206c}c\u{206d}d\u{206e}e\u{206f}".as_bytes()),
    ("zero width", "wor\u{200b}ker\u{200c}-\u{200d}1\u{2060}\u{feff}\u{ad}\u{2061}\u{2064}".as_bytes()),
    ("invisible letters", "\u{34f}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{180e}\u{3164}\u{ffa0}".as_bytes()),
    ("variation selectors", "a\u{fe00}b\u{fe0f}c\u{e0100}d\u{e01ef}\u{180b}".as_bytes()),
    ("tags", "\u{e0001}\u{e0069}\u{e0067}\u{e006e}\u{e006f}\u{e0072}\u{e0065}\u{e007f}".as_bytes()),
    ("musical and shorthand controls", "\u{1d173}a\u{1d17a}b\u{1bca0}c\u{1bca3}".as_bytes()),
    ("annotations", "\u{fff9}a\u{fffa}b\u{fffb}".as_bytes()),
    ("separators of lines and paragraphs", "a\u{2028}b\u{2029}c\u{85}d".as_bytes()),
    ("no characters", "\u{fdd0}\u{fdef}\u{fffe}\u{ffff}\u{1fffe}\u{10ffff}".as_bytes()),
    ("broken UTF-8", b"\xff\xfe\xc3\x28\xe2\x82 \xf0\x9f\xa6 \x80\x80 \xf8\x88\x80\x80\x80"),
    ("overlong UTF-8", b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf\xc0\x80"),
    ("surrogates as UTF-8", b"\xed\xa0\x80\xed\xb0\x80"),
    ("UTF-16", b"\xff\xfeh\0i\0\x0a\0"),
    (
        "a forged line",
        b"x\n2026-01-01T00:00:00Z ERROR scriptrunner: forged\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}",
    ),
    ("a forged metric", b"x\"} 1\nscriptrunner_leader 7\n# EOF\n"),
];

/// Documents that are no result, or not one that may be kept as it is: lone surrogates, escaped controls, too deep, too
/// long, too many digits.
pub fn documents() -> Vec<Vec<u8>> {
    let short = [
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#"{"\ud83e": 1}"#,
        r#""\u0000\u001b[2J\u009b\u202e\u200b\udb40\udc41""#,
        r#"{"\u202e\u0000": {"\u001b]52;c;eA==\u0007": "\u0085"}}"#,
        r#"{"a\u200b": 1, "a\u200b": 2}"#,
        "1e999999",
        "-1e-999999",
        "{\"__proto__\": {\"a\": 1}}",
        "\u{feff}1",
    ];
    let long = [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!("{}{}", "[".repeat(200), "]".repeat(200)),
        "9".repeat(100_000),
        format!("\"{}\"", "\u{202e}".repeat(100_000)),
        format!("[{}0]", "0,".repeat(100_000)),
    ];
    let short = short.into_iter().map(str::to_owned);
    short.chain(long).map(String::into_bytes).collect()
}

/// The texts of the corpus as far as they are text: with U+FFFD for what is broken, nothing else is changed.
pub fn texts() -> impl Iterator<Item = String> {
    CORPUS.iter().map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned())
}
