use serde_json::json;

use super::*;
use crate::controller::build::{
    children,
    tests::fixtures::{built, everything, plain, pod_spec, settings},
};

fn merged(base: Value, overlay: &Value) -> Value {
    let mut base = base;
    merge(&mut base, overlay, "");
    base
}

#[test]
fn containers_are_merged_by_name_and_new_ones_come_after() {
    let base = json!({"spec": {"containers": [{"name": "trainer", "image": "a", "args": ["x"]}]}});
    let overlay = json!({"spec": {"containers": [{"name": "sidecar"}, {"name": "trainer", "image": "b"}]}});
    let expected = json!([{"name": "trainer", "image": "b", "args": ["x"]}, {"name": "sidecar"}]);
    assert_eq!(merged(base, &overlay)["spec"]["containers"], expected);
}

#[test]
fn each_list_is_merged_by_the_keys_that_kubernetes_publishes() {
    for (list, keys) in LISTS {
        let entry = |more: &str| {
            let mut entry = json!({"more": more});
            for (key, _) in keys {
                entry[*key] = json!("same");
            }
            entry
        };
        let nest = |entries: Value| list.rsplit('.').fold(entries, |inner, name| json!({ name: inner }));
        let found = merged(nest(json!([entry("old")])), &nest(json!([entry("new")])));
        assert_eq!(found, nest(json!([entry("new")])), "{list}");
    }
}

#[test]
fn mounts_are_merged_by_path_and_variables_by_name_in_every_container() {
    for list in ["containers", "initContainers"] {
        let of = |value: Value| json!({"spec": {list: [value]}});
        let base = json!({"name": "x", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"mountPath": "/a", "name": "v"}]});
        let overlay = json!({"name": "x", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "3"}],
            "volumeMounts": [{"mountPath": "/a", "readOnly": true}]});
        let expected = json!({"name": "x", "env": [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}],
            "volumeMounts": [{"mountPath": "/a", "name": "v", "readOnly": true}]});
        assert_eq!(merged(of(base), &of(overlay)), of(expected));
    }
}

#[test]
fn a_port_without_a_protocol_is_the_one_of_tcp() {
    let of = |ports: Value| json!({"spec": {"containers": [{"name": "trainer", "ports": ports}]}});
    let base = of(json!([{"containerPort": 1, "protocol": "TCP"}]));
    let found = merged(base, &of(json!([{"containerPort": 1, "name": "a"}, {"containerPort": 1, "protocol": "UDP"}])));
    let expected =
        json!([{"containerPort": 1, "protocol": "TCP", "name": "a"}, {"containerPort": 1, "protocol": "UDP"}]);
    assert_eq!(found, of(expected));
}

#[test]
fn spread_constraints_are_told_apart_by_both_their_keys() {
    let of = |list: Value| json!({"spec": {"topologySpreadConstraints": list}});
    let base = json!({"topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1});
    let other = json!({"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 2});
    assert_eq!(merged(of(json!([base])), &of(json!([other]))), of(json!([base, other])));
}

#[test]
fn a_list_without_keys_is_replaced() {
    for list in ["tolerations", "readinessGates"] {
        let of = |entries: Value| json!({"spec": {list: entries}});
        assert_eq!(
            merged(of(json!([{"key": "a"}, {"key": "b"}])), &of(json!([{"key": "c"}]))),
            of(json!([{"key": "c"}]))
        );
    }
}

#[test]
fn a_field_without_a_value_says_nothing() {
    let run = plain(&[
        "server.template={spec: {nodeSelector: {a: b}, containers: [{name: helper, image: x, securityContext: }]}}",
    ]);
    let server = built(&run).server;
    let helper = &pod_spec(&server)["containers"][1];
    assert_eq!(helper["securityContext"]["allowPrivilegeEscalation"], false, "{helper}");
    let mut template = json!({"a": null, "b": [{"c": null, "d": 1}]});
    drop_nulls(&mut template);
    assert_eq!(template, json!({"b": [{"d": 1}]}));
}

#[test]
fn what_nobody_knows_is_kept_for_the_api_server_to_refuse() {
    let overlay = json!({"spec": {"nodeSelektor": {"a": "b"}, "containers": [{"name": "t", "$patch": "delete"}]}});
    let found = merged(json!({"spec": {"containers": [{"name": "t"}]}}), &overlay);
    assert_eq!(found["spec"]["nodeSelektor"], json!({"a": "b"}));
    assert_eq!(found["spec"]["containers"], json!([{"name": "t", "$patch": "delete"}]));
}

/// Each place in `value`, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, field)| places(field, &format!("{at}/{}", key.replace('/', "~1")), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{at}/{index}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn a_template_of_any_shape_has_an_answer() {
    let run = everything(&[]);
    let template = json!(run.spec.clients.groups[0].template);
    let mut all = Vec::new();
    places(&template, "", &mut all);
    // The template itself is an object by the resource's own rules.
    for place in all.iter().filter(|place| !place.is_empty()) {
        for wrong in [json!({}), json!([]), json!("text"), json!(1), json!(true), json!(["text"]), json!([{}])] {
            let mut template = template.clone();
            *template.pointer_mut(place).unwrap() = wrong.clone();
            let mut run = run.clone();
            run.spec.clients.groups[0].template = Some(serde_json::from_value(template).unwrap());
            match children(&run, &settings()) {
                Ok(children) => assert!(children.clients[0].to_pod().metadata.name.is_some()),
                Err(error) => assert!(error.to_string().starts_with("spec.clients.groups[0].template: "), "{error}"),
            }
        }
    }
    assert!(all.len() > 50, "{}", all.len());
}
