//! Hides passwords of URLs in what installers print and in what is said about them. Pure.

use std::ops::Range;

const STARS: &[u8] = b"***";
/// A shorter password would hide ordinary words wherever they stand.
const MIN_SECRET_BYTES: usize = 4;
/// A longer line is masked in pieces.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// What is hidden: the credentials of any URL, and wherever they stand the passwords that it knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mask {
    secrets: Vec<Vec<u8>>,
}

impl Mask {
    /// Knows the passwords of all URLs in the texts, as they are written and as they are meant.
    pub(crate) fn of<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut secrets = Vec::new();
        for text in texts {
            for range in credentials(text) {
                let user_and_password = &text[range];
                let colon = user_and_password.iter().position(|&byte| byte == b':');
                let password = colon.map_or(user_and_password, |colon| &user_and_password[colon + 1..]);
                secrets.extend([password.to_vec(), percent_decoded(password)]);
            }
        }
        secrets.retain(|secret| secret.len() >= MIN_SECRET_BYTES);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    /// The text with stars for what is hidden.
    pub(crate) fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut masked = Vec::with_capacity(text.len());
        let mut copied = 0;
        for range in credentials(text) {
            masked.extend_from_slice(&text[copied..range.start]);
            masked.extend_from_slice(STARS);
            copied = range.end;
        }
        masked.extend_from_slice(&text[copied..]);
        self.secrets.iter().fold(masked, |text, secret| replaced(&text, secret))
    }
}

/// A stream that is masked line by line: a secret may arrive in two pieces.
pub(crate) struct MaskedLines {
    mask: Mask,
    held: Vec<u8>,
}

impl MaskedLines {
    pub(crate) fn new(mask: Mask) -> Self {
        Self { mask, held: Vec::new() }
    }

    /// What can be passed on now that this has arrived.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(chunk);
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let whole = match self.held.iter().rposition(is_end) {
            Some(end) => end + 1,
            None if self.held.len() > MAX_LINE_BYTES => self.held.len(),
            None => 0,
        };
        let rest = self.held.split_off(whole);
        let whole = std::mem::replace(&mut self.held, rest);
        self.mask.apply(&whole)
    }

    /// What was held back when the stream ended.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.mask.apply(&std::mem::take(&mut self.held))
    }
}

/// Where `user:password` stands in URLs.
fn credentials(text: &[u8]) -> Vec<Range<usize>> {
    const MARK: &[u8] = b"://";
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].windows(MARK.len()).position(|window| window == MARK) {
        let start = from + at + MARK.len();
        let ends_authority = |byte: &u8| {
            byte.is_ascii_whitespace() || matches!(byte, b'/' | b'"' | b'\'' | b'`' | b'<' | b'>')
        };
        let length = text[start..].iter().position(ends_authority).unwrap_or(text.len() - start);
        if let Some(end) = text[start..start + length].iter().rposition(|&byte| byte == b'@') {
            found.push(start..start + end);
        }
        from = start;
    }
    found
}

fn replaced(text: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(secret) {
            masked.extend_from_slice(STARS);
            rest = after;
        } else {
            masked.push(*first);
            rest = others;
        }
    }
    masked
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, others @ ..] = rest {
        match rest {
            [b'%', high, low, after @ ..] if digit(*high).is_some() && digit(*low).is_some() => {
                decoded.push(digit(*high).unwrap_or(0) * 16 + digit(*low).unwrap_or(0));
                rest = after;
            }
            _ => {
                decoded.push(*first);
                rest = others;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(mask: &Mask, text: &str) -> String {
        String::from_utf8(mask.apply(text.as_bytes())).unwrap()
    }

    #[test]
    fn credentials_of_any_url_are_hidden() {
        let mask = Mask::default();
        for (text, shown) in [
            ("get https://u:p@h/simple/ x", "get https://***@h/simple/ x"),
            ("https://token@h", "https://***@h"),
            ("'http://u:a@b?c#d@h:8/x' http://h/a@b", "'http://***@h:8/x' http://h/a@b"),
            ("git+ssh://git@h/x mail a@b.c ://", "git+ssh://***@h/x mail a@b.c ://"),
        ] {
            assert_eq!(masked(&mask, text), shown);
        }
    }

    #[test]
    fn known_passwords_are_hidden_wherever_they_stand() {
        let mask = Mask::of([&b"https://me:s%40cret@h https://h:x@y"[..]]);
        assert_eq!(masked(&mask, "s%40cret or s@cret of me, x"), "*** or *** of me, x");
    }

    #[test]
    fn secrets_in_pieces_are_hidden() {
        let mut lines = MaskedLines::new(Mask::default());
        let mut shown = Vec::new();
        for chunk in ["a http", "s://u:p", "w@h/\nb ht", "tp://u@h"] {
            shown.extend(lines.feed(chunk.as_bytes()));
        }
        assert_eq!(shown, b"a https://***@h/\n");
        assert_eq!(lines.rest(), b"b http://***@h");
    }
}
