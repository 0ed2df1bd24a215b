//! Accepts connections: TLS, one HTTP request, and who asks. Every step has a limit in time and number; what is refused is
//! counted.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Parts},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use scriptrunner_api::session::{PATH, SUBPROTOCOL};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    Door, connection,
    identity::Speaker,
    line::Line,
    lobby::{Guest, Received},
    refusal::Refusal,
    wire::Wire,
};
use crate::{context::Context, metrics::Metrics};

/// From the connection to its first byte.
const FIRST_BYTE_TIME: Duration = Duration::from_secs(10);
/// For the TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// For the whole request.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// For the request, the question who asks, and the answer. A runner waits as long.
const UPGRADE_TIME: Duration = Duration::from_secs(20);
/// Longest request; the least that the library takes.
const MAX_REQUEST_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 32;
/// Bytes that TLS may keep for a runner that does not read.
const TLS_BUFFER_BYTES: usize = 8 * 1024;
/// After a failure that is not of one connection, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Stream = TlsStream<TcpStream>;

/// Who asks for a session, or why there is none, in a word; and the connection once the answer has left.
struct Judged {
    speaker: Result<Arc<Speaker>, &'static str>,
    upgrade: OnUpgrade,
}

/// Accepts until the process ends.
pub(super) async fn accept(door: &Arc<Door>, listener: &TcpListener) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => welcome(door, tcp, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn welcome(door: &Arc<Door>, tcp: TcpStream, peer: SocketAddr) {
    let serving = Arc::clone(door);
    match door.lobby().receive(async move |guest| serve(&serving, tcp, peer, guest).await) {
        Received::Welcome => {}
        Received::InsteadOfOldest => refused(door, "crowded"),
        Received::Full => refused(door, "most_sessions"),
    }
}

fn refused(door: &Door, word: &'static str) {
    Metrics::count(&door.metrics().session_refusals, word);
}

async fn serve(door: &Arc<Door>, tcp: TcpStream, peer: SocketAddr, guest: Guest) {
    // Boxed: what the handshake needs is not held as long as the session.
    match Box::pin(open(door, tcp)).await {
        Ok((wire, speaker)) => {
            guest.is_known();
            let line = Arc::new(Line::new(guest.number(), speaker, Context::now()));
            connection::hold(door, wire, line).await;
        }
        Err(word) => {
            tracing::debug!(%peer, word, "connection refused");
            refused(door, word);
        }
    }
}

/// Everything up to the session; or why there is none, in a word.
async fn open(door: &Arc<Door>, tcp: TcpStream) -> Result<(Wire<Stream>, Arc<Speaker>), &'static str> {
    let tls = handshake(door, tcp).await?;
    let asked = Arc::new(Mutex::new(None));
    let service = service_fn(|request| {
        let (door, asked) = (Arc::clone(door), Arc::clone(&asked));
        async move {
            let (response, judged) = answer(&door, request).await;
            *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(judged);
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(MAX_REQUEST_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades();
    let served = timeout(UPGRADE_TIME, connection).await;
    let judged: Option<Judged> = asked.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Judged { speaker, upgrade } = judged.ok_or("no_request")?;
    let wire = match served {
        Ok(Ok(())) => upgraded(upgrade).await,
        Ok(Err(_)) | Err(_) => None,
    };
    match (speaker, wire) {
        (Ok(speaker), Some(wire)) => Ok((wire, speaker)),
        (Ok(_), None) => Err("no_upgrade"),
        (Err(word), wire) => {
            // The library lets go of a connection that asked for an upgrade without a goodbye.
            if let Some(wire) = wire {
                wire.hang_up().await;
            }
            Err(word)
        }
    }
}

/// The connection after the answer, if the request asked for an upgrade.
async fn upgraded(upgrade: OnUpgrade) -> Option<Wire<Stream>> {
    let Parts { io, read_buf, .. } = upgrade.await.ok()?.downcast::<TokioIo<Stream>>().ok()?;
    Some(Wire::new(io.into_inner(), read_buf.to_vec()))
}

async fn handshake(door: &Door, tcp: TcpStream) -> Result<Stream, &'static str> {
    // One that says nothing takes no place from those who do.
    let Ok(Ok(1)) = timeout(FIRST_BYTE_TIME, tcp.peek(&mut [0])).await else { return Err("no_first_byte") };
    // Frames are small and few; none shall wait for another.
    tcp.set_nodelay(true).map_err(|_| "tls")?;
    let place = timeout(HANDSHAKE_TIME, door.handshakes().place()).await.map_err(|_| "tls_crowded")?;
    let accepted = door.acceptor().accept_with(tcp, |tls| tls.set_buffer_limit(Some(TLS_BUFFER_BYTES)));
    tokio::select! {
        accepted = timeout(HANDSHAKE_TIME, accepted) => match accepted {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS");
                Err("tls")
            }
            Err(_) => Err("tls_slow"),
        },
        () = place.is_wanted() => Err("tls_slow"),
    }
}

async fn answer(door: &Door, mut request: Request<Incoming>) -> (Response<Full<Bytes>>, Judged) {
    let judged = judge(door, &request).await;
    let upgrade = hyper::upgrade::on(&mut request);
    match judged {
        Ok((speaker, accept)) => (switching(accept), Judged { speaker: Ok(speaker), upgrade }),
        Err(refusal) => {
            let mut response = Response::new(Full::new(Bytes::from(refusal.frame.encode())));
            *response.status_mut() = refusal.code;
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            (response, Judged { speaker: Err(refusal.word), upgrade })
        }
    }
}

fn switching(accept: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    response
}

/// Who asks, and the value that accepts the WebSocket.
async fn judge(door: &Door, request: &Request<Incoming>) -> Result<(Arc<Speaker>, HeaderValue), Refusal> {
    if request.method() != Method::GET || request.uri().path() != PATH {
        return Err(Refusal::never(StatusCode::NOT_FOUND, "path", "there is nothing but sessions here"));
    }
    if !door.leads() {
        return Err(Refusal::not_leader());
    }
    let accept = websocket(request.headers()).ok_or_else(Refusal::protocol)?;
    let token = bearer(request.headers()).ok_or_else(|| {
        Refusal::never(StatusCode::UNAUTHORIZED, "no_token", "there is no token in the request")
    })?;
    let sessions = door.sessions();
    let speaker = door.identity().identify(token, |pod_uid| sessions.is_stored(pod_uid)).await?;
    Ok((speaker, accept))
}

/// The value that accepts the WebSocket, if the request is for one of our version.
fn websocket(headers: &HeaderMap) -> Option<HeaderValue> {
    let has = |name: header::HeaderName, wanted: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let is_ours = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13")
        && has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_ours)?;
    HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(change: impl FnOnce(&mut HeaderMap)) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::UPGRADE, "WebSocket"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_PROTOCOL, "scriptrunner.v9, scriptrunner.v1"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
            (header::AUTHORIZATION, "Bearer a.b.c"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        change(&mut headers);
        headers
    }

    #[test]
    fn websocket_of_our_version_is_accepted() {
        // The key and its answer are those of RFC 6455.
        assert_eq!(websocket(&headers(|_| {})).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn anything_else_is_not() {
        for name in [
            header::CONNECTION,
            header::UPGRADE,
            header::SEC_WEBSOCKET_VERSION,
            header::SEC_WEBSOCKET_PROTOCOL,
            header::SEC_WEBSOCKET_KEY,
        ] {
            assert_eq!(websocket(&headers(|headers| drop(headers.remove(&name)))), None, "without {name}");
            let wrong = HeaderValue::from_static("scriptrunner.v2");
            if name != header::SEC_WEBSOCKET_KEY {
                assert_eq!(websocket(&headers(|headers| drop(headers.insert(&name, wrong)))), None, "{name}");
            }
        }
    }

    #[test]
    fn token_is_that_of_a_bearer() {
        assert_eq!(bearer(&headers(|_| {})), Some("a.b.c"));
        for wrong in ["Basic a.b.c", "a.b.c", "", "Bearer\u{e9}"] {
            let wrong = HeaderValue::from_bytes(wrong.as_bytes()).unwrap();
            let headers = headers(|headers| drop(headers.insert(header::AUTHORIZATION, wrong.clone())));
            assert_eq!(bearer(&headers), None, "{wrong:?}");
        }
    }
}
