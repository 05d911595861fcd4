//! One text, and one hash, for specs that ask for the same result.
//! Must not look at models or data: their own hashes stand beside this one in a report.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    FederatedFineTuneSpec,
    clients::{Clients, Group},
    training::{LocalWork, Training},
};

/// What decides a run's result, as JSON with sorted keys, without spaces, defaults filled in.
///
/// Left out is what cannot change a bit of the adapter: `experiment`, `server`, `output`, `image`, `suspend`,
/// `attempt`, deadlines, retention, volumes, network and metrics, and of a group its `placement`, `state` and
/// `template`.
pub fn canonical_json(spec: &FederatedFineTuneSpec) -> String {
    sorted(&deciding(spec))
}

/// SHA-256 of [`canonical_json`] in hexadecimal.
pub fn spec_hash(spec: &FederatedFineTuneSpec) -> String {
    hex(&Sha256::digest(canonical_json(spec)))
}

/// Bytes in hexadecimal, as hashes are written everywhere.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

/// Takes the spec apart by name, so that a new field cannot be forgotten here.
fn deciding(spec: &FederatedFineTuneSpec) -> Value {
    let FederatedFineTuneSpec {
        experiment: _,
        framework,
        model,
        tuning,
        data,
        training,
        participation,
        stop,
        seed,
        clients: Clients { groups },
        server: _,
        output: _,
        image: _,
        suspend: _,
        attempt: _,
        active_deadline_seconds: _,
        ttl_seconds_after_finished: _,
        retention_policy: _,
        resume_from: _,
        cache: _,
        egress: _,
        service_account_name: _,
        metrics: _,
    } = spec;
    json!({
        "framework": framework,
        "model": model,
        "tuning": tuning,
        "data": data,
        "training": with_local_work(training),
        "participation": participation,
        "stop": stop,
        "seed": seed,
        "groups": groups.iter().map(deciding_of_group).collect::<Vec<_>>(),
    })
}

fn deciding_of_group(group: &Group) -> Value {
    let Group { name, replicas, rank, cut_layer, data, max_examples, placement: _, state: _, template: _ } = group;
    json!({
        "name": name,
        "replicas": replicas,
        "rank": rank,
        "cutLayer": cut_layer,
        "data": data,
        "maxExamples": max_examples,
    })
}

/// `training` with its one default that depends on two fields.
fn with_local_work(training: &Training) -> Training {
    let local_steps = match training.local_work() {
        LocalWork::Steps(steps) => Some(steps),
        LocalWork::Epochs(_) => None,
    };
    Training { local_steps, ..training.clone() }
}

/// `value` with the keys of every object in order, whatever map `serde_json` was built with, and without fields that
/// are null, so that a new optional field changes no hash where it is not used.
pub fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().filter(|(_, field)| !field.is_null()).collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<String> =
                fields.into_iter().map(|(key, value)| format!("{}:{}", json!(key), sorted(value))).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests;
