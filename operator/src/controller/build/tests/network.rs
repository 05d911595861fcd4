//! Who may speak to whom.

use serde_json::{Value, json};

use super::fixtures::{built, everything, plain};
use crate::controller::build::{Children, Run};

fn policies(run: &Run) -> Vec<Value> {
    let Children { network_policies, .. } = built(run);
    network_policies.iter().map(|policy| json!(policy)["spec"].clone()).collect()
}

/// Ports of the rules that name no peer, so that they lead anywhere.
fn ports_to_anywhere(policy: &Value) -> Vec<u64> {
    let rules = policy["egress"].as_array().unwrap().iter().filter(|rule| rule.get("to").is_none());
    rules.flat_map(|rule| rule["ports"].as_array().unwrap()).map(|port| port["port"].as_u64().unwrap()).collect()
}

#[test]
fn pods_of_a_run_on_volumes_reach_names_and_nothing_beyond_the_run() {
    for policy in policies(&plain(&[])) {
        assert_eq!(ports_to_anywhere(&policy), [53, 53]);
    }
}

#[test]
fn a_remote_source_opens_its_port_for_the_pods_that_read_it() {
    let [server, hospital, bank] = &policies(&everything(&[]))[..] else { panic!() };
    // The hub's; the common source's, out of which the public set is taken; the store's.
    for policy in [server, hospital, bank] {
        assert_eq!(ports_to_anywhere(policy), [53, 53, 443, 8000, 9000]);
    }
    let groups = "clients.groups=[{name: a, data: {source: {http: {url: \"http://a.example.com/x.csv\"}}}}, {name: b}]";
    let [server, a, b] = &policies(&plain(&[groups]))[..] else { panic!() };
    assert_eq!(ports_to_anywhere(a), [53, 53, 80]);
    for policy in [server, b] {
        assert_eq!(ports_to_anywhere(policy), [53, 53]);
    }
}

#[test]
fn the_server_is_closed_to_strangers_until_it_is_exposed() {
    let from_anywhere = |run: &Run| -> Vec<Value> {
        let rules = policies(run)[0]["ingress"].as_array().unwrap().clone();
        rules.into_iter().filter(|rule| rule.get("from").is_none()).collect()
    };
    assert_eq!(from_anywhere(&plain(&[])), Vec::<Value>::new());
    let open = from_anywhere(&plain(&["server.expose={}"]));
    assert_eq!(open, [json!({"ports": [{"port": 7443, "protocol": "TCP"}]})], "its gRPC port, and no other");
}

#[test]
fn only_pods_of_the_same_run_are_clients() {
    let ingress = &policies(&plain(&[]))[0]["ingress"][0];
    let labels = &ingress["from"][0]["podSelector"]["matchLabels"];
    assert_eq!(labels["fedtune.io/run-uid"], "5f0c1d1e-93aa-4f4b-8c1c-0a1b2c3d4e5f");
    assert_eq!(labels["app.kubernetes.io/component"], "client");
    assert_eq!(labels.as_object().unwrap().len(), 2);
}

#[test]
fn a_client_is_asked_by_prometheus_only() {
    for policy in &policies(&plain(&[]))[1..] {
        let rules = policy["ingress"].as_array().unwrap();
        assert_eq!(rules.len(), 1);
        let from = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}]);
        assert_eq!(rules[0]["from"], from);
        assert_eq!(rules[0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
    }
}
