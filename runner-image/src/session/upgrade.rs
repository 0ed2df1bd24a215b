//! From a TLS connection to a WebSocket, or to the operator's reason why not. Talks to the network.
//!
//! Done here and not by the WebSocket library, which drops the body of a refusal.

use std::io;

use httparse::{EMPTY_HEADER, Header, Response, Status};
use scriptrunner_api::session::{MAX_TO_RUNNER_BYTES, PATH, SUBPROTOCOL, ToRunner};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig},
    },
};

/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 32;
const READ_BYTES: usize = 1024;
/// Small, because an operator's worth of sessions is held in one process where load is made.
const BUFFER_BYTES: usize = 4 * 1024;

/// Why there is no session, and the operator did not say so in a frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot ask for a session: {0}")]
    Exchange(#[from] io::Error),
    #[error("the answer is not HTTP: {0}")]
    ParseHead(#[from] httparse::Error),
    #[error("the answer is too long")]
    LimitHead,
    #[error("the answer is no WebSocket of {SUBPROTOCOL:?}")]
    MatchProtocol,
    #[error("the answer is code {code} without a reason that this version knows")]
    ReadRefusal { code: u16 },
}

/// What the operator answered.
pub(super) enum Answer<S> {
    Accepted(Box<WebSocketStream<S>>),
    /// The connection is over; this is why.
    Refused(ToRunner),
}

/// The head of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    code: u16,
    accept: Option<String>,
    protocol: Option<String>,
    body_bytes: Option<usize>,
}

/// Asks for a session.
pub(super) async fn upgrade<S>(mut stream: S, host: &str, token: &str) -> Result<Answer<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let key = generate_key();
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (head, rest) = read_head(&mut stream).await?;
    if head.code != 101 {
        return read_refusal(stream, &head, rest).await.map(Answer::Refused);
    }
    let is_ours = head.accept == Some(derive_accept_key(key.as_bytes()));
    if !is_ours || head.protocol.as_deref() != Some(SUBPROTOCOL) {
        return Err(Error::MatchProtocol);
    }
    let limits = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(Some(MAX_TO_RUNNER_BYTES))
        .max_frame_size(Some(MAX_TO_RUNNER_BYTES));
    let socket = WebSocketStream::from_partially_read(stream, rest, Role::Client, Some(limits)).await;
    Ok(Answer::Accepted(Box::new(socket)))
}

/// The head, and what came after it.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Result<(Head, Vec<u8>), Error> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    loop {
        if let Some((head, length)) = parse_head(&bytes)? {
            return Ok((head, bytes.split_off(length)));
        }
        if bytes.len() >= MAX_HEAD_BYTES {
            return Err(Error::LimitHead);
        }
        read_some(stream, &mut bytes).await?;
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, httparse::Error> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut response = Response::new(&mut headers);
    let Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
    let value = |name: &str| {
        let header: &Header<'_> =
            response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(std::str::from_utf8(header.value).ok()?.trim().to_owned())
    };
    let head = Head {
        code: response.code.unwrap_or_default(),
        accept: value("Sec-WebSocket-Accept"),
        protocol: value("Sec-WebSocket-Protocol"),
        body_bytes: value("Content-Length").and_then(|length| length.parse().ok()),
    };
    Ok(Some((head, length)))
}

async fn read_refusal(
    mut stream: impl AsyncRead + Unpin,
    head: &Head,
    mut body: Vec<u8>,
) -> Result<ToRunner, Error> {
    let unreadable = Error::ReadRefusal { code: head.code };
    let Some(length) = head.body_bytes.filter(|&length| length <= MAX_TO_RUNNER_BYTES) else {
        return Err(unreadable);
    };
    while body.len() < length {
        read_some(&mut stream, &mut body).await?;
    }
    let frame = std::str::from_utf8(&body[..length]).ok().and_then(|text| ToRunner::decode(text).ok());
    frame.ok_or(unreadable)
}

async fn read_some(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.reserve(READ_BYTES);
    match stream.read_buf(bytes).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// Answers in pieces of a few bytes, as a network may.
    async fn answered(answer: &str) -> Result<Answer<DuplexStream>, Error> {
        let (ours, mut theirs) = duplex(7);
        let answer = answer.to_owned();
        let server = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(theirs.read_buf(&mut request).await.unwrap(), 0);
            }
            let request = String::from_utf8(request).unwrap();
            let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().split("\r\n").next().unwrap();
            let answer = answer.replace("ACCEPT", &derive_accept_key(key.as_bytes()));
            // The client may have had enough before the end.
            let _ = theirs.write_all(answer.as_bytes()).await;
            request
        });
        let result = upgrade(ours, "door.svc", "a.b.c").await;
        let request = server.await.unwrap();
        assert!(request.starts_with("GET /v1/session HTTP/1.1\r\nHost: door.svc\r\n"), "{request}");
        assert!(request.contains("\r\nAuthorization: Bearer a.b.c\r\n"), "{request}");
        assert!(request.contains("\r\nSec-WebSocket-Protocol: scriptrunner.v1\r\n"), "{request}");
        result
    }

    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n";

    #[tokio::test]
    async fn accepted_only_with_the_right_key_and_protocol() {
        let good = format!(
            "{SWITCH}sec-websocket-accept: ACCEPT\r\nsec-websocket-protocol: scriptrunner.v1\r\n\r\n"
        );
        assert!(matches!(answered(&good).await, Ok(Answer::Accepted(_))));
        for wrong in [
            good.replace("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            good.replace("scriptrunner.v1", "scriptrunner.v2"),
            format!("{SWITCH}\r\n"),
        ] {
            assert!(matches!(answered(&wrong).await, Err(Error::MatchProtocol)), "{wrong}");
        }
    }

    #[tokio::test]
    async fn refusal_says_why() {
        let body = ToRunner::RetryAfter { millis: 700, reason: "unknown pod".to_owned() }.encode();
        let answer =
            format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        match answered(&answer).await {
            Ok(Answer::Refused(ToRunner::RetryAfter { millis, reason })) => {
                assert_eq!((millis, reason.as_str()), (700, "unknown pod"));
            }
            Ok(_) | Err(_) => panic!("not refused as told"),
        }
    }

    #[tokio::test]
    async fn refusal_without_a_frame_is_a_failed_try() {
        for answer in [
            "HTTP/1.1 401 Unauthorized\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno!",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 99999999\r\n\r\n",
        ] {
            assert!(matches!(answered(answer).await, Err(Error::ReadRefusal { .. })), "{answer}");
        }
        assert!(matches!(
            answered("HTTP/1.1 503 X\r\nContent-Length: 10\r\n\r\n{").await,
            Err(Error::Exchange(_))
        ));
        assert!(matches!(answered("SSH-2.0-x\r\n\r\n").await, Err(Error::ParseHead(_))));
        let endless = format!("HTTP/1.1 101 X\r\na: {}", "x".repeat(2 * MAX_HEAD_BYTES));
        assert!(matches!(answered(&endless).await, Err(Error::LimitHead)));
    }
}
