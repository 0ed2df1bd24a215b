//! What a request asks of the API server, as its audit log would say it. Pure.

use std::fmt;

use http::{Method, Uri};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: &'static str,
    /// Resource and subresource, for example `pods` or `scriptrunners/status`; the path where there is no resource.
    pub resource: String,
    /// Namespace, if it is in one.
    pub namespace: Option<String>,
    /// Name, if it has one.
    pub name: Option<String>,
    /// Whether it asks what would come of it, and no more.
    pub is_dry_run: bool,
}

impl Call {
    /// Reads a request line.
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
        let in_group = match parts.next() {
            Some("api") => parts.next().is_some(),
            Some("apis") => parts.next().is_some() && parts.next().is_some(),
            Some(_) | None => false,
        };
        let rest: Vec<&str> = parts.collect();
        let is_dry_run = has_parameter(uri, &["dryRun=All"]);
        if !in_group || rest.is_empty() {
            return Self {
                verb: verb(method, uri, true),
                resource: uri.path().to_owned(),
                namespace: None,
                name: None,
                is_dry_run,
            };
        }
        let (namespace, rest) = match rest[..] {
            // A namespace itself has nothing after its name but a subresource.
            ["namespaces", namespace, ref rest @ ..] if !matches!(rest, [] | ["status" | "finalize"]) => {
                (Some(namespace), rest)
            }
            ref rest => (None, rest),
        };
        let resource = rest.first().copied().unwrap_or_default();
        let name = rest.get(1).copied();
        let resource = match rest.get(2) {
            Some(subresource) => format!("{resource}/{subresource}"),
            None => resource.to_owned(),
        };
        Self {
            verb: verb(method, uri, name.is_some()),
            resource,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            is_dry_run,
        }
    }

    /// Whether it is `what`: verb and resource as in `patch scriptrunners/status`.
    pub fn is(&self, what: &str) -> bool {
        what.split_once(' ').is_some_and(|(verb, resource)| verb == self.verb && resource == self.resource)
    }

    /// Whether it changes something.
    pub fn is_write(&self) -> bool {
        !self.is_dry_run && !matches!(self.verb, "get" | "list" | "watch")
    }
}

/// Whether the query has one of these.
fn has_parameter(uri: &Uri, wanted: &[&str]) -> bool {
    uri.query().unwrap_or_default().split('&').any(|pair| wanted.contains(&pair))
}

fn verb(method: &Method, uri: &Uri, has_name: bool) -> &'static str {
    let watches = || has_parameter(uri, &["watch=true", "watch=1", "watch"]);
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if has_name => "delete",
        Method::DELETE => "deletecollection",
        _ if watches() => "watch",
        _ if has_name => "get",
        _ => "list",
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.verb, self.resource)?;
        let place = [self.namespace.as_deref(), self.name.as_deref()];
        for part in place.into_iter().flatten() {
            write!(formatter, " {part}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &Method, uri: &str) -> String {
        Call::of(method, &uri.parse().unwrap()).to_string()
    }

    #[test]
    fn requests_are_read_as_the_audit_log_names_them() {
        let status = "/apis/scriptrunner.io/v1alpha1/namespaces/n/scriptrunners/s/status?";
        for (method, uri, expected) in [
            (Method::PATCH, status, "patch scriptrunners/status n s"),
            (Method::POST, "/api/v1/namespaces/n/pods?fieldManager=x", "create pods n"),
            (Method::DELETE, "/api/v1/namespaces/n/pods/p", "delete pods n p"),
            (Method::DELETE, "/api/v1/namespaces/n/pods", "deletecollection pods n"),
            (Method::GET, "/api/v1/pods?labelSelector=a&watch=true", "watch pods"),
            (Method::GET, "/api/v1/pods?limit=500", "list pods"),
            (Method::GET, "/api/v1/namespaces", "list namespaces"),
            (Method::GET, "/api/v1/namespaces/n", "get namespaces n"),
            (Method::PUT, "/api/v1/namespaces/n/finalize", "update namespaces/finalize n"),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/n/leases/l", "update leases n l"),
            (Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", "create tokenreviews"),
            (Method::GET, "/readyz", "get /readyz"),
            (Method::GET, "/apis", "get /apis"),
        ] {
            assert_eq!(call(&method, uri), expected);
        }
    }

    #[test]
    fn a_write_is_what_changes_something() {
        let of = |method| Call::of(&method, &"/api/v1/namespaces/n/pods/p".parse().unwrap());
        assert!(of(Method::DELETE).is_write() && of(Method::DELETE).is("delete pods"));
        assert!(!of(Method::GET).is_write() && !of(Method::GET).is("delete pods"));
        let dry = "/api/v1/namespaces/n/configmaps?fieldManager=x&dryRun=All".parse().unwrap();
        assert!(
            !Call::of(&Method::POST, &dry).is_write()
                && Call::of(&Method::POST, &dry).is("create configmaps")
        );
    }
}
