//! Short texts that stand for a content. Pure.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The SHA-256 of `content` in hexadecimal digits.
pub(crate) fn sha256(content: impl AsRef<[u8]>) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(content) {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_padded() {
        assert_eq!(sha256("").len(), 64);
        assert!(sha256("").starts_with("e3b0c44298fc1c14"));
    }
}
