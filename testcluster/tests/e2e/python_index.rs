//! A package index for pip and uv on the machine's address in the cluster, with one wheel that is made here.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, response::Html, routing::get, serve::Listener};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use scriptrunner_testcluster::Cluster;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Serves until it is dropped.
pub(crate) struct PythonIndex {
    host: String,
    url: String,
    task: JoinHandle<()>,
}

impl PythonIndex {
    /// Serves one package with one Python module of the same name.
    pub(crate) async fn start(cluster: &Cluster, package: &'static str, module: &str) -> Self {
        let listener = TcpListener::bind((cluster.gateway(), 0)).await.unwrap();
        let url = format!("http://{}/simple/", listener.local_addr().unwrap());
        let routes = routes(package, module);
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { host: cluster.gateway().to_string(), url, task }
    }

    /// The same over TLS, with a certificate of an authority that nobody trusts yet; the authority comes with it, in PEM.
    pub(crate) async fn start_with_tls(
        cluster: &Cluster,
        package: &'static str,
        module: &str,
    ) -> (Self, String) {
        let host = cluster.gateway().to_string();
        let (authority, config) = tls(&host);
        let tcp = TcpListener::bind((cluster.gateway(), 0)).await.unwrap();
        let url = format!("https://{}/simple/", tcp.local_addr().unwrap());
        let listener = TlsListener { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) };
        let routes = routes(package, module);
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (Self { host, url, task }, authority)
    }

    /// The index's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The index's URL with these credentials in it, which are not asked for.
    pub(crate) fn url_with(&self, credentials: &str) -> String {
        self.url.replacen("http://", &format!("http://{credentials}@"), 1)
    }

    /// Environment with which an installer believes this index without TLS, and goes to it directly.
    pub(crate) fn trust(&self) -> Value {
        json!([
            {"name": "PIP_TRUSTED_HOST", "value": self.host},
            {"name": "PIP_RETRIES", "value": "1"},
            {"name": "NO_PROXY", "value": "*"},
        ])
    }

    /// Environment with which an installer uses this index and no other.
    pub(crate) fn environment(&self) -> Value {
        json!([
            {"name": "PIP_INDEX_URL", "value": self.url},
            {"name": "PIP_TRUSTED_HOST", "value": self.host},
            {"name": "PIP_RETRIES", "value": "1"},
            {"name": "NO_PROXY", "value": "*"},
        ])
    }
}

impl Drop for PythonIndex {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One package and its file.
fn routes(package: &'static str, module: &str) -> Router {
    let file = format!("{package}-1.0-py3-none-any.whl");
    let wheel = wheel(package, module);
    let page = format!("<!DOCTYPE html><html><body><a href=\"/files/{file}\">{file}</a></body></html>");
    Router::new()
        .route(&format!("/simple/{package}/"), get(async move || Html(page)))
        .route(&format!("/files/{file}"), get(async move || wheel))
}

/// An authority in PEM, and what serves with a certificate of it.
fn tls(host: &str) -> (String, ServerConfig) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority of a test");
    let key = KeyPair::generate().unwrap();
    let certificate = authority.self_signed(&key).unwrap();
    let issuer = Issuer::new(authority, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
    let secret = PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], secret)
        .unwrap();
    (certificate.pem(), config)
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Who does not trust the certificate leaves, and the next one is waited for.
            let Ok((stream, address)) = self.tcp.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// A wheel with one module (PEP 427): a ZIP archive with the module and its description.
fn wheel(package: &str, module: &str) -> Vec<u8> {
    let info = format!("{package}-1.0.dist-info");
    let files = [
        (format!("{package}.py"), module.to_owned()),
        (format!("{info}/METADATA"), format!("Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")),
        (
            format!("{info}/WHEEL"),
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned(),
        ),
        (
            format!("{info}/RECORD"),
            format!("{package}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"),
        ),
    ];
    zip(&files)
}

/// A ZIP archive of uncompressed files (APPNOTE 4.3).
fn zip(files: &[(String, String)]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        let offset = u32::try_from(archive.len()).unwrap().to_le_bytes();
        let name_length = u16::try_from(name.len()).unwrap().to_le_bytes();
        // Version 2.0, no flags, stored, midnight of 1 January 1980.
        let start = [[20, 0], [0, 0], [0, 0], [0, 0], [0x21, 0]].concat();
        let sums = [crc32(content.as_bytes()).to_le_bytes(), size, size].concat();
        archive.extend([b"PK\x03\x04", &start[..], &sums, &name_length, &[0, 0], name.as_bytes()].concat());
        archive.extend(content.as_bytes());
        directory.extend([&b"PK\x01\x02"[..], &[20, 0], &start, &sums, &name_length].concat());
        // No extra field, comment, disk number or attributes.
        directory.extend([0; 12]);
        directory.extend([&offset, name.as_bytes()].concat());
    }
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    let start = u32::try_from(archive.len()).unwrap().to_le_bytes();
    let size = u32::try_from(directory.len()).unwrap().to_le_bytes();
    archive.extend(&directory);
    archive.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &size, &start, &[0, 0]].concat());
    archive
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
    })
}

#[test]
fn check_sums_are_those_of_zip() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}
