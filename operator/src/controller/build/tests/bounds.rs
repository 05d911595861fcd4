//! Names and labels fit into Kubernetes' bounds, whatever the resource is called.

use std::iter;

use serde_json::Value;

use super::fixtures::{built, objects, plain};
use crate::controller::build::{Run, names};

/// A label's, a Job's with its pods' host names, and a Service's.
const LABEL: usize = 63;

/// Names of every length that a resource, or a group, may have.
fn of_every_length(longest: usize) -> impl Iterator<Item = String> {
    (1..=longest).map(|length| iter::repeat_n('a', length - 1).chain(['z']).collect())
}

fn named(name: &str, group: &str, replicas: u32, attempt: u32) -> Run {
    let groups = format!("clients.groups=[{{name: {group}, replicas: {replicas}}}]");
    plain(&[&format!("metadata.name={name}"), &groups, &format!("attempt={attempt}")])
}

#[test]
fn the_last_pod_of_every_job_has_a_host_name_that_fits() {
    let mut run = named("z", "z", 9999, 99);
    for name in of_every_length(34) {
        run.metadata.name = Some(name);
        for group in of_every_length(12) {
            let last = format!("{}-9998", names::client_job(&run, &group));
            assert!(last.len() <= LABEL, "{last} has {} characters", last.len());
        }
    }
}

#[test]
fn the_longest_pod_takes_the_bound_whole() {
    let name = of_every_length(34).last().unwrap();
    let group = of_every_length(12).last().unwrap();
    let run = named(&name, &group, 9999, 99);
    assert_eq!(format!("{}-9998", names::client_job(&run, &group)).len(), LABEL);
}

#[test]
fn every_object_has_a_name_and_labels_that_fit() {
    for name in of_every_length(34).step_by(11) {
        for group in of_every_length(12).step_by(11) {
            for object in objects(&built(&named(&name, &group, 9999, 99))) {
                let metadata = &object["metadata"];
                let name = metadata["name"].as_str().unwrap();
                assert!(name.len() <= LABEL, "{name}");
                assert!(name.starts_with(|first: char| first.is_ascii_lowercase()), "{name}");
                let labels = metadata["labels"].as_object().unwrap();
                assert!(labels.values().all(|value| value.as_str().unwrap().len() <= LABEL), "{labels:?}");
            }
        }
    }
}

#[test]
fn no_two_objects_of_a_kind_share_a_name() {
    let groups = "clients.groups=[{name: server1}, {name: tls}, {name: ca}, {name: run}]";
    let objects = objects(&built(&plain(&[groups, "server.expose={}", "cache={volumeClaim: {}}"])));
    let mut seen: Vec<(&Value, &Value)> =
        objects.iter().map(|object| (&object["kind"], &object["metadata"]["name"])).collect();
    let count = seen.len();
    seen.sort_by_key(|(kind, name)| format!("{kind} {name}"));
    seen.dedup();
    assert_eq!(seen.len(), count);
}
