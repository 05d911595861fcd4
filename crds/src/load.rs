//! Reads `FederatedFineTune` resources from YAML and checks them by the rules that the API server applies.
//! Must not touch a file or a cluster, and must not stop at the first problem: a writer wants to see all of them.

mod check;
mod rules;
mod set;
mod size;
mod words;

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::FederatedFineTune;

/// Why YAML gave no resource.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not YAML.
    #[error("this is not YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// No resource in it.
    #[error("there is no resource; one begins with apiVersion: fedtune.io/v1alpha1")]
    Empty,
    /// More resources than the one that was asked for.
    #[error("there are {0} resources, expected one")]
    Several(usize),
    /// Resources that break rules.
    #[error("{}", sentences(.0))]
    Problems(Vec<Problem>),
}

impl LoadError {
    /// Each problem as one sentence.
    pub fn sentences(&self) -> Vec<String> {
        match self {
            Self::Problems(problems) => problems.iter().map(ToString::to_string).collect(),
            Self::Yaml(_) | Self::Empty | Self::Several(_) => vec![self.to_string()],
        }
    }
}

fn sentences(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong with a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Problem {
    /// Where, as in `spec.tuning.lora.rank`.
    pub path: String,
    /// What is wrong and what would be right, path included.
    pub sentence: String,
}

impl Problem {
    fn new(path: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { path: path.into(), sentence: sentence.into() }
    }
}

/// The one resource in `yaml`, after the overrides `sets` (`tuning.lora.rank=16`, with or without `spec.` before it).
///
/// # Errors
/// All that is wrong with it, one sentence each.
pub fn load(yaml: &str, sets: &[String]) -> Result<FederatedFineTune, LoadError> {
    let mut resources = load_all(yaml, sets)?;
    match resources.len() {
        1 => Ok(resources.remove(0)),
        count => Err(LoadError::Several(count)),
    }
}

/// Every resource in `yaml`, whose documents are parted by `---`; each gets the overrides `sets`.
///
/// # Errors
/// All that is wrong with all of them, one sentence each; where there are several, each begins with its resource's
/// name.
pub fn load_all(yaml: &str, sets: &[String]) -> Result<Vec<FederatedFineTune>, LoadError> {
    let documents = parse(yaml)?;
    let several = documents.len() > 1;
    let mut resources = Vec::new();
    let mut problems = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let name = document_name(&document, index);
        match read(document, sets) {
            Ok(resource) => resources.push(resource),
            Err(found) if several => problems.extend(found.into_iter().map(|problem| problem.of(&name))),
            Err(found) => problems.extend(found),
        }
    }
    match (problems.is_empty(), resources.is_empty()) {
        (true, true) => Err(LoadError::Empty),
        (true, false) => Ok(resources),
        (false, _) => Err(LoadError::Problems(problems)),
    }
}

/// Every document in `yaml` after the overrides `sets`, as `kubectl apply` would send it: unchecked, without defaults.
///
/// # Errors
/// What is not YAML, and overrides that cannot be applied, one sentence each.
pub fn documents(yaml: &str, sets: &[String]) -> Result<Vec<Value>, LoadError> {
    let mut documents = parse(yaml)?;
    let problems: Vec<Problem> =
        documents.iter_mut().flat_map(|document| set::apply(&SCHEMA, document, sets)).collect();
    if problems.is_empty() { Ok(documents) } else { Err(LoadError::Problems(problems)) }
}

impl Problem {
    fn of(self, name: &str) -> Self {
        Self { sentence: format!("{name}: {}", self.sentence), ..self }
    }
}

fn document_name(document: &Value, index: usize) -> String {
    let name = document.pointer("/metadata/name").and_then(Value::as_str);
    name.map_or_else(|| format!("resource {}", index + 1), str::to_owned)
}

/// The documents of `yaml` as JSON, merge keys (`<<`) resolved, empty ones left out.
fn parse(yaml: &str) -> Result<Vec<Value>, serde_yaml::Error> {
    size::check(yaml)?;
    let mut documents = Vec::new();
    for document in serde_yaml::Deserializer::from_str(yaml) {
        // By way of YAML's own value: it refuses a key that is there twice, JSON's takes the last one silently.
        let mut document = serde_yaml::Value::deserialize(document)?;
        document.apply_merge()?;
        if !document.is_null() {
            documents.push(serde_json::to_value(document).map_err(<serde_yaml::Error as serde::de::Error>::custom)?);
        }
    }
    Ok(documents)
}

/// From a document to a resource: overrides, shape, rules, defaults, types.
fn read(mut document: Value, sets: &[String]) -> Result<FederatedFineTune, Vec<Problem>> {
    let mut problems = set::apply(&SCHEMA, &mut document, sets);
    drop_nulls(&mut document);
    if let Some(resource) = document.as_object_mut() {
        resource.remove("status");
    }
    problems.extend(check::identity(&document));
    problems.extend(check::shape(&SCHEMA, &document));
    let broken = rules::broken(&document, &problems);
    problems.extend(broken);
    if !problems.is_empty() {
        return Err(problems);
    }
    let complete = kube::core::cel::apply_defaults(&SCHEMA, &document);
    serde_json::from_value(complete)
        .map_err(|error| vec![Problem::new("", format!("the resource cannot be read: {error}"))])
}

/// The definition's schema, and what the API server knows without being told: `apiVersion`, `kind` and `metadata`.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = crate::crd::schema();
    let known = json!({
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string", "description": "The resource's name."}},
            "x-kubernetes-preserve-unknown-fields": true,
        },
    });
    let known: Map<String, Value> = serde_json::from_value(known).expect("an object");
    schema["properties"].as_object_mut().expect("the resource is an object").extend(known);
    schema
});

/// Drops fields that are null, as the API server does; `key:` without a value is the same as no key.
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

#[cfg(test)]
mod tests;
