use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::sync::mpsc;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);
const HEAD: &str = "GET /v1/session HTTP/1.1\r\n\r\n";
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// An authority, and a certificate for `localhost` that it signed.
fn identity() -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let serving =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    Identity { certificate: serving.pem(), key: key.serialize_pem(), authorities: pem }
}

/// Says back what it hears, and tells how many connections it had.
async fn echo() -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            sender.send(()).unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    (address, receiver)
}

async fn proxy(upstream: SocketAddr) -> SessionProxy {
    SessionProxy::start([127, 0, 0, 1].into(), upstream).await.unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    crate::wait::until(what, DEADLINE, async |_| Ok::<_, Infallible>(is_so().then_some(()))).await.unwrap();
}

/// What is read next; empty when the connection has ended.
async fn heard(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut buffer = [0; 64];
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..read.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn a_cut_ends_what_is_there_and_what_comes() {
    let (upstream, _connections) = echo().await;
    let proxy = proxy(upstream).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"one").await.unwrap();
    assert_eq!(heard(&mut stream).await, "one");
    proxy.set(Link::Cut);
    assert_eq!(heard(&mut stream).await, "");
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(heard(&mut stream).await, "");
    assert_eq!((proxy.opened(), proxy.broken(), proxy.stalled()), (1, 2, 0));
    proxy.set(Link::Open);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    stream.write_all(b"two").await.unwrap();
    assert_eq!(heard(&mut stream).await, "two");
}

#[tokio::test]
async fn a_stall_keeps_connections_and_passes_nothing() {
    let (upstream, mut connections) = echo().await;
    let proxy = proxy(upstream).await;
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    old.write_all(b"one").await.unwrap();
    assert_eq!(heard(&mut old).await, "one");
    proxy.set(Link::Stalled);
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    old.write_all(b"two").await.unwrap();
    new.write_all(b"three").await.unwrap();
    until("both to be kept back", || proxy.stalled() == 2).await;
    connections.recv().await.unwrap();
    assert!(connections.try_recv().is_err(), "the second has not reached the operator");
    proxy.set(Link::Open);
    assert_eq!((heard(&mut old).await, heard(&mut new).await), ("two".into(), "three".into()));
    assert_eq!((proxy.opened(), proxy.broken()), (2, 0));
}

#[tokio::test]
async fn stranded_connections_stay_and_new_ones_pass() {
    let (upstream, _connections) = echo().await;
    let proxy = proxy(upstream).await;
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    old.write_all(b"one").await.unwrap();
    assert_eq!(heard(&mut old).await, "one");
    proxy.strand();
    old.write_all(b"two").await.unwrap();
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    new.write_all(b"three").await.unwrap();
    assert_eq!(heard(&mut new).await, "three");
    until("the piece to be kept back", || proxy.stalled() == 1).await;
    let mut buffer = [0; 1];
    assert!(tokio::time::timeout(Duration::from_millis(50), old.read(&mut buffer)).await.is_err());
    assert_eq!(proxy.broken(), 0);
}

/// A door that speaks TLS and answers a session's head; then says what the test tells it to, and tells what it hears.
async fn door(
    identity: &Identity,
) -> (SocketAddr, mpsc::UnboundedSender<Vec<u8>>, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (acceptor, _) = identity.tls().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (says, mut orders) = mpsc::unbounded_channel::<Vec<u8>>();
    let (tells, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut request = Vec::new();
        let length = read_head(&mut stream, &mut request).await.unwrap();
        stream.write_all(ACCEPTED.as_bytes()).await.unwrap();
        tells.send(request[length..].to_vec()).unwrap();
        loop {
            let mut chunk = Vec::new();
            tokio::select! {
                read = stream.read_buf(&mut chunk) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => tells.send(chunk).unwrap(),
                },
                Some(bytes) = orders.recv() => {
                    stream.write_all(&bytes).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
        }
    });
    (address, says, heard)
}

fn frame(text: &str) -> Vec<u8> {
    [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// Exactly so many bytes.
async fn read(stream: &mut (impl AsyncRead + Unpin), length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut buffer)).await.unwrap().unwrap();
    buffer
}

#[tokio::test]
async fn with_the_operators_certificate_frames_are_seen_stopped_repeated_and_swallowed() {
    let identity = identity();
    let (upstream, says, mut hears) = door(&identity).await;
    let proxy = proxy(upstream).await;
    proxy.impersonate(&identity).unwrap();
    let (_, connector) = identity.tls().unwrap();
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    // The first frame comes with the head.
    stream.write_all(&[HEAD.as_bytes(), &frame("hello")].concat()).await.unwrap();
    assert_eq!(read(&mut stream, ACCEPTED.len()).await, ACCEPTED.as_bytes());
    let mut first = hears.recv().await.unwrap();
    if first.is_empty() {
        first = hears.recv().await.unwrap();
    }
    assert_eq!(first, frame("hello"));

    let twice = proxy.inject(|frame| frame.text == "twice", Turn::every(), FrameFault::Repeat);
    let never = proxy.inject(|frame| frame.text == "never", Turn::every(), FrameFault::Swallow);
    stream.write_all(&[frame("never"), frame("twice"), frame("once")].concat()).await.unwrap();
    let expected = [frame("twice"), frame("twice"), frame("once")].concat();
    let mut found = Vec::new();
    while found.len() < expected.len() {
        found.extend(tokio::time::timeout(DEADLINE, hears.recv()).await.unwrap().unwrap());
    }
    assert_eq!((found, twice.hits(), never.hits()), (expected, 1, 1));

    let is_ack = |frame: &Frame| frame.from == Side::Operator && frame.text == "ack";
    let mut after = proxy.stop(is_ack, Turn::nth(1), Moment::After);
    let mut before = proxy.stop(is_ack, Turn::nth(2), Moment::Before);
    says.send([frame("ack"), frame("ack")].concat()).unwrap();
    let stopped = after.reached(DEADLINE).await.unwrap();
    assert_eq!(stopped.what, Frame { from: Side::Operator, connection: 1, text: "ack".into() });
    assert_eq!(read(&mut stream, 5).await, frame("ack"), "it has been delivered");
    stopped.go_on();
    drop(before.reached(DEADLINE).await.unwrap());
    assert_eq!(heard(&mut stream).await, "", "the second was not, and the connection has ended");
}

#[tokio::test]
async fn a_refusal_passes_as_it_is() {
    let identity = identity();
    let (acceptor, connector) = identity.tls().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let proxy = proxy(listener.local_addr().unwrap()).await;
    proxy.impersonate(&identity).unwrap();
    let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 5\r\n\r\nabcde";
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        read_head(&mut stream, &mut Vec::new()).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    stream.write_all(HEAD.as_bytes()).await.unwrap();
    let mut found = String::new();
    tokio::time::timeout(DEADLINE, stream.read_to_string(&mut found)).await.unwrap().unwrap();
    assert_eq!(found, answer);
}
