//! A proxy between runners and the operator's door: it cuts and stalls connections, and with the operator's own certificate
//! it also sees every frame.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    frames::{self, Frame, Side},
    rules::{Injection, Moment, Order, Rules, Stop, Turn, stop_here},
};
use crate::error::{Error, Result};

/// Longest head of a request or answer.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// How the way between runners and the operator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Everything passes, but on connections that were stranded.
    Open,
    /// Connections break, and new ones as soon as they are made.
    Cut,
    /// Connections stay and new ones are taken, but nothing passes: nobody is told, as behind a firewall that lost its state.
    Stalled,
}

/// What befalls connections.
#[derive(Clone, Copy, Debug)]
struct Way {
    link: Link,
    /// Connections up to this number are stranded.
    stranded: u64,
}

impl Way {
    /// Whether a connection is kept and nothing passes on it.
    fn holds(self, connection: u64) -> bool {
        match self.link {
            Link::Open => connection <= self.stranded,
            Link::Stalled => true,
            Link::Cut => false,
        }
    }

    fn is_cut(&self) -> bool {
        self.link == Link::Cut
    }
}

/// What the operator proves to runners that it is the operator with: the proxy shows it in its place.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The serving certificate and those after it, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    pub key: String,
    /// What the operator's own certificate is checked against, in PEM.
    pub authorities: String,
}

/// What is done to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// It is passed on twice.
    Repeat,
    /// It is not passed on.
    Swallow,
}

/// The proxy. It listens until it is dropped.
pub struct SessionProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<Infallible>,
}

struct Shared {
    upstream: SocketAddr,
    way: watch::Sender<Way>,
    tls: Mutex<Option<(TlsAcceptor, TlsConnector)>>,
    rules: Arc<Rules<Frame, FrameFault>>,
    accepted: AtomicU64,
    opened: AtomicU64,
    broken: AtomicU64,
    stalled: AtomicU64,
}

impl SessionProxy {
    /// Listens on `address`, any port, for what is meant for `upstream`.
    pub async fn start(address: IpAddr, upstream: SocketAddr) -> Result<Self> {
        let listener =
            TcpListener::bind((address, 0)).await.map_err(Error::call("listen for the session proxy"))?;
        let address = listener.local_addr().map_err(Error::call("ask for the session proxy's address"))?;
        let shared = Arc::new(Shared {
            upstream,
            way: watch::Sender::new(Way { link: Link::Open, stranded: 0 }),
            tls: Mutex::default(),
            rules: Arc::default(),
            accepted: AtomicU64::default(),
            opened: AtomicU64::default(),
            broken: AtomicU64::default(),
            stalled: AtomicU64::default(),
        });
        Ok(Self { address, task: tokio::spawn(listen(listener, shared.clone())), shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next connection on the proxy answers as the operator and sees frames.
    pub fn impersonate(&self, identity: &Identity) -> Result<()> {
        let tls = identity.tls().map_err(|reason| Error::Machine {
            what: format!("the session proxy cannot use the operator's certificate: {reason}"),
        })?;
        *self.shared.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls);
        Ok(())
    }

    /// Changes the way for all connections, those that are there included.
    pub fn set(&self, link: Link) {
        self.shared.way.send_modify(|way| way.link = link);
    }

    /// Lets nothing pass any more on the connections that are there, and breaks none of them. New ones pass.
    pub fn strand(&self) {
        let stranded = self.shared.accepted.load(Ordering::Relaxed);
        self.shared.way.send_modify(|way| way.stranded = stranded);
    }

    /// Does `fault` to those frames that are wanted, in their turn.
    pub fn inject(
        &self,
        wanted: impl Fn(&Frame) -> bool + Send + 'static,
        turn: Turn,
        fault: FrameFault,
    ) -> Injection {
        self.shared.rules.inject(wanted, turn, fault)
    }

    /// Stops those frames that are wanted, in their turn.
    pub fn stop(
        &self,
        wanted: impl Fn(&Frame) -> bool + Send + 'static,
        turn: Turn,
        moment: Moment,
    ) -> Stop<Frame> {
        self.shared.rules.stop(wanted, turn, moment)
    }

    /// Connections that reached the operator.
    pub fn opened(&self) -> u64 {
        self.shared.opened.load(Ordering::Relaxed)
    }

    /// Connections that were broken, or not let through, because the way was cut.
    pub fn broken(&self) -> u64 {
        self.shared.broken.load(Ordering::Relaxed)
    }

    /// New connections, and pieces of others, that were kept back because the way was stalled or they were stranded.
    pub fn stalled(&self) -> u64 {
        self.shared.stalled.load(Ordering::Relaxed)
    }
}

impl Drop for SessionProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Identity {
    fn tls(&self) -> std::result::Result<(TlsAcceptor, TlsConnector), Box<dyn std::error::Error>> {
        let certificates = |pem: &str| {
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<std::result::Result<Vec<_>, _>>()
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(
                certificates(&self.certificate)?,
                PrivateKeyDer::from_pem_slice(self.key.as_bytes())?,
            )?;
        let mut authorities = RootCertStore::empty();
        for authority in certificates(&self.authorities)? {
            authorities.add(authority)?;
        }
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(authorities)
            .with_no_client_auth();
        Ok((TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client))))
    }
}

/// Connections end with this task.
async fn listen(listener: TcpListener, shared: Arc<Shared>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(shared.clone().connect(stream))),
                // Out of file descriptors, say: those who wait see it, and it may pass.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Shared {
    async fn connect(self: Arc<Self>, runner: TcpStream) {
        let number = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let mut way = self.way.subscribe();
        let passing = async {
            self.until_free(number).await?;
            self.pass(runner, number).await
        };
        // An end by error is what a broken connection looks like from here.
        let broken = tokio::select! {
            biased;
            cut = way.wait_for(Way::is_cut) => cut.is_ok(),
            _ = passing => false,
        };
        if broken {
            self.broken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits while nothing may pass on a connection.
    async fn until_free(&self, number: u64) -> io::Result<()> {
        let mut way = self.way.subscribe();
        if way.borrow_and_update().holds(number) {
            self.stalled.fetch_add(1, Ordering::Relaxed);
        }
        way.wait_for(|way| !way.holds(number)).await.map(drop).map_err(io::Error::other)
    }

    async fn pass(&self, runner: TcpStream, number: u64) -> io::Result<()> {
        let operator = TcpStream::connect(self.upstream).await?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        let tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((acceptor, connector)) = tls else {
            return self.both_ways(number, runner, operator, [Cutter::Chunks, Cutter::Chunks]).await;
        };
        let mut runner = acceptor.accept(runner).await?;
        let name = runner.get_ref().1.server_name().unwrap_or_default().to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let mut operator = connector.connect(name, operator).await?;

        let mut asked = Vec::new();
        let head = read_head(&mut runner, &mut asked).await?;
        operator.write_all(&asked[..head]).await?;
        operator.flush().await?;
        let mut answered = Vec::new();
        let head_of_answer = read_head(&mut operator, &mut answered).await?;
        runner.write_all(&answered[..head_of_answer]).await?;
        runner.flush().await?;
        let is_session = answered.starts_with(b"HTTP/1.1 101");
        let cutter = |rest: &[u8], from| {
            let buffer = rest.to_vec();
            if is_session {
                Cutter::Frames { buffer, from, connection: number }
            } else {
                Cutter::Rest(buffer)
            }
        };
        let cutters =
            [cutter(&asked[head..], Side::Runner), cutter(&answered[head_of_answer..], Side::Operator)];
        self.both_ways(number, runner, operator, cutters).await
    }

    /// Ends when either side does.
    async fn both_ways<R, O>(
        &self,
        number: u64,
        runner: R,
        operator: O,
        [up, down]: [Cutter; 2],
    ) -> io::Result<()>
    where
        R: AsyncRead + AsyncWrite,
        O: AsyncRead + AsyncWrite,
    {
        let (from_runner, to_runner) = split(runner);
        let (from_operator, to_operator) = split(operator);
        tokio::select! {
            ended = self.one_way(number, from_runner, to_operator, up) => ended,
            ended = self.one_way(number, from_operator, to_runner, down) => ended,
        }
    }

    async fn one_way(
        &self,
        number: u64,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut cutter: Cutter,
    ) -> io::Result<()> {
        while let Some((bytes, frame)) = cutter.next(&mut from).await? {
            self.until_free(number).await?;
            let order = frame.as_ref().and_then(|frame| self.rules.order_for(frame).zip(Some(frame)));
            match &order {
                Some((Order::Stop(Moment::Before, test), frame)) if !stop_here(*frame, test).await => break,
                Some((Order::Fault(FrameFault::Swallow), _)) => continue,
                Some((Order::Fault(FrameFault::Repeat), _)) => to.write_all(&bytes).await?,
                Some((Order::Stop(..), _)) | None => {}
            }
            to.write_all(&bytes).await?;
            to.flush().await?;
            match &order {
                Some((Order::Stop(Moment::After, test), frame)) if !stop_here(*frame, test).await => break,
                Some((Order::Stop(..) | Order::Fault(_), _)) | None => {}
            }
        }
        to.shutdown().await
    }
}

/// Cuts a stream into what is passed on at once.
enum Cutter {
    /// Whatever a read brings.
    Chunks,
    /// What has been read already, then whatever a read brings.
    Rest(Vec<u8>),
    /// Whole frames.
    Frames {
        /// What has been read and not been passed on.
        buffer: Vec<u8>,
        /// Who speaks.
        from: Side,
        /// Which connection.
        connection: u64,
    },
}

impl Cutter {
    async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Option<(Vec<u8>, Option<Frame>)>> {
        match self {
            Self::Rest(buffer) if !buffer.is_empty() => Ok(Some((std::mem::take(buffer), None))),
            Self::Chunks | Self::Rest(_) => {
                let mut chunk = Vec::with_capacity(16 * 1024);
                let is_over = stream.read_buf(&mut chunk).await? == 0;
                Ok((!is_over).then_some((chunk, None)))
            }
            Self::Frames { buffer, from, connection } => loop {
                if let Some((length, text)) = frames::split(buffer)? {
                    let bytes = buffer.drain(..length).collect();
                    let frame = text.map(|text| Frame { from: *from, connection: *connection, text });
                    return Ok(Some((bytes, frame)));
                }
                if stream.read_buf(buffer).await? == 0 {
                    return Ok(None);
                }
            },
        }
    }
}

/// Reads the head of a request or answer into `buffer`, and gives its length; more may have been read.
async fn read_head(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            return Ok(end + 4);
        }
        if buffer.len() > MAX_HEAD_BYTES || stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests;
