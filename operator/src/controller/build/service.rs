//! Services: the headless one by which clients find the server, and the one that opens it to the outside.
//! Must not lead to a client: nobody dials one.

use fedtune_crds::server::{Expose, ExposeKind};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    Run,
    labels::{Part, owned, selector},
    names::{self, GRPC_PORT, HTTP_PORT},
};

/// The Services of `run`.
pub(super) fn services(run: &Run) -> Vec<Service> {
    [Some(headless(run)), run.spec.server.expose.as_ref().map(|expose| exposed(run, expose))]
        .into_iter()
        .flatten()
        .collect()
}

/// Clients dial the server before it is ready, and each time they look its name up anew: it has no address of its own.
fn headless(run: &Run) -> Service {
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        publish_not_ready_addresses: Some(true),
        ports: Some(vec![port("grpc", GRPC_PORT), port("http", HTTP_PORT)]),
        ..to_the_server(run)
    };
    service(run, names::server(run), spec)
}

fn exposed(run: &Run, expose: &Expose) -> Service {
    let kind = match expose.kind {
        ExposeKind::LoadBalancer => "LoadBalancer",
        ExposeKind::NodePort => "NodePort",
    };
    let spec = ServiceSpec {
        type_: Some(kind.to_owned()),
        load_balancer_class: match expose.kind {
            ExposeKind::LoadBalancer => expose.load_balancer_class.clone(),
            // The API server takes a class for a load balancer only.
            ExposeKind::NodePort => None,
        },
        ports: Some(vec![port("grpc", GRPC_PORT)]),
        ..to_the_server(run)
    };
    let mut service = service(run, names::exposed(run), spec);
    if !expose.annotations.is_empty() {
        service.metadata.annotations = Some(expose.annotations.clone());
    }
    service
}

fn to_the_server(run: &Run) -> ServiceSpec {
    ServiceSpec { selector: selector(run, Part::Server).match_labels, ..ServiceSpec::default() }
}

fn service(run: &Run, name: String, spec: ServiceSpec) -> Service {
    Service { metadata: owned(run, name, Part::Server), spec: Some(spec), status: None }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        // By number: a template may give the port another name.
        target_port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
