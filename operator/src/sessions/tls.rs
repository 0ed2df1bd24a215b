//! Certificates and the TLS side of the door: TLS 1.3 only, no client certificates, nothing kept for later connections.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

use super::authority::{Authority, BACKDATED, Certified, Lifetimes, Material, Step, earlier, later};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be made.
    #[error("make the certificate of {subject:?}: {source}")]
    Make {
        /// Whose.
        subject: String,
        /// What the library says.
        source: rcgen::Error,
    },
    /// Something in PEM is not what it should be.
    #[error("read the {what}: {reason}")]
    Read {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate is not of this key, not of this authority, or not for this name.
    #[error("the certificate is not what runners would believe: {0}")]
    Verify(#[source] rustls::Error),
    /// The library speaks no TLS 1.3.
    #[error("configure TLS: {0}")]
    Configure(#[source] rustls::Error),
}

/// Everything anew.
pub(super) fn first_material(name: &str, now: Timestamp, lifetimes: &Lifetimes) -> Result<Material, Error> {
    let authority = make_authority(1, now, lifetimes)?;
    let leaf = make_leaf(&authority, name, now, lifetimes)?;
    Ok(Material { authority, leaf, next: None })
}

/// The material after a step.
pub(super) fn perform(
    step: Step,
    material: &Material,
    name: &str,
    now: Timestamp,
    lifetimes: &Lifetimes,
) -> Result<Material, Error> {
    let mut material = material.clone();
    match step {
        Step::Keep => {}
        Step::IssueLeaf => material.leaf = make_leaf(&material.authority, name, now, lifetimes)?,
        Step::Introduce => {
            material.next = Some(make_authority(material.authority.number + 1, now, lifetimes)?);
        }
        Step::Promote => {
            if let Some(next) = material.next.take() {
                material.leaf = make_leaf(&next, name, now, lifetimes)?;
                material.authority = next;
            }
        }
    }
    Ok(material)
}

fn make_authority(number: u64, now: Timestamp, lifetimes: &Lifetimes) -> Result<Authority, Error> {
    let subject = authority_name(number);
    let key = KeyPair::generate().map_err(making(&subject))?;
    let params = authority_params(number);
    let certified = certify(params, now, lifetimes.authority, &subject, &key, None)?;
    Ok(Authority { number, certified })
}

fn make_leaf(
    authority: &Authority,
    name: &str,
    now: Timestamp,
    lifetimes: &Lifetimes,
) -> Result<Certified, Error> {
    let signing = KeyPair::from_pem(&authority.certified.key)
        .map_err(|error| Error::Read { what: "authority's key", reason: error.to_string() })?;
    let issuer = Issuer::new(authority_params(authority.number), signing);
    let key = KeyPair::generate().map_err(making(name))?;
    let mut params = named(name);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().map_err(making(name))?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    certify(params, now, lifetimes.leaf, name, &key, Some(&issuer))
}

/// Signs with the issuer, or with the key itself.
fn certify(
    mut params: CertificateParams,
    now: Timestamp,
    lifetime: Duration,
    subject: &str,
    key: &KeyPair,
    issuer: Option<&Issuer<'_, KeyPair>>,
) -> Result<Certified, Error> {
    let expires = later(now, lifetime);
    params.not_before = SystemTime::from(earlier(now, BACKDATED)).into();
    params.not_after = SystemTime::from(expires).into();
    let signed = match issuer {
        Some(issuer) => params.signed_by(key, issuer),
        None => params.self_signed(key),
    };
    let certificate = signed.map_err(making(subject))?.pem();
    Ok(Certified { certificate, key: key.serialize_pem(), issued: now, expires })
}

fn authority_name(number: u64) -> String {
    format!("scriptrunner-operator sessions {number}")
}

fn authority_params(number: u64) -> CertificateParams {
    let mut params = named(&authority_name(number));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn making(subject: &str) -> impl Fn(rcgen::Error) -> Error {
    move |source| Error::Make { subject: subject.to_owned(), source }
}

/// What runners are to trust: each authority in DER, base64.
pub(super) fn trusted(material: &Material) -> Result<Vec<String>, Error> {
    material.trusted().map(|authority| Ok(STANDARD.encode(certificate(&authority.certified)?))).collect()
}

fn certificate(certified: &Certified) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(certified.certificate.as_bytes())
        .map_err(|error| Error::Read { what: "certificate", reason: error.to_string() })
}

/// What the server identifies itself with. An error if runners would not believe it, whatever the reason; whether it is
/// over is judged elsewhere.
pub(super) fn certified_key(material: &Material, name: &str) -> Result<CertifiedKey, Error> {
    let provider = Arc::new(ring::default_provider());
    let leaf = certificate(&material.leaf)?;
    let key = PrivateKeyDer::from_pem_slice(material.leaf.key.as_bytes())
        .map_err(|error| Error::Read { what: "key", reason: error.to_string() })?;
    let mut roots = RootCertStore::empty();
    for authority in material.trusted() {
        roots
            .add(certificate(&authority.certified)?)
            .map_err(|error| Error::Read { what: "authority's certificate", reason: error.to_string() })?;
        KeyPair::from_pem(&authority.certified.key)
            .map_err(|error| Error::Read { what: "authority's key", reason: error.to_string() })?;
    }
    verify(&leaf, name, material.leaf.issued, roots, Arc::clone(&provider))?;
    CertifiedKey::from_der(vec![leaf], key, &provider).map_err(Error::Verify)
}

/// As a runner would, at the time when the certificate was made.
fn verify(
    leaf: &CertificateDer<'_>,
    name: &str,
    at: Timestamp,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
) -> Result<(), Error> {
    let unreadable = |reason: String| Error::Read { what: "authorities", reason };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| unreadable(error.to_string()))?;
    let name = ServerName::try_from(name)
        .map_err(|error| Error::Read { what: "server name", reason: error.to_string() })?;
    let seconds = u64::try_from(at.as_second()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    verifier.verify_server_cert(leaf, &[], &name, &[], at).map(drop).map_err(Error::Verify)
}

/// The certificate of new connections. Those that stand keep theirs.
#[derive(Debug)]
pub(super) struct Presented(RwLock<Arc<CertifiedKey>>);

impl Presented {
    pub(super) fn new(key: CertifiedKey) -> Self {
        Self(RwLock::new(Arc::new(key)))
    }

    pub(super) fn replace(&self, key: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// The server's side of TLS.
pub(super) fn server_config(presented: Arc<Presented>) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(Error::Configure)?
        .with_no_client_auth()
        .with_cert_resolver(presented);
    // A runner reconnects at most every few hundred milliseconds, and tickets would cost memory in every session.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "scriptrunner-operator.scriptrunner-system.svc";
    const LIFETIMES: Lifetimes = Lifetimes {
        leaf: Duration::from_hours(24),
        authority: Duration::from_hours(240),
        overlap: Duration::from_hours(1),
    };

    fn roots(material: &Material) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        for authority in trusted(material).unwrap() {
            roots.add(CertificateDer::from(STANDARD.decode(authority).unwrap())).unwrap();
        }
        roots
    }

    /// Whether somebody with these authorities believes the leaf of `material` at `at`.
    fn believed(material: &Material, by: RootCertStore, name: &str, at: Timestamp) -> bool {
        let leaf = certificate(&material.leaf).unwrap();
        verify(&leaf, name, at, by, Arc::new(ring::default_provider())).is_ok()
    }

    #[test]
    fn runners_believe_the_certificate_for_its_name_and_time() {
        let now = Timestamp::now();
        let material = first_material(NAME, now, &LIFETIMES).unwrap();
        let (yesterday, tomorrow) =
            (earlier(now, Duration::from_hours(23)), later(now, Duration::from_hours(25)));
        assert!(believed(&material, roots(&material), NAME, now));
        assert!(believed(&material, roots(&material), NAME, yesterday), "a node's clock may be behind");
        assert!(!believed(&material, roots(&material), NAME, tomorrow));
        assert!(!believed(&material, roots(&material), "other.scriptrunner-system.svc", now));
        let stranger = first_material(NAME, now, &LIFETIMES).unwrap();
        assert!(!believed(&material, roots(&stranger), NAME, now));
        certified_key(&material, NAME).unwrap();
    }

    #[test]
    fn runners_that_were_told_believe_what_follows() {
        let now = Timestamp::now();
        let first = first_material(NAME, now, &LIFETIMES).unwrap();
        let both = perform(Step::Introduce, &first, NAME, now, &LIFETIMES).unwrap();
        assert!(believed(&both, roots(&first), NAME, now), "who was not told yet still believes");
        let renewed = perform(Step::IssueLeaf, &both, NAME, now, &LIFETIMES).unwrap();
        assert!(renewed.leaf != both.leaf && believed(&renewed, roots(&first), NAME, now));
        let second = perform(Step::Promote, &renewed, NAME, now, &LIFETIMES).unwrap();
        assert!(believed(&second, roots(&both), NAME, now), "who was told during the overlap believes");
        assert!(!believed(&second, roots(&first), NAME, now));
        assert!(second.next.is_none());
        assert_eq!(trusted(&second).unwrap().len(), 1);
        certified_key(&second, NAME).unwrap();
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let now = Timestamp::now();
        let (ours, other) =
            (first_material(NAME, now, &LIFETIMES).unwrap(), first_material(NAME, now, &LIFETIMES).unwrap());
        let mut key_of_another = ours.clone();
        key_of_another.leaf.key = other.leaf.key.clone();
        assert!(matches!(certified_key(&key_of_another, NAME), Err(Error::Verify(_))));
        let mut leaf_of_another = ours.clone();
        leaf_of_another.leaf = other.leaf.clone();
        assert!(matches!(certified_key(&leaf_of_another, NAME), Err(Error::Verify(_))));
        assert!(matches!(certified_key(&ours, "another.name.svc"), Err(Error::Verify(_))));
        let mut junk = ours.clone();
        junk.leaf.certificate = "junk".to_owned();
        assert!(matches!(certified_key(&junk, NAME), Err(Error::Read { .. })));
        let mut junk = ours;
        junk.authority.certified.key = "junk".to_owned();
        assert!(matches!(certified_key(&junk, NAME), Err(Error::Read { .. })));
    }

    #[test]
    fn only_the_newest_version_of_tls_is_spoken_and_nothing_kept() {
        let material = first_material(NAME, Timestamp::now(), &LIFETIMES).unwrap();
        let presented = Presented::new(certified_key(&material, NAME).unwrap());
        let config = server_config(Arc::new(presented)).unwrap();
        assert_eq!(config.send_tls13_tickets, 0);
        assert!(!config.session_storage.can_cache());
        assert_eq!(config.max_early_data_size, 0);
    }
}
