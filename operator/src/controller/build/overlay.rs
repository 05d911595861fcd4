//! A template laid over the pod that the operator makes: merged as JSON by the keys that Kubernetes publishes for its
//! lists.
//! Must not follow directives (`$patch` and the like), and must not know what a field means: that is `refusals` and
//! `restricted`.

use fedtune_crds::template::Template;
use serde_json::{Map, Value};

use super::{BuildError, Run, refusals, restricted};

/// A list whose entries are told apart by these fields, each with what it is where it is left out.
pub type Keys = &'static [(&'static str, &'static str)];

/// Lists of a pod template whose entries are merged one by one; any other list is replaced as a whole.
pub const LISTS: [(&str, Keys); 9] = [
    ("spec.containers", &[("name", "")]),
    ("spec.initContainers", &[("name", "")]),
    ("spec.volumes", &[("name", "")]),
    ("spec.imagePullSecrets", &[("name", "")]),
    ("spec.resourceClaims", &[("name", "")]),
    ("spec.resources.claims", &[("name", "")]),
    ("spec.schedulingGates", &[("name", "")]),
    ("spec.hostAliases", &[("ip", "")]),
    ("spec.topologySpreadConstraints", &[("topologyKey", ""), ("whenUnsatisfiable", "")]),
];

/// Such lists of each container.
pub const LISTS_OF_CONTAINERS: [(&str, Keys); 5] = [
    ("env", &[("name", "")]),
    ("volumeMounts", &[("mountPath", "")]),
    ("volumeDevices", &[("devicePath", "")]),
    ("ports", &[("containerPort", ""), ("protocol", "TCP")]),
    ("resources.claims", &[("name", "")]),
];

/// Lays `overlay`, which stands at `path` of the resource, over the pod template `base`.
///
/// # Errors
/// Where it sets what is ours, or what the `restricted` level forbids.
pub(super) fn apply(run: &Run, base: &mut Value, overlay: &Template, path: &str) -> Result<(), BuildError> {
    let problem = |sentence| BuildError::Template { path: path.to_owned(), sentence };
    refusals::check(run, base, &overlay.0).map_err(problem)?;
    merge(base, &Value::Object(overlay.0.clone()), "");
    restricted::fill_in(base);
    restricted::check(base).map_err(problem)
}

/// Lays `overlay` over `base`, which stands at `path`. A field without a value says nothing, as everywhere.
fn merge(base: &mut Value, overlay: &Value, path: &str) {
    match (base, overlay) {
        (Value::Object(base), Value::Object(overlay)) => merge_fields(base, overlay, path),
        (Value::Array(base), Value::Array(overlay)) if keys(path).is_some() => {
            let keys = keys(path).unwrap_or_default();
            for entry in overlay {
                merge_entry(base, entry, keys, path);
            }
        }
        (base, overlay) => base.clone_from(overlay),
    }
}

fn merge_fields(base: &mut Map<String, Value>, overlay: &Map<String, Value>, path: &str) {
    for (key, value) in overlay.iter().filter(|(_, value)| !value.is_null()) {
        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match base.get_mut(key) {
            Some(field) => merge(field, value, &place),
            None => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

/// Merges an entry into the one with the same keys, else adds it after all others.
fn merge_entry(base: &mut Vec<Value>, entry: &Value, keys: Keys, path: &str) {
    let same = |other: &&mut Value| keys.iter().all(|key| part(other, *key) == part(entry, *key));
    match base.iter_mut().find(same) {
        // Places have no numbers: an entry's fields stand where its list does.
        Some(found) => merge(found, entry, path),
        None => base.push(entry.clone()),
    }
}

fn part(entry: &Value, (key, otherwise): (&str, &str)) -> Value {
    entry.get(key).cloned().unwrap_or_else(|| Value::from(otherwise))
}

/// What tells the entries of the list at `path` apart, if they are merged.
fn keys(path: &str) -> Option<Keys> {
    let of_containers = ["spec.containers.", "spec.initContainers."].iter().find_map(|list| path.strip_prefix(list));
    let found = match of_containers {
        Some(field) => LISTS_OF_CONTAINERS.iter().find(|(place, _)| *place == field),
        None => LISTS.iter().find(|(place, _)| *place == path),
    };
    found.map(|(_, keys)| *keys)
}

#[cfg(test)]
mod tests;
