//! Tokens as the API server gives them to the kubelet for a pod, signed here with the cluster's own key.
//!
//! The kubelet's requests for tokens are so no part of what is measured, while every TokenReview is real.

use std::{fs, path::Path};

use anyhow::{Context, anyhow};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use scriptrunner_api::session::AUDIENCE;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Who issues the tokens of a local cluster.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What a token is bound to.
#[derive(Clone, Debug)]
pub(crate) struct Bound<'a> {
    pub(crate) namespace: &'a str,
    /// UID of the service account `default`.
    pub(crate) account_uid: &'a str,
    pub(crate) pod: &'a str,
    pub(crate) pod_uid: &'a str,
    pub(crate) node: &'a str,
    pub(crate) node_uid: &'a str,
}

/// The key that signs.
pub(crate) struct Signer {
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

impl Signer {
    /// Reads the key from the cluster's certificates.
    pub(crate) fn open(pki: &Path) -> anyhow::Result<Self> {
        let private = pem(&pki.join("service-account.key"))?;
        let public = pem(&pki.join("service-account.pub"))?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private, &random)
            .map_err(|error| anyhow!("the cluster's service-account key is unusable: {error}"))?;
        // The API server names a key by the digest of its public half.
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(public));
        Ok(Self { key, key_id, random })
    }

    /// A token that is valid from `now`, in seconds of Unix time, for `lifetime_seconds`.
    pub(crate) fn token(&self, bound: &Bound<'_>, now: i64, lifetime_seconds: i64) -> anyhow::Result<String> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims(bound, now, lifetime_seconds)));
        let signature = self
            .key
            .sign(&self.random, signed.as_bytes())
            .map_err(|error| anyhow!("cannot sign a token: {error}"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// What a token says, in the form of the API server's own.
fn claims(bound: &Bound<'_>, now: i64, lifetime_seconds: i64) -> Value {
    let Bound { namespace, account_uid, pod, pod_uid, node, node_uid } = bound;
    // Only its form matters: nobody looks it up.
    let token_id = Sha256::digest(format!("{pod_uid} {now}"));
    json!({
        "aud": [AUDIENCE],
        "exp": now + lifetime_seconds,
        "iat": now,
        "iss": ISSUER,
        "jti": uuid(&token_id),
        "kubernetes.io": {
            "namespace": namespace,
            "node": {"name": node, "uid": node_uid},
            "pod": {"name": pod, "uid": pod_uid},
            "serviceaccount": {"name": "default", "uid": account_uid},
        },
        "nbf": now,
        "sub": format!("system:serviceaccount:{namespace}:default"),
    })
}

fn uuid(bytes: &[u8]) -> String {
    let hex = scriptrunner_api::digest::hex(bytes);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]];
    parts.join("-")
}

/// The claims of a token, unverified; to compare ours with the API server's.
pub(crate) fn payload(token: &str) -> anyhow::Result<Value> {
    let part = token.split('.').nth(1).context("a token should have three parts")?;
    let bytes = URL_SAFE_NO_PAD.decode(part).context("decode a token")?;
    serde_json::from_slice(&bytes).context("read a token's claims")
}

/// The header of a token, unverified.
pub(crate) fn header(token: &str) -> anyhow::Result<Value> {
    let part = token.split('.').next().context("a token should have three parts")?;
    let bytes = URL_SAFE_NO_PAD.decode(part).context("decode a token")?;
    serde_json::from_slice(&bytes).context("read a token's header")
}

/// The bytes of the first block of a PEM file.
fn pem(path: &Path) -> anyhow::Result<Vec<u8>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body.trim()).with_context(|| format!("decode {}", path.display()))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use scriptrunner_testcluster::{pki::Pki, slot::Slot};

    use super::*;

    const BOUND: Bound<'_> = Bound {
        namespace: "ns",
        account_uid: "a-1",
        pod: "srn-1",
        pod_uid: "p-1",
        node: "n1",
        node_uid: "n-1",
    };

    #[test]
    fn the_claims_are_those_of_a_projected_token() {
        let claims = claims(&BOUND, 1_800_000_000, 3600);
        assert_eq!(claims["aud"], json!(["scriptrunner.io"]));
        assert_eq!(claims["exp"], 1_800_003_600);
        assert_eq!(claims["sub"], "system:serviceaccount:ns:default");
        assert_eq!(claims["kubernetes.io"]["pod"], json!({"name": "srn-1", "uid": "p-1"}));
        assert_eq!(claims["kubernetes.io"]["node"], json!({"name": "n1", "uid": "n-1"}));
        assert_eq!(claims["kubernetes.io"]["serviceaccount"], json!({"name": "default", "uid": "a-1"}));
        let token_id = claims["jti"].as_str().unwrap();
        assert_eq!(token_id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }

    #[test]
    fn the_signature_is_the_keys_over_header_and_claims() {
        let folder = tempfile::tempdir().unwrap();
        let pki = folder.path().join("pki");
        Pki::new(pki.clone(), Slot::all().next().unwrap(), "unit").ensure(&[]).unwrap();
        let token = Signer::open(&pki).unwrap().token(&BOUND, 1_800_000_000, 3600).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        // The last 65 bytes of a P-256 key in PEM are the point itself.
        let public = pem(&pki.join("service-account.pub")).unwrap();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &public[public.len() - 65..]);
        key.verify(signed.as_bytes(), &signature).unwrap();
        assert!(key.verify(b"something else", &signature).is_err());
        assert_eq!(header(&token).unwrap()["alg"], "ES256");
        assert_eq!(payload(&token).unwrap(), claims(&BOUND, 1_800_000_000, 3600));
    }
}
