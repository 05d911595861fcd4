//! The `CustomResourceDefinition` as a cluster gets it: the derived one, plus the rules that freeze a started run.
//! Must not state a rule about a value: those stand beside the fields.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, core::Rule};
use serde_json::{Map, Value};

use crate::FederatedFineTune;

/// Fields of the spec that may change after the start: none of them changes a result.
pub const FREE_AFTER_START: [&str; 3] = ["suspend", "attempt", "ttlSecondsAfterFinished"];

const HEADER: &str = "# Generated from the types in crds/src by `make generate`; change those.\n";

/// The definition to install.
pub fn definition() -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(FederatedFineTune::crd()).expect("the derived definition is plain data");
    let schema = definition
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .and_then(Value::as_object_mut)
        .expect("kube derives one version with a schema");
    drop_rust_details(schema);
    freeze_after_start(schema);
    serde_json::from_value(definition).expect("still a definition")
}

/// The schema in [`definition`].
pub fn schema() -> Value {
    let version = definition().spec.versions.into_iter().next().expect("one version");
    let schema = version.schema.and_then(|schema| schema.open_api_v3_schema).expect("kube derives a schema");
    serde_json::to_value(schema).expect("a schema is plain data")
}

/// The file that is kept beside the types.
pub fn yaml() -> String {
    let definition = serde_yaml::to_string(&definition()).expect("a definition is plain data");
    format!("{HEADER}{definition}")
}

/// Drops what says more about Rust than about the resource: an unset `Option` is an absent field, never null, and an
/// unsigned integer's bound is a CEL rule, whose sentence can be read.
fn drop_rust_details(schema: &mut Map<String, Value>) {
    schema.remove("nullable");
    schema.remove("title");
    if let Some(Value::String(description)) = schema.get_mut("description") {
        // A doc comment's line ends where the source line does; a terminal breaks lines by itself.
        *description = description.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        schema.remove("format");
        schema.remove("minimum");
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        drop_rust_details(property);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(key).and_then(Value::as_object_mut) {
            drop_rust_details(inner);
        }
    }
}

/// One rule per field, so that the error names it. They stand at the root because only there `status` can be read.
fn freeze_after_start(schema: &mut Map<String, Value>) {
    let spec = schema["properties"]["spec"]["properties"].as_object().expect("the spec is an object");
    let frozen: Vec<Value> = spec
        .keys()
        .filter(|field| !FREE_AFTER_START.contains(&field.as_str()))
        .map(|field| serde_json::to_value(frozen(field)).expect("a rule is plain data"))
        .collect();
    let rules = schema.entry("x-kubernetes-validations").or_insert_with(|| Value::Array(Vec::new()));
    rules.as_array_mut().expect("rules are a list").extend(frozen);
}

/// `field` stays as it is once the operator has begun to make children.
fn frozen(field: &str) -> Rule {
    let open = "!has(self.status) || !has(self.status.phase) || self.status.phase == 'Pending'";
    let same = format!(
        "has(self.spec.{field}) ? has(oldSelf.spec.{field}) && self.spec.{field} == oldSelf.spec.{field} : !has(oldSelf.spec.{field})"
    );
    Rule::new(format!("{open} || ({same})"))
        .message(format!("{field} is fixed once the run has started; give a new resource the new value").as_str())
        .field_path(format!(".spec.{field}"))
}
