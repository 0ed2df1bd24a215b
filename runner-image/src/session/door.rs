//! Where the operator is, and how it is told from everybody else. Talks to the network; never looks at the environment.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName},
    version::TLS13,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// One for all connections: it is larger than everything else that a session holds.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// Where the operator is, and how it is told from others. Clones share what is large.
#[derive(Clone, Debug)]
pub struct Door {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

/// Why there can be no session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not one.
    #[error("{address:?} is not an address and port")]
    ParseAddress {
        /// The address.
        address: String,
    },
    /// The name is not one.
    #[error("{name:?} is not the name of a server")]
    ParseName {
        /// The name.
        name: String,
    },
    /// None of the authorities can vouch for the operator.
    #[error("there is no authority to know the operator by")]
    FindAuthority,
    /// An authority is not a certificate.
    #[error("authority number {number} is not a certificate in DER, base64: {text}")]
    ReadAuthority {
        /// Which, from 1.
        number: usize,
        /// What is wrong with it.
        text: String,
    },
}

/// Why the operator was not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreached {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("cannot trust who answers at {address}: {source}")]
    Trust { address: SocketAddr, source: io::Error },
}

impl Door {
    /// The operator at an address and port, with the name that its certificate must have, signed by one of the authorities
    /// (each a certificate in DER, base64).
    pub fn new(address: &str, name: &str, authorities: &[String]) -> Result<Self, Error> {
        let address = address.parse().map_err(|_| Error::ParseAddress { address: address.to_owned() })?;
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| Error::ParseName { name: name.to_owned() })?;
        Ok(Self { address, name, tls: client(authorities)? })
    }

    /// Trusts these authorities from now on, and no others. Nothing changes if one of them is broken.
    pub(super) fn trust(&mut self, authorities: &[String]) -> Result<(), Error> {
        self.tls = client(authorities)?;
        Ok(())
    }

    /// The name of the operator.
    pub(super) fn host(&self) -> String {
        self.name.to_str().into_owned()
    }

    /// Connects within the time. The name is not looked up where the address does not answer: a static binary has no
    /// resolver of the system's, and those that are crates double what this program is made of. An operator's Service keeps
    /// its address for as long as it exists.
    pub(super) async fn tcp(&self, patience: Duration) -> Result<TcpStream, Unreached> {
        let address = self.address;
        connected(address, patience).await.map_err(|source| Unreached::Connect { address, source })
    }

    /// Makes sure that the operator is at the other end, and nobody listens.
    pub(super) async fn tls(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Unreached> {
        let address = self.address;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let encrypted = connector.connect(self.name.clone(), stream).await;
        encrypted.map_err(|source| Unreached::Trust { address, source })
    }
}

async fn connected(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream =
        timeout(patience, TcpStream::connect(address)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    // Frames are small and few; none shall wait for another.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The authorities, and nothing of the system's.
fn client(authorities: &[String]) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    for (number, authority) in (1..).zip(authorities) {
        let unreadable = |text: String| Error::ReadAuthority { number, text };
        let der = STANDARD.decode(authority).map_err(|error| unreadable(error.to_string()))?;
        roots.add(CertificateDer::from(der)).map_err(|error| unreadable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(Error::FindAuthority);
    }
    Ok(Arc::new(client_of(roots)))
}

/// TLS 1.3, no certificate of our own, and nothing kept for later connections.
fn client_of(roots: RootCertStore) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&TLS13])
        .expect("ring should speak TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn door_without_a_sound_authority_is_refused() {
        let door = |authorities: &[&str]| {
            let authorities: Vec<String> = authorities.iter().map(ToString::to_string).collect();
            Door::new("127.0.0.1:8443", "door.svc", &authorities).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(door(&[]), "there is no authority to know the operator by");
        for broken in ["", "AA==", "no base64"] {
            let text = door(&[broken]);
            assert!(text.starts_with("authority number 1 is not a certificate"), "{text}");
        }
    }

    #[test]
    fn address_has_a_port_and_is_no_name() {
        for wrong in ["", "10.0.0.1", "door.svc:8443", "10.0.0.1:99999"] {
            assert!(matches!(Door::new(wrong, "door.svc", &[]), Err(Error::ParseAddress { .. })), "{wrong}");
        }
        assert!(matches!(Door::new("[fd00::1]:8443", "a b", &[]), Err(Error::ParseName { .. })));
        assert!(matches!(Door::new("[fd00::1]:8443", "door.svc", &[]), Err(Error::FindAuthority)));
    }
}
