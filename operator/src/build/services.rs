//! Services and the Ingress.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use crate::names::{self, Role};
use crate::validate::Cluster;

/// For clients: every ready master is a gateway. The internal port is never published.
pub(super) fn client(cluster: &Cluster) -> Service {
    let grpc =
        ServicePort { app_protocol: Some("kubernetes.io/h2c".to_owned()), ..port("grpc", names::GRPC_PORT) };
    Service {
        metadata: metadata(cluster, names::client_service(&cluster.name), Some(Role::Master)),
        spec: Some(ServiceSpec {
            type_: Some(cluster.network.service_type.as_str().to_owned()),
            selector: Some(names::selector_labels(&cluster.name, Role::Master)),
            ports: Some(vec![port("http", names::HTTP_PORT), grpc]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Gives each pod of a group a name. Pods that are not ready have one too: nodes and members find each other before
/// they can serve.
pub(super) fn headless(cluster: &Cluster, role: Role) -> Service {
    let ports = match role {
        Role::Etcd => vec![port("client", names::ETCD_CLIENT_PORT), port("peer", names::ETCD_PEER_PORT)],
        Role::Slave => vec![port("http", names::HTTP_PORT), port("internal", names::INTERNAL_PORT)],
        Role::Master => vec![
            port("http", names::HTTP_PORT),
            port("grpc", names::GRPC_PORT),
            port("internal", names::INTERNAL_PORT),
        ],
    };
    Service {
        metadata: metadata(cluster, names::group(&cluster.name, role), Some(role)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(names::selector_labels(&cluster.name, role)),
            publish_not_ready_addresses: Some(true),
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// REST through an ingress controller, when the spec asks for it.
pub(super) fn ingress(cluster: &Cluster) -> Option<Ingress> {
    let wanted = cluster.network.ingress.as_ref()?;
    let mut metadata = metadata(cluster, cluster.name.clone(), Some(Role::Master));
    metadata.annotations = Some(wanted.annotations.clone()).filter(|annotations| !annotations.is_empty());
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: names::client_service(&cluster.name),
            port: Some(ServiceBackendPort { name: Some("http".to_owned()), number: None }),
        }),
        resource: None,
    };
    let path = HTTPIngressPath { path: Some("/".to_owned()), path_type: "Prefix".to_owned(), backend };
    let tls = wanted.tls_secret_ref.as_ref().map(|secret| IngressTLS {
        hosts: Some(vec![wanted.host.clone()]),
        secret_name: Some(secret.name.clone()),
    });
    Some(Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: wanted.class_name.clone(),
            rules: Some(vec![IngressRule {
                host: Some(wanted.host.clone()),
                http: Some(HTTPIngressRuleValue { paths: vec![path] }),
            }]),
            tls: tls.map(|tls| vec![tls]),
            default_backend: None,
        }),
        ..Ingress::default()
    })
}

/// A port that goes to the container port of the same name.
fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
