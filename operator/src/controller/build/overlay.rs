//! A template laid over the pod that the operator makes: merged as JSON by the keys that Kubernetes publishes for its
//! lists.
//! Must not follow directives (`$patch` and the like), and must not know what a field means: that is `refusals` and
//! `restricted`.

use fedtune_crds::template::Template;
use serde_json::{Map, Value, json};

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
    let mut overlay = Value::Object(overlay.0.clone());
    drop_nulls(&mut overlay);
    refusals::check(run, base, &overlay).map_err(problem)?;
    merge(base, &overlay, "");
    restricted::fill_in(base);
    restricted::check(base).map_err(problem)
}

/// The object in `key`, made where there is none; what is something else the API server refuses.
pub(super) fn object<'a>(fields: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    fields.entry(key).or_insert_with(|| json!({})).as_object_mut()
}

/// Drops fields without a value: they say nothing, as everywhere in the API.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Lays `overlay` over `base`, which stands at `path`.
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
    for (key, value) in overlay {
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
