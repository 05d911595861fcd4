//! Resources for tests, as the API server would hand them to the operator.
//! Must not be resources that it would refuse: they pass the same rules.

use serde_json::{Value, json};

use crate::controller::build::{Children, Job, Run, Settings, children};

/// `tests/plain.yaml`, changed by `sets` as `fedtune run --set` would.
pub(in crate::controller::build) fn plain(sets: &[&str]) -> Run {
    read(include_str!("plain.yaml"), sets)
}

/// `tests/everything.yaml`, changed by `sets`.
pub(in crate::controller::build) fn everything(sets: &[&str]) -> Run {
    read(include_str!("everything.yaml"), sets)
}

/// The one resource in `yaml`, changed by `sets`.
pub(in crate::controller::build) fn read(yaml: &str, sets: &[&str]) -> Run {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    fedtune_crds::load(yaml, &sets).unwrap_or_else(|error| panic!("{sets:?}: {error}"))
}

/// What the tests' operator was installed with.
pub(in crate::controller::build) fn settings() -> Settings {
    Settings::new("registry.example.com/fedtune:default", "fedtune-system")
}

/// The children of `run` with [`settings`].
pub(in crate::controller::build) fn built(run: &Run) -> Children {
    children(run, &settings()).unwrap_or_else(|error| panic!("{error}"))
}

/// Every child as JSON, in the order in which a person would read them.
pub(in crate::controller::build) fn objects(children: &Children) -> Vec<Value> {
    let Children { config_map, claims, services, network_policies, server, clients } = children;
    let mut objects = vec![json!(config_map)];
    objects.extend(claims.iter().map(|claim| json!(claim)));
    objects.extend(services.iter().map(|service| json!(service)));
    objects.extend(network_policies.iter().map(|policy| json!(policy)));
    objects.extend([server].into_iter().chain(clients).map(|job| job.as_json().clone()));
    objects
}

/// The spec of a Job's pods.
pub(in crate::controller::build) fn pod_spec(job: &Job) -> &Value {
    &job.as_json()["spec"]["template"]["spec"]
}
