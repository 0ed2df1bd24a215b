//! Where runners find the door: at the address of the flag, or at the operator's Service. Talks to the API server.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use k8s_openapi::api::core::v1::Service;
use kube::{Api, Client};

/// Name of the Service.
pub const SERVICE_NAME: &str = "scriptrunner-operator";
/// Name of its port for sessions.
pub const PORT_NAME: &str = "sessions";

/// Why it is not known where the Service is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("get Service {namespace}/{SERVICE_NAME}: {source}")]
    Call { namespace: String, source: Box<kube::Error> },
    #[error("get Service {namespace}/{SERVICE_NAME}: no answer within {seconds} s")]
    AwaitAnswer { namespace: String, seconds: u64 },
}

/// The cluster IP and port of the Service; none if there is no Service that has them.
pub(super) async fn of_service(
    client: &Client,
    namespace: &str,
    timeout: Duration,
) -> Result<Option<SocketAddr>, Error> {
    let api = Api::<Service>::namespaced(client.clone(), namespace);
    let namespace = namespace.to_owned();
    match tokio::time::timeout(timeout, api.get_opt(SERVICE_NAME)).await {
        Ok(Ok(service)) => Ok(service.as_ref().and_then(address)),
        Ok(Err(source)) => Err(Error::Call { namespace, source: Box::new(source) }),
        Err(_) => Err(Error::AwaitAnswer { namespace, seconds: timeout.as_secs() }),
    }
}

fn address(service: &Service) -> Option<SocketAddr> {
    let spec = service.spec.as_ref()?;
    // A headless Service has the word None there.
    let ip: IpAddr = spec.cluster_ip.as_ref()?.parse().ok()?;
    let port = spec.ports.as_ref()?.iter().find(|port| port.name.as_deref() == Some(PORT_NAME))?;
    Some(SocketAddr::new(ip, u16::try_from(port.port).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::scripted::{Answer, client, failure};

    fn of(spec: &Value) -> Option<SocketAddr> {
        address(&serde_json::from_value(json!({"spec": spec})).unwrap())
    }

    #[test]
    fn address_is_that_of_the_port_for_sessions() {
        let ports = json!([{"name": "metrics", "port": 8080}, {"name": "sessions", "port": 443}]);
        assert_eq!(
            of(&json!({"clusterIP": "10.96.1.2", "ports": ports})).unwrap().to_string(),
            "10.96.1.2:443"
        );
        assert_eq!(
            of(&json!({"clusterIP": "fd00::1", "ports": ports})).unwrap().to_string(),
            "[fd00::1]:443"
        );
    }

    #[test]
    fn service_without_address_or_port_is_none() {
        let ports = json!([{"name": "sessions", "port": 443}]);
        assert_eq!(of(&json!({"clusterIP": "None", "ports": ports})), None);
        assert_eq!(of(&json!({"ports": ports})), None);
        assert_eq!(of(&json!({"clusterIP": "10.96.1.2", "ports": [{"name": "x", "port": 443}]})), None);
        assert_eq!(of(&json!({"clusterIP": "10.96.1.2"})), None);
    }

    #[tokio::test]
    async fn absence_is_no_error_and_a_refusal_is() {
        let (gone, record) = client(|_| failure(404, "NotFound", "gone"));
        assert_eq!(of_service(&gone, "ns", Duration::from_secs(1)).await.unwrap(), None);
        assert_eq!(record.all()[0].path, "/api/v1/namespaces/ns/services/scriptrunner-operator");
        let (refusing, _) = client(|_| failure(403, "Forbidden", "no"));
        let text = of_service(&refusing, "ns", Duration::from_secs(1)).await.unwrap_err().to_string();
        assert!(text.starts_with("get Service ns/scriptrunner-operator: "), "{text}");
        let (hanging, _) = client(|_| Answer::Hangs);
        let text = of_service(&hanging, "ns", Duration::from_millis(20)).await.unwrap_err().to_string();
        assert!(text.contains("no answer"), "{text}");
    }
}
