//! WebSocket frames (RFC 6455, section 5.2), as far as a proxy needs them: where one ends and what text it carries. Pure.

use std::io;

/// No session has a longer frame; a length above it is a broken stream and not something to wait for.
const MAX_FRAME_BYTES: u64 = 4 * 1024 * 1024;
/// Opcode of a frame of text.
const TEXT: u8 = 1;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The runner, who opened the connection.
    Runner,
    /// The operator.
    Operator,
}

/// A frame of text that came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Who sent it.
    pub from: Side,
    /// Which connection it came by, counted from 1.
    pub connection: u64,
    /// What it says.
    pub text: String,
}

/// The frame at the beginning of `bytes`: its length, and its text if it carries text. None while it is not whole.
pub(super) fn split(bytes: &[u8]) -> io::Result<Option<(usize, Option<String>)>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    let (length, rest) = match second & 0x7f {
        126 => match rest {
            [a, b, rest @ ..] => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            _ => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        short => (u64::from(short), rest),
    };
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let (mask, rest) = if second & 0x80 == 0 {
        ([0; 4], rest)
    } else {
        match rest.split_first_chunk::<4>() {
            Some((mask, rest)) => (*mask, rest),
            None => return Ok(None),
        }
    };
    let Some(payload) = rest.get(..length) else { return Ok(None) };
    let whole = bytes.len() - rest.len() + length;
    let text = (first & 0x0f == TEXT).then(|| {
        let plain: Vec<u8> =
            payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        String::from_utf8_lossy(&plain).into_owned()
    });
    Ok(Some((whole, text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_are_split() {
        // The masked "Hello" of RFC 6455, section 5.7.
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(split(&hello).unwrap(), Some((11, Some("Hello".to_owned()))));
        let long = |length: usize, head: &[u8]| [head, "x".repeat(length).as_bytes(), &[0x89, 0]].concat();
        for (length, head) in [
            (125, vec![0x81, 125]),
            (300, vec![0x81, 126, 1, 44]),
            (70_000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 17, 112]),
        ] {
            let bytes = long(length, &head);
            let (whole, text) = split(&bytes).unwrap().unwrap();
            assert_eq!((whole, text.unwrap().len()), (head.len() + length, length));
            assert_eq!(split(&bytes[whole..]).unwrap(), Some((2, None)), "a ping carries no text");
        }
    }

    #[test]
    fn a_frame_that_is_not_whole_is_waited_for() {
        let bytes = [&[0x81, 0xfe, 1, 44, 1, 2, 3, 4][..], &[7; 300]].concat();
        for end in 0..bytes.len() {
            assert_eq!(split(&bytes[..end]).unwrap(), None, "{end}");
        }
        assert!(split(&bytes).unwrap().is_some());
        assert!(split(&[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
