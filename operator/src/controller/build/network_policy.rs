//! Who may speak to whom: one policy for the server, one for each managed group.
//! Must not count on being enforced: that is the cluster's, and certificates guard the run without it.

use std::collections::BTreeMap;

use fedtune_crds::network::Egress;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{
    Run, Settings, groups,
    labels::{Part, all_clients, owned, selector},
    names::{self, GRPC_PORT, HTTP_PORT},
    sources,
};

/// Port of names, which a cluster or a node answers at an address of its own.
const DNS: u16 = 53;

/// The policies of `run`.
pub(super) fn policies(run: &Run, settings: &Settings) -> Vec<NetworkPolicy> {
    let clients = groups::managed(run).map(|(index, group)| of_group(run, settings, (index, &group.name)));
    [of_server(run, settings)].into_iter().chain(clients).collect()
}

fn of_server(run: &Run, settings: &Settings) -> NetworkPolicy {
    let mut ingress = vec![
        from(vec![pods(all_clients(run))], GRPC_PORT),
        from(vec![operator(settings), prometheus(settings)], HTTP_PORT),
    ];
    if run.spec.server.expose.is_some() {
        ingress.push(NetworkPolicyIngressRule { from: None, ports: Some(vec![tcp(GRPC_PORT)]) });
    }
    let output = run.spec.output.as_ref().and_then(|output| output.s3.as_ref());
    let remote = sources::remote_ports(&sources::of_server(&run.spec), output);
    policy(run, names::server(run), Part::Server, ingress, egress(run, &remote))
}

fn of_group(run: &Run, settings: &Settings, (index, group): (usize, &str)) -> NetworkPolicy {
    let ingress = vec![from(vec![prometheus(settings)], HTTP_PORT)];
    let remote = sources::remote_ports(&sources::of_group(&run.spec, index), None);
    let server = to(vec![pods(selector(run, Part::Server))], vec![tcp(GRPC_PORT)]);
    let egress = egress(run, &remote).into_iter().chain([server]).collect();
    policy(run, names::clients(run, group), Part::Group(group), ingress, egress)
}

fn policy(
    run: &Run,
    name: String,
    part: Part<'_>,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
) -> NetworkPolicy {
    NetworkPolicy {
        metadata: owned(run, name, part),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(run, part)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }
}

/// Names, remote sources, and what the resource asks for.
fn egress(run: &Run, remote: &[u16]) -> Vec<NetworkPolicyEgressRule> {
    let udp = NetworkPolicyPort { protocol: Some("UDP".to_owned()), ..tcp(DNS) };
    let names = NetworkPolicyEgressRule { to: None, ports: Some(vec![udp, tcp(DNS)]) };
    let sources = NetworkPolicyEgressRule { to: None, ports: Some(remote.iter().copied().map(tcp).collect()) };
    // Without a port in it, a rule opens all of them.
    let sources = (!remote.is_empty()).then_some(sources);
    [Some(names), sources].into_iter().flatten().chain(run.spec.egress.iter().map(network)).collect()
}

fn network(egress: &Egress) -> NetworkPolicyEgressRule {
    let Egress { cidr, ports } = egress;
    let block = NetworkPolicyPeer {
        ip_block: Some(IPBlock { cidr: cidr.clone(), except: None }),
        ..NetworkPolicyPeer::default()
    };
    let ports: Vec<_> = ports.iter().map(|port| tcp(u16::try_from(*port).unwrap_or(u16::MAX))).collect();
    NetworkPolicyEgressRule { to: Some(vec![block]), ports: Some(ports).filter(|ports| !ports.is_empty()) }
}

fn from(peers: Vec<NetworkPolicyPeer>, port: u16) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: Some(peers), ports: Some(vec![tcp(port)]) }
}

fn to(peers: Vec<NetworkPolicyPeer>, ports: Vec<NetworkPolicyPort>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(peers), ports: Some(ports) }
}

fn tcp(port: u16) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::Int(i32::from(port))),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    }
}

/// Pods of the run's own namespace.
fn pods(selector: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(selector), ..NetworkPolicyPeer::default() }
}

fn operator(settings: &Settings) -> NetworkPolicyPeer {
    let namespace = ("kubernetes.io/metadata.name".to_owned(), settings.operator_namespace.clone());
    NetworkPolicyPeer {
        namespace_selector: Some(labelled(BTreeMap::from([namespace]))),
        pod_selector: Some(labelled(settings.operator_labels.clone())),
        ip_block: None,
    }
}

fn prometheus(settings: &Settings) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        // Of every namespace.
        namespace_selector: Some(LabelSelector::default()),
        pod_selector: Some(labelled(settings.prometheus_labels.clone())),
        ip_block: None,
    }
}

fn labelled(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), match_expressions: None }
}
