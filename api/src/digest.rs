//! SHA-256 as lower-case hexadecimal text, and the digests that stand in names and results. Pure.

use sha2::{Digest, Sha256};

/// Lower-case hexadecimal SHA-256 of the bytes, 64 characters.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hexadecimal text of the bytes.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)] as char, DIGITS[usize::from(byte & 15)] as char])
        .collect()
}

/// Sees all bytes of one stream, also those that are not kept.
#[derive(Clone, Default)]
pub struct StreamDigest {
    hash: Sha256,
    bytes: u64,
}

impl StreamDigest {
    /// Takes the next bytes of the stream.
    pub fn update(&mut self, chunk: &[u8]) {
        self.hash.update(chunk);
        self.bytes = self.bytes.saturating_add(chunk.len() as u64);
    }

    /// Bytes seen so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Digest of one execution's whole answer: 16 hexadecimal digits of SHA-256 over how it ended (exit code, or `signal N`),
/// NUL, the length of stdout, and the SHA-256 of stdout and of stderr. The streams enter by their own hashes because
/// they arrive interleaved and are not kept whole.
pub fn answer_digest(ending: &str, stdout: &StreamDigest, stderr: &StreamDigest) -> String {
    let mut hash = Sha256::new();
    hash.update(ending.as_bytes());
    hash.update([0]);
    hash.update(stdout.bytes.to_string().as_bytes());
    hash.update([0]);
    hash.update(stdout.hash.clone().finalize());
    hash.update(stderr.hash.clone().finalize());
    let mut text = hex(&hash.finalize());
    text.truncate(16);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> StreamDigest {
        let mut digest = StreamDigest::default();
        digest.update(text.as_bytes());
        digest
    }

    #[test]
    fn sha256_of_nothing_is_the_known_value() {
        assert_eq!(sha256_hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn answers_differ_by_ending_and_by_stream() {
        let base = answer_digest("0", &stream("a"), &stream("b"));
        assert_eq!(base.len(), 16);
        assert_eq!(base, answer_digest("0", &stream("a"), &stream("b")));
        for other in [
            answer_digest("1", &stream("a"), &stream("b")),
            answer_digest("0", &stream("ab"), &stream("")),
            answer_digest("0", &stream(""), &stream("ab")),
            answer_digest("0", &stream("b"), &stream("a")),
        ] {
            assert_ne!(base, other);
        }
    }
}
