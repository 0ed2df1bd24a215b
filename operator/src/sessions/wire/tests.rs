//! Against the library's client, and against bytes that no client sends.

use futures::{SinkExt, StreamExt};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, frame::Frame},
    },
};

use super::*;

/// The server's side, and the stream of a client.
fn pair(buffer: usize) -> (Wire<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(buffer);
    (Wire::new(ours, Vec::new()), theirs)
}

async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}

/// A frame of a client.
pub(in crate::sessions) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=65_535 => {
            bytes.push(0x80 | 0x7e);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 0x7f);
            bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    let mask = [7, 77, 177, 247];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

pub(in crate::sessions) const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const LAST: u8 = 0x80;

/// What comes of these bytes, written at once.
async fn of(bytes: &[u8]) -> Result<Incoming, Error> {
    let (mut wire, mut stream) = pair(1 << 20);
    stream.write_all(bytes).await.unwrap();
    drop(stream);
    wire.next().await
}

fn word(result: Result<Incoming, Error>) -> &'static str {
    result.unwrap_err().word()
}

#[tokio::test]
async fn messages_of_the_library_arrive_and_ours_arrive_there() {
    let (mut wire, stream) = pair(700);
    let long = "ö".repeat(MAX_FROM_RUNNER_BYTES / 2);
    let theirs = tokio::spawn({
        let long = long.clone();
        async move {
            let mut client = client(stream).await;
            for text in ["", "short", &"x".repeat(126), &"y".repeat(65_535), &long] {
                client.send(Message::text(text)).await.unwrap();
            }
            client.send(Message::Ping("are you there".into())).await.unwrap();
            let mut heard = Vec::new();
            while let Some(Ok(message)) = client.next().await {
                heard.push(message);
            }
            heard
        }
    });
    for expected in ["", "short", &"x".repeat(126), &"y".repeat(65_535), &long] {
        assert_eq!(wire.next().await.unwrap(), Incoming::Text(expected.to_owned()));
    }
    assert_eq!(wire.next().await.unwrap(), Incoming::Ping(b"are you there".to_vec()));
    wire.pong(b"are you there").await.unwrap();
    let order = "z".repeat(500_000);
    for text in ["", "short", &order] {
        wire.say(text).await.unwrap();
    }
    wire.ping().await.unwrap();
    assert_eq!(wire.next().await.unwrap(), Incoming::Pong);
    wire.close().await.unwrap();
    let heard = theirs.await.unwrap();
    assert_eq!(heard[0], Message::Pong("are you there".into()));
    assert_eq!(heard[1..4], ["", "short", &order].map(Message::text));
    assert_eq!(heard[4], Message::Ping(Vec::new().into()));
    assert!(matches!(&heard[5], Message::Close(Some(close)) if u16::from(close.code) == 1000), "{heard:?}");
}

#[tokio::test]
async fn goodbye_is_heard() {
    let (mut wire, stream) = pair(700);
    let mut client = client(stream).await;
    client.close(None).await.unwrap();
    assert_eq!(wire.next().await.unwrap(), Incoming::Close);
    drop(client);
    assert_eq!(wire.next().await.unwrap_err().word(), "broken");
}

#[tokio::test]
async fn parts_make_one_message_also_with_pings_between() {
    let bytes = [
        frame(TEXT_BEGINS, b"a"),
        frame(0x89, b"ping"),
        frame(GOES_ON, b""),
        frame(GOES_ON, "ö".as_bytes().split_at(1).0),
        frame(0x8a, b""),
        frame(LAST, "ö".as_bytes().split_at(1).1),
        frame(TEXT, b"next"),
    ]
    .concat();
    let (mut wire, mut stream) = pair(1 << 16);
    stream.write_all(&bytes).await.unwrap();
    for expected in [
        Incoming::Ping(b"ping".to_vec()),
        Incoming::Pong,
        Incoming::Text("aö".to_owned()),
        Incoming::Text("next".to_owned()),
    ] {
        assert_eq!(wire.next().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn frames_that_are_too_long_are_refused_by_their_header() {
    let mut huge = vec![TEXT, 0x80 | 0x7f];
    huge.extend(u64::MAX.to_be_bytes());
    huge.extend([0; 4]);
    assert_eq!(word(of(&huge).await), "too_long");
    let most = vec![b'x'; MAX_FROM_RUNNER_BYTES];
    assert!(of(&frame(TEXT, &most)).await.is_ok());
    let header = frame(TEXT, &[&most[..], b"x"].concat());
    assert_eq!(word(of(&header[..14]).await), "too_long");
    let parts = [frame(TEXT_BEGINS, &most), frame(LAST, b"x")].concat();
    assert_eq!(word(of(&parts).await), "too_long");
}

#[tokio::test]
async fn what_breaks_the_rules_is_refused() {
    let mut unmasked = frame(TEXT, b"x");
    unmasked[1] &= 0x7f;
    for wrong in [
        unmasked,
        frame(0x82, b"binary"),
        frame(LAST, b"of nothing"),
        [frame(TEXT_BEGINS, b"a"), frame(TEXT, b"b")].concat(),
        frame(0xc1, b"extended"),
        frame(0x83, b"unknown"),
        frame(0x8b, b"unknown"),
        frame(0x09, b"half a ping"),
        frame(0x89, &[0; 126]),
        frame(TEXT, &[0xff, 0xfe]),
    ] {
        assert_eq!(word(of(&wrong).await), "no_websocket", "{wrong:?}");
    }
}

#[tokio::test]
async fn connection_that_waits_holds_no_buffer() {
    let (mut wire, mut stream) = pair(1 << 20);
    let long = vec![b'x'; MAX_FROM_RUNNER_BYTES];
    stream.write_all(&frame(TEXT, &long)).await.unwrap();
    drop(wire.next().await.unwrap());
    let nothing = timeout(Duration::from_millis(20), wire.next()).await;
    assert!(nothing.is_err());
    let held = wire.received.capacity() + wire.control.capacity() + wire.message.capacity();
    assert_eq!(held, 0);
}

#[tokio::test]
async fn memory_follows_what_has_come_and_not_what_is_promised() {
    let (mut wire, mut stream) = pair(1 << 20);
    let whole = frame(TEXT, &vec![b'x'; MAX_FROM_RUNNER_BYTES]);
    let mut sent = 0;
    for size in [100, 5_000, 40_000, whole.len()] {
        stream.write_all(&whole[sent..size]).await.unwrap();
        sent = size;
        let incoming = timeout(Duration::from_millis(20), wire.next()).await;
        assert_eq!(incoming.is_ok(), size == whole.len());
        let held = wire.received.capacity() + wire.message.capacity();
        assert!(held <= 2 * size + 2 * CHUNK_BYTES && held <= MAX_FROM_RUNNER_BYTES + CHUNK_BYTES, "{held}");
    }
}

#[tokio::test(start_paused = true)]
async fn message_that_drips_is_given_up() {
    let (mut wire, mut stream) = pair(1 << 20);
    let dripping = tokio::spawn(async move {
        let whole = frame(TEXT, &vec![b'x'; 1000]);
        for byte in whole {
            stream.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let began = Instant::now();
    assert_eq!(wire.next().await.unwrap_err().word(), "too_slow");
    assert!(began.elapsed() >= MESSAGE_TIME && began.elapsed() < MESSAGE_TIME + Duration::from_secs(2));
    dripping.abort();
}

#[tokio::test(start_paused = true)]
async fn parts_that_drip_are_given_up_whatever_comes_between() {
    let (mut wire, mut stream) = pair(1 << 20);
    let dripping = tokio::spawn(async move {
        stream.write_all(&frame(TEXT_BEGINS, b"x")).await.unwrap();
        loop {
            stream.write_all(&[frame(0x89, b""), frame(GOES_ON, b"x")].concat()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let began = Instant::now();
    let error = loop {
        if let Err(error) = wire.next().await {
            break error;
        }
    };
    assert_eq!(error.word(), "too_slow");
    assert!(began.elapsed() < MESSAGE_TIME + Duration::from_secs(2));
    dripping.abort();
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_message_may_take_as_long_as_it_likes() {
    let (mut wire, mut stream) = pair(1 << 20);
    for _ in 0..3 {
        let waiting = timeout(Duration::from_mins(10), wire.next()).await;
        assert!(waiting.is_err());
        // The beginning of the next comes with the end of this one: its time begins now.
        stream.write_all(&frame(TEXT, b"one")).await.unwrap();
        assert_eq!(wire.next().await.unwrap(), Incoming::Text("one".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn runner_that_does_not_read_is_given_up() {
    let (mut wire, mut stream) = pair(1000);
    assert_eq!(wire.say(&"x".repeat(5000)).await.unwrap_err().word(), "not_reading");
    let mut some = [0; 10];
    stream.read_exact(&mut some).await.unwrap();
}

#[test]
fn frames_of_the_library_are_those_of_these_tests() {
    let mut bytes = Vec::new();
    Frame::ping("x").format(&mut bytes).unwrap();
    assert_eq!(bytes, [0x89, 1, b'x'], "but for the mask");
}

proptest! {
    /// However messages are cut into frames and frames into reads, and whenever waiting is given up, they arrive whole.
    #[test]
    fn messages_arrive_whatever_the_pieces(
        messages in prop::collection::vec(("[a-zö]{0,300}", 1_usize..40), 1..6),
        reads in prop::collection::vec(1_usize..90, 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut bytes = Vec::new();
            for (text, size) in &messages {
                let parts: Vec<&[u8]> = text.as_bytes().chunks(*size).collect();
                let last = parts.len().max(1) - 1;
                for (number, part) in parts.iter().copied().chain(text.is_empty().then_some(&[][..])).enumerate() {
                    let first = u8::from(number == 0);
                    bytes.extend(frame(first | if number == last { 0x80 } else { 0 }, part));
                }
            }
            let (mut wire, mut stream) = pair(1 << 20);
            let (mut arrived, mut sizes, mut sent) = (Vec::new(), reads.iter().cycle(), 0);
            while sent < bytes.len() {
                let end = bytes.len().min(sent + sizes.next().unwrap());
                stream.write_all(&bytes[sent..end]).await.unwrap();
                sent = end;
                while let Some(incoming) = futures::FutureExt::now_or_never(wire.next()) {
                    arrived.push(incoming.unwrap());
                }
            }
            let expected: Vec<_> = messages.iter().map(|(text, _)| Incoming::Text(text.clone())).collect();
            prop_assert_eq!(arrived, expected);
            Ok(())
        })?;
    }

    /// Bytes that nobody means do no harm.
    #[test]
    fn junk_ends_in_an_error_or_waits(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut wire, mut stream) = pair(1 << 20);
            stream.write_all(&bytes).await.unwrap();
            drop(stream);
            while wire.next().await.is_ok() {}
        });
    }
}
