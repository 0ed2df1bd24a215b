//! Finds the inline metadata of a script (PEP 723). Only its limits are found here; what it says is read by uv. Pure.

/// What a script says about its dependencies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inline {
    Absent,
    /// The first block begins and never ends, which is no block to the PEP and a mistake to uv.
    Unclosed,
    Block(String),
    Several,
}

/// Reads the script as the regular expression of the PEP does: a block is `# /// TYPE`, comment lines, and the last `# ///`
/// among these. As uv does, it also takes a block without a line between the two.
pub(super) fn find(script: &[u8]) -> Inline {
    let lines: Vec<&[u8]> =
        script.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    let is_comment = |line: &&&[u8]| **line == b"#" || line.starts_with(b"# ");
    let mut found = Inline::Absent;
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let Some(kind) = kind(line) else {
            at += 1;
            continue;
        };
        let comments = lines[at + 1..].iter().take_while(is_comment).count();
        let body = &lines[at + 1..at + 1 + comments];
        let end = body.iter().rposition(|line| *line == b"# ///");
        found = match (end, found) {
            (Some(_) | None, found) if kind != b"script" => found,
            (None, Inline::Absent) | (Some(_), Inline::Unclosed) => Inline::Unclosed,
            (None, found) => found,
            (Some(_), Inline::Block(_) | Inline::Several) => Inline::Several,
            (Some(end), Inline::Absent) => {
                Inline::Block(String::from_utf8_lossy(&body[..end].join(&b'\n')).into_owned())
            }
        };
        at += end.map_or(1, |end| end + 2);
    }
    found
}

/// The type of the block that the line begins.
fn kind(line: &[u8]) -> Option<&[u8]> {
    let kind = line.strip_prefix(b"# /// ")?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    (!kind.is_empty() && kind.iter().all(is_name)).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_as_the_pep_says() {
        let block = |text: &str| Inline::Block(text.to_owned());
        for (script, found) in [
            ("print(1)\n", Inline::Absent),
            ("# /// script\n# a = 1\n# ///\nx", block("# a = 1")),
            ("#!/usr/bin/python3\r\n# /// script\r\n# a\r\n#\r\n# ///\r\n", block("# a\n#")),
            ("# /// script\n# a\n# ///\n# b\n# ///\n", block("# a\n# ///\n# b")),
            ("# /// script\n# a\n# ///", block("# a")),
            (" # /// script\n# a\n# ///\n", Inline::Absent),
            ("# /// script \n# a\n# ///\n", Inline::Absent),
            ("# /// script\n# ///\n", block("")),
            ("# /// scripts\n# a\n", Inline::Absent),
            ("x = '# /// script'\n# a\n", Inline::Absent),
            ("# /// script\n# a\n#b\n# ///\n", Inline::Unclosed),
            ("# /// script\n# a\n\n# ///\n", Inline::Unclosed),
            ("# /// script\n# a\n# /// \n", Inline::Unclosed),
            ("# /// script\n# a\n", Inline::Unclosed),
            ("# /// script", Inline::Unclosed),
            ("# /// other\n# /// script\n# a\n# ///\n", Inline::Absent),
            ("# /// other\n# a\n# ///\n\n# /// script\n# a\n# ///\n", block("# a")),
            ("# /// script\n# a\n# ///\n\n# /// script\n# a\n# ///\n", Inline::Several),
            ("# /// script\nx\n# /// script\n# a\n# ///\n", Inline::Unclosed),
            ("# /// script\n# a\n# ///\n\n# /// script\nx\n", block("# a")),
        ] {
            assert_eq!(find(script.as_bytes()), found, "{script:?}");
        }
    }
}
