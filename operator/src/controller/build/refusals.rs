//! What a template may not set, because a run would not be what its resource says: each with what to do instead.
//! Must not judge security: that is `restricted`.

use fedtune_crds::clients::Group;
use serde_json::{Map, Value};

use super::{Run, labels, mount::PREFIX, names, pod::TRAINER};

/// What is wrong with a template, from its own path on.
type Sentence = String;

/// Fields of a pod that are the operator's, each with why.
const OF_THE_POD: [(&str, &str); 2] = [
    ("restartPolicy", "the run's Jobs restart its pods; leave it out"),
    ("automountServiceAccountToken", "no pod of a run speaks to the API server; leave it out"),
];

/// Fields of the trainer's container that are the operator's, each with why.
const OF_THE_TRAINER: [(&str, &str); 4] = [
    ("command", "the operator says what the trainer does; leave it out"),
    ("args", "the operator says what the trainer does, from the resource's spec; leave it out"),
    ("terminationMessagePath", "the operator reads the trainer's last words there; leave it out"),
    ("terminationMessagePolicy", "the operator reads the trainer's last words; leave it out"),
];

/// Metadata that a template may add to.
const METADATA: [&str; 2] = ["labels", "annotations"];

/// Refuses what `overlay` may not set in the pod template `base` of `run`.
pub(super) fn check(run: &Run, base: &Value, overlay: &Value) -> Result<(), Sentence> {
    if let Some(metadata) = part(overlay, "metadata", "a template's metadata")? {
        check_metadata(base, metadata)?;
    }
    let Some(spec) = part(overlay, "spec", "a template's spec")? else { return Ok(()) };
    set_any(spec, &OF_THE_POD, "spec")?;
    check_volumes(spec)?;
    for list in ["containers", "initContainers"] {
        for container in entries(spec, list) {
            check_container(base, container, list)?;
        }
    }
    check_secrets(run, base, spec)
}

/// The object in `field`. The API server would say less clearly that it must be one.
fn part<'a>(of: &'a Value, field: &str, what: &str) -> Result<Option<&'a Value>, Sentence> {
    match of.get(field) {
        None => Ok(None),
        Some(found) if found.is_object() => Ok(Some(found)),
        Some(found) => Err(format!("{what} is an object with fields, and not {found}")),
    }
}

fn check_metadata(base: &Value, metadata: &Value) -> Result<(), Sentence> {
    let mut keys = metadata.as_object().into_iter().flat_map(Map::keys);
    if let Some(key) = keys.find(|key| !METADATA.contains(&key.as_str())) {
        return Err(format!("metadata.{key} is not a template's to set; it takes labels and annotations"));
    }
    for kind in METADATA {
        let ours = &base["metadata"][kind];
        let Some(theirs) = part(metadata, kind, &format!("metadata.{kind}"))? else { continue };
        let mut theirs = theirs.as_object().into_iter().flatten();
        if let Some((key, value)) = theirs.clone().find(|(_, value)| !value.is_string()) {
            return Err(format!("metadata.{kind} holds texts, and {key} is {value}; write it in quotes"));
        }
        let taken = theirs.find(|(key, value)| ours.get(*key).is_some_and(|ours| ours != *value));
        if let Some((key, _)) = taken {
            return Err(format!("metadata.{kind} may not change {key}, by which the run's pods are found"));
        }
    }
    Ok(())
}

fn check_volumes(spec: &Value) -> Result<(), Sentence> {
    let ours = entries(spec, "volumes").find_map(|volume| named(volume).filter(|name| is_ours(name)));
    match ours {
        Some(name) => Err(format!("the volume {name} is the operator's; give yours a name without {PREFIX} before it")),
        None => Ok(()),
    }
}

fn check_container(base: &Value, container: &Value, list: &str) -> Result<(), Sentence> {
    let place = format!("spec.{list}[{}]", named(container).unwrap_or_default());
    for kind in ["volumeMounts", "volumeDevices"] {
        if let Some(name) = entries(container, kind).find_map(|mount| named(mount).filter(|name| is_ours(name))) {
            return Err(format!("{place}.{kind} may not mount {name}, which is the operator's"));
        }
    }
    if list != "containers" || named(container) != Some(TRAINER) {
        return Ok(());
    }
    set_any(container, &OF_THE_TRAINER, &place)?;
    check_variables(container, &place)?;
    check_mounts(base, container, &place)
}

/// Variables that the trainer takes for its arguments, or that say which client it is.
fn check_variables(container: &Value, place: &str) -> Result<(), Sentence> {
    let ours = |name: &&str| name.starts_with("FEDTUNE_") || *name == "JOB_COMPLETION_INDEX";
    match entries(container, "env").filter_map(named).find(ours) {
        Some(name) => Err(format!("{place}.env may not set {name}, which the operator and Kubernetes do")),
        None => Ok(()),
    }
}

/// A mount at or below one of ours would hide it or a part of it.
fn check_mounts(base: &Value, container: &Value, place: &str) -> Result<(), Sentence> {
    let path = |mount: &Value| mount["mountPath"].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
    let of_trainer = &base["spec"]["containers"][0];
    for mount in entries(container, "volumeMounts") {
        let theirs = path(mount);
        let hidden = entries(of_trainer, "volumeMounts").filter(|ours| named(ours).is_some_and(is_ours)).map(path);
        let hides = |ours: &String| theirs == *ours || theirs.starts_with(&format!("{ours}/"));
        if let Some(ours) = hidden.into_iter().find(hides) {
            return Err(format!(
                "{place}.volumeMounts may not mount at {theirs}: the operator's own volume is at {ours}"
            ));
        }
    }
    Ok(())
}

/// A group gets no other group's certificate, and nobody the CA's key.
fn check_secrets(run: &Run, base: &Value, spec: &Value) -> Result<(), Sentence> {
    let own = base["metadata"]["labels"][labels::GROUP].as_str();
    let groups = &run.spec.clients.groups;
    let others = groups.iter().filter(|group| Some(group.name.as_str()) != own);
    let secrets = |Group { name, .. }: &Group| [names::tls(run, name), names::join(run, name)];
    let forbidden: Vec<String> = others.flat_map(secrets).chain([names::ca(run), names::server_tls(run)]).collect();
    match mention(spec, &forbidden) {
        Some(name) => Err(format!("the Secret {name} is not this pod's to read")),
        None => Ok(()),
    }
}

/// The first of `names` that is a text in `value`.
fn mention<'a>(value: &'a Value, names: &[String]) -> Option<&'a str> {
    match value {
        Value::String(text) => names.contains(text).then_some(text.as_str()),
        Value::Array(items) => items.iter().find_map(|item| mention(item, names)),
        Value::Object(fields) => fields.values().find_map(|field| mention(field, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn set_any(object: &Value, fields: &[(&str, &str)], place: &str) -> Result<(), Sentence> {
    let set = fields.iter().find(|(field, _)| object.get(field).is_some());
    set.map_or(Ok(()), |(field, why)| Err(format!("{place}.{field} is not a template's to set: {why}")))
}

fn is_ours(volume: &str) -> bool {
    volume.starts_with(PREFIX)
}

fn named(entry: &Value) -> Option<&str> {
    entry.get("name").and_then(Value::as_str)
}

fn entries<'a>(object: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    object.get(list).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests;
