//! Keeps the end of a stream, or its beginning, cleaned, and the size and digest of all of it. Pure over chunks of bytes.

use scriptrunner_api::{
    digest::StreamDigest,
    text::{head, make_harmless, tail},
};

/// Which part is kept of a stream that is longer than its limit.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The end.
    #[default]
    Tail,
    /// The beginning; the rest is counted all the same.
    Head,
}

/// More than one broken character, so that the window's first whole character is never inside the kept text.
const SLACK_BYTES: usize = 8;

/// A stream as it arrives. Its memory is bounded by the limit, whatever arrives.
pub(crate) struct Capture {
    limit: usize,
    kept: Kept,
    window: Vec<u8>,
    cut: bool,
    digest: StreamDigest,
}

/// What is kept of a stream.
#[derive(Clone)]
pub(crate) struct Captured {
    /// The last or the first bytes of the cleaned text.
    pub(crate) text: String,
    /// Size and digest of the whole stream as it came.
    pub(crate) whole: StreamDigest,
}

impl Capture {
    /// Keeps `limit` bytes of cleaned text.
    pub(crate) fn new(limit: usize, kept: Kept) -> Self {
        Self { limit, kept, window: Vec::new(), cut: false, digest: StreamDigest::default() }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.digest.update(chunk);
        // Cleaning shortens at most by half (`\r\n`), so twice the limit of raw bytes suffices.
        let keep = 2 * self.limit + SLACK_BYTES;
        match self.kept {
            Kept::Tail => self.push_to_tail(chunk, keep),
            Kept::Head => {
                let room = keep.saturating_sub(self.window.len());
                self.window.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
        }
    }

    fn push_to_tail(&mut self, chunk: &[u8], keep: usize) {
        let chunk = if chunk.len() > keep {
            self.cut = true;
            self.window.clear();
            &chunk[chunk.len() - keep..]
        } else {
            chunk
        };
        self.window.extend_from_slice(chunk);
        // Let it grow to twice the size before moving bytes, so that many small chunks cost no more than few large ones.
        if self.window.len() > 2 * keep {
            self.cut = true;
            self.window.drain(..self.window.len() - keep);
        }
    }

    pub(crate) fn finish(self) -> Captured {
        let mut window = self.window.as_slice();
        if self.cut {
            let broken = window.iter().take(3).take_while(|&&byte| byte & 0b1100_0000 == 0b1000_0000).count();
            window = &window[broken..];
        }
        let clean = make_harmless(window);
        let text = match self.kept {
            Kept::Tail => tail(&clean, self.limit),
            // A character that the window's end broke lies beyond the limit.
            Kept::Head => head(&clean, self.limit),
        };
        Captured { text: text.to_owned(), whole: self.digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn captured(chunks: &[&[u8]], limit: usize) -> Captured {
        captured_of(Kept::Tail, chunks, limit)
    }

    fn captured_of(kept: Kept, chunks: &[&[u8]], limit: usize) -> Captured {
        let mut capture = Capture::new(limit, kept);
        for chunk in chunks {
            capture.push(chunk);
        }
        capture.finish()
    }

    #[test]
    fn character_split_over_chunks_stays_whole() {
        assert_eq!(captured(&[b"a\xc3", b"\xa4\xf0\x9f", b"\xa6\x80"], 64).text, "aä🦀");
        assert_eq!(captured(&[b"a\r", b"\nb"], 64).text, "a\nb");
    }

    #[test]
    fn nothing_is_kept_with_limit_zero_but_everything_is_counted() {
        let captured = captured(&[b"hello ", b"world"], 0);
        assert_eq!((captured.text.as_str(), captured.whole.bytes()), ("", 11));
    }

    #[test]
    fn memory_is_bounded() {
        let mut capture = Capture::new(100, Kept::Tail);
        for _ in 0..1000 {
            capture.push(&[b'x'; 150]);
            assert!(capture.window.capacity() < 2000);
        }
        capture.push(&vec![b'y'; 1 << 20]);
        assert!(capture.window.capacity() < 2000);
        let captured = capture.finish();
        assert_eq!((captured.text, captured.whole.bytes()), ("y".repeat(100), 150_000 + (1 << 20)));
    }

    #[test]
    fn beginning_is_kept_whole_and_bounded_while_everything_is_counted() {
        let captured = captured_of(Kept::Head, &["aä🦀".as_bytes(), b"rest"], 6);
        assert_eq!((captured.text.as_str(), captured.whole.bytes()), ("aä", 11));
        let mut capture = Capture::new(100, Kept::Head);
        for _ in 0..1000 {
            capture.push(&[b'x'; 150]);
            assert!(capture.window.capacity() < 1000);
        }
        let captured = capture.finish();
        assert_eq!((captured.text, captured.whole.bytes()), ("x".repeat(100), 150_000));
    }

    /// Bytes that are rich in what is hard to cut: broken and whole characters, `\r\n`, controls.
    fn awkward_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            Just(b"\r\n".to_vec()),
            Just("🦀".as_bytes().to_vec()),
            Just("\u{85}".as_bytes().to_vec()),
            Just(b"\xf0\x9f\xa6".to_vec()),
            Just(b"\x80\x80\x80\x80\x80".to_vec()),
            Just(b"\x1b[0m".to_vec()),
        ];
        proptest::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn kept_text_is_the_end_or_the_beginning_of_the_whole_cleaned_text(
            bytes in awkward_bytes(),
            chunk_bytes in 1usize..70,
            limit in 0usize..90,
        ) {
            let chunks: Vec<&[u8]> = bytes.chunks(chunk_bytes).collect();
            let captured = captured(&chunks, limit);
            let whole = make_harmless(&bytes);
            prop_assert_eq!(captured.text.as_str(), tail(&whole, limit));
            prop_assert_eq!(captured.whole.bytes(), bytes.len() as u64);
            let first = captured_of(Kept::Head, &chunks, limit);
            prop_assert_eq!(first.text.as_str(), head(&whole, limit));
            prop_assert_eq!(first.whole.bytes(), bytes.len() as u64);
        }
    }
}
