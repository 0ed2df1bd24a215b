//! What a token says of itself, before anybody has confirmed it: enough to send most junk away without a question to the
//! API server. Believed for nothing else. Pure.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::jiff::Timestamp;
use scriptrunner_api::session::AUDIENCE;
use serde::Deserialize;

/// Longest token.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Longest UID of a pod.
const MAX_UID_BYTES: usize = 64;

/// What a token says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    /// UID of the pod that it is bound to.
    pub(super) pod_uid: String,
    /// When it was made; not every issuer says it.
    pub(super) issued: Option<Timestamp>,
    /// When it ends.
    pub(super) expires: Timestamp,
}

/// Why a token cannot be one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is no JSON Web Token with the claims of Kubernetes.
    Unreadable,
    /// It is for somebody else.
    Audience,
    /// It is not bound to a pod.
    Unbound,
    /// Its time is over.
    Expired,
}

#[derive(Deserialize)]
struct Payload {
    aud: Audiences,
    exp: i64,
    #[serde(default)]
    iat: Option<i64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Kubernetes {
    pod: Option<Bound>,
}

#[derive(Deserialize)]
struct Bound {
    uid: String,
}

/// Reads what the token says of itself.
pub(super) fn read(token: &str, now: Timestamp) -> Result<Claims, Unfit> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Unfit::Unreadable);
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Unfit::Unreadable);
    };
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Unfit::Unreadable)?;
    let Payload { aud, exp, iat, kubernetes } =
        serde_json::from_slice(&payload).map_err(|_| Unfit::Unreadable)?;
    let is_ours = match &aud {
        Audiences::One(audience) => audience == AUDIENCE,
        Audiences::Many(audiences) => audiences.iter().any(|audience| audience == AUDIENCE),
    };
    if !is_ours {
        return Err(Unfit::Audience);
    }
    let Some(Bound { uid: pod_uid }) = kubernetes.and_then(|kubernetes| kubernetes.pod) else {
        return Err(Unfit::Unbound);
    };
    let expires = Timestamp::from_second(exp).map_err(|_| Unfit::Unreadable)?;
    if pod_uid.is_empty() || pod_uid.len() > MAX_UID_BYTES {
        return Err(Unfit::Unreadable);
    }
    if expires <= now {
        return Err(Unfit::Expired);
    }
    let issued = iat.and_then(|seconds| Timestamp::from_second(seconds).ok());
    Ok(Claims { pod_uid, issued, expires })
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A token with these claims and a signature that nobody made.
    pub(in crate::sessions) fn token(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn good() -> Value {
        json!({"aud": ["other", "scriptrunner.io"], "exp": 1_000_001, "iat": 999_000, "iss": "x",
            "kubernetes.io": {"namespace": "ns", "pod": {"name": "p", "uid": "uid-1"}}})
    }

    fn with(change: impl FnOnce(&mut Value)) -> Result<Claims, Unfit> {
        let mut claims = good();
        change(&mut claims);
        read(&token(&claims), now())
    }

    #[test]
    fn claims_of_our_tokens_are_read() {
        let seconds = |seconds| Timestamp::from_second(seconds).unwrap();
        let expected = Claims {
            pod_uid: "uid-1".to_owned(),
            issued: Some(seconds(999_000)),
            expires: seconds(1_000_001),
        };
        let unsaid = Claims { issued: None, ..expected.clone() };
        assert_eq!(with(|claims| drop(claims.as_object_mut().unwrap().remove("iat"))), Ok(unsaid));
        assert_eq!(with(|_| {}), Ok(expected.clone()));
        assert_eq!(with(|claims| claims["aud"] = "scriptrunner.io".into()), Ok(expected));
    }

    #[test]
    fn tokens_of_others_are_told_apart() {
        assert_eq!(with(|claims| claims["aud"] = "https://kubernetes".into()), Err(Unfit::Audience));
        assert_eq!(with(|claims| claims["aud"] = json!([])), Err(Unfit::Audience));
        assert_eq!(with(|claims| claims["kubernetes.io"] = json!({"namespace": "ns"})), Err(Unfit::Unbound));
        assert_eq!(with(|claims| claims["kubernetes.io"] = Value::Null), Err(Unfit::Unbound));
        assert_eq!(with(|claims| claims["exp"] = 1_000_000.into()), Err(Unfit::Expired));
        assert_eq!(with(|claims| claims["exp"] = (-5).into()), Err(Unfit::Expired));
    }

    #[test]
    fn junk_is_unreadable() {
        for claims in [
            ("exp", "soon".into()),
            ("exp", i64::MAX.into()),
            ("exp", 1e300.into()),
            ("aud", 7.into()),
            ("kubernetes.io", json!({"pod": {"uid": 7}})),
            ("kubernetes.io", json!({"pod": {"uid": ""}})),
            ("kubernetes.io", json!({"pod": {"uid": "u".repeat(65)}})),
        ] {
            assert_eq!(with(|all| all[claims.0] = claims.1.clone()), Err(Unfit::Unreadable), "{claims:?}");
        }
        let long = format!("{}.x", token(&good()));
        for junk in ["", ".", "..", "a.b", "a.b.c", "a.e30.c", "a.!.c", &long, &"x".repeat(9000)] {
            assert_eq!(read(junk, now()), Err(Unfit::Unreadable), "{junk:?}");
        }
        let deep = format!("e30.{}.c", URL_SAFE_NO_PAD.encode("[".repeat(5000)));
        assert_eq!(read(&deep, now()), Err(Unfit::Unreadable));
        let mut whole = token(&good());
        whole.push_str(&"c".repeat(MAX_TOKEN_BYTES));
        assert_eq!(read(&whole, now()), Err(Unfit::Unreadable));
    }
}
