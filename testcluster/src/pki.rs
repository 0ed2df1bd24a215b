//! The cluster's own certificate authority, all certificates, and the kubeconfigs made of them.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::{
    error::{Error, Result},
    folder,
    slot::Slot,
};

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the files (`.crt`, `.key`, `.kubeconfig`).
    pub file: String,
    /// The user name for the API server.
    pub common_name: String,
    /// The group for the API server.
    pub organization: Option<String>,
    /// Names it serves under.
    pub names: Vec<String>,
    /// Addresses it serves under.
    pub addresses: Vec<IpAddr>,
}

impl Identity {
    fn client(file: &str, common_name: &str) -> Self {
        Self {
            file: file.into(),
            common_name: common_name.into(),
            organization: None,
            names: Vec::new(),
            addresses: Vec::new(),
        }
    }

    fn in_group(mut self, group: &str) -> Self {
        self.organization = Some(group.into());
        self
    }

    /// The identities of the control plane and of the cluster's user.
    pub fn control_plane(slot: Slot) -> Vec<Self> {
        let mut server = Self::client("apiserver", "kube-apiserver");
        server.names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
            .into_iter()
            .map(str::to_owned)
            .chain(["kubernetes.default.svc.cluster.local".to_owned()])
            .collect();
        server.addresses = vec![slot.kubernetes_service().into(), slot.gateway().into()];
        vec![
            server,
            Self::client("apiserver-kubelet-client", "kube-apiserver-kubelet-client")
                .in_group("system:masters"),
            Self::client("admin", "testcluster-admin").in_group("system:masters"),
            Self::client("controller-manager", "system:kube-controller-manager"),
            Self::client("scheduler", "system:kube-scheduler"),
            Self::client("kube-proxy", "system:kube-proxy"),
            Self::client("coredns", "system:coredns"),
        ]
    }

    /// The identity of a node's kubelet, as client and as server.
    pub fn kubelet(slot: Slot, node: &str, index: u8) -> Self {
        let mut kubelet = Self::client(node, &format!("system:node:{node}")).in_group("system:nodes");
        kubelet.names = vec![node.into()];
        kubelet.addresses = vec![slot.node_address(index).into()];
        kubelet
    }
}

/// The folder of a cluster's certificates.
#[derive(Debug)]
pub struct Pki {
    folder: PathBuf,
    slot: Slot,
    cluster: String,
}

impl Pki {
    /// Opens the folder; nothing is made yet.
    pub fn new(folder: PathBuf, slot: Slot, cluster: &str) -> Self {
        Self { folder, slot, cluster: cluster.into() }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// A file of this folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes what is missing: authority, service-account key, and the certificates and kubeconfigs of `identities`.
    pub fn ensure(&self, identities: &[Identity]) -> Result<()> {
        folder::make(&self.folder, 0o700)?;
        self.ensure_authority()?;
        self.ensure_service_account_key()?;
        let key = KeyPair::from_pem(&read(&self.file("ca.key"))?).map_err(certify("the authority"))?;
        let issuer = Issuer::new(self.authority_parameters(), key);
        for identity in identities {
            // The kubeconfig is written last: when it is there, so are the others.
            if !self.file(&format!("{}.kubeconfig", identity.file)).exists() {
                self.issue(identity, &issuer)?;
            }
        }
        Ok(())
    }

    fn ensure_authority(&self) -> Result<()> {
        if self.authority().exists() {
            return Ok(());
        }
        let key = KeyPair::generate().map_err(certify("the authority"))?;
        let certificate = self.authority_parameters().self_signed(&key).map_err(certify("the authority"))?;
        folder::write(&self.file("ca.key"), key.serialize_pem(), 0o600)?;
        folder::write(&self.authority(), certificate.pem(), 0o644)
    }

    fn authority_parameters(&self) -> CertificateParams {
        let mut params = parameters(&format!("testcluster-{}", self.cluster), None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params
    }

    fn ensure_service_account_key(&self) -> Result<()> {
        if self.file("service-account.pub").exists() {
            return Ok(());
        }
        let key = KeyPair::generate().map_err(certify("service accounts"))?;
        folder::write(&self.file("service-account.key"), key.serialize_pem(), 0o600)?;
        folder::write(&self.file("service-account.pub"), key.public_key_pem(), 0o644)
    }

    fn issue(&self, identity: &Identity, issuer: &Issuer<'_, KeyPair>) -> Result<()> {
        let subject = &identity.common_name;
        let key = KeyPair::generate().map_err(certify(subject))?;
        let mut params = parameters(subject, identity.organization.as_deref());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        for name in &identity.names {
            let name = name.as_str().try_into().map_err(certify(subject))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(identity.addresses.iter().copied().map(SanType::IpAddress));
        let certificate = params.signed_by(&key, issuer).map_err(certify(subject))?.pem();
        let key = key.serialize_pem();
        folder::write(&self.file(&format!("{}.crt", identity.file)), &certificate, 0o644)?;
        folder::write(&self.file(&format!("{}.key", identity.file)), &key, 0o600)?;
        let kubeconfig = self.kubeconfig(&certificate, &key)?;
        folder::write(&self.file(&format!("{}.kubeconfig", identity.file)), kubeconfig, 0o600)
    }

    fn kubeconfig(&self, certificate: &str, key: &str) -> Result<String> {
        let name = &self.cluster;
        let authority = read(&self.authority())?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {
                "server": self.slot.api_url(),
                "certificate-authority-data": STANDARD.encode(authority),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate-data": STANDARD.encode(certificate),
                "client-key-data": STANDARD.encode(key),
            }}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        });
        serde_saphyr::to_string(&config)
            .map_err(|error| Error::Encode { what: "a kubeconfig".into(), reason: error.to_string() })
    }
}

fn parameters(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    if let Some(group) = organization {
        subject.push(DnType::OrganizationName, group);
    }
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    // Far from both ends, so that a machine with a wrong clock works too.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(Error::file("read", path))
}

fn certify(subject: &str) -> impl FnOnce(rcgen::Error) -> Error {
    let subject = subject.to_owned();
    move |source| Error::Certify { subject, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot::all().next().unwrap()
    }

    #[test]
    fn a_kubelet_is_a_member_of_the_nodes_group() {
        let kubelet = Identity::kubelet(slot(), "dev-node2", 2);
        assert_eq!(kubelet.common_name, "system:node:dev-node2");
        assert_eq!(kubelet.organization.as_deref(), Some("system:nodes"));
        assert_eq!(kubelet.addresses, [IpAddr::from([10, 233, 0, 12])]);
    }

    #[test]
    fn what_is_there_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::new(folder.path().join("pki"), slot(), "unit");
        let identities = Identity::control_plane(slot());
        pki.ensure(&identities).unwrap();
        let before = read(&pki.file("admin.kubeconfig")).unwrap();
        pki.ensure(&identities).unwrap();
        assert_eq!(read(&pki.file("admin.kubeconfig")).unwrap(), before);
        assert!(before.contains("https://10.233.0.1:16443"), "{before}");
        assert!(read(&pki.file("service-account.pub")).unwrap().contains("PUBLIC KEY"));
    }
}
