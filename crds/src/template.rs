//! A pod overlay: a piece of a pod template as its writer wrote it.
//! Must not be parsed into Kubernetes' types: they drop what they do not know without a word.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Fields of a pod template, as in `{spec: {nodeSelector: {pool: gpu}}}`; the API server checks them when the Job is
/// made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(pub Map<String, Value>);

impl JsonSchema for Template {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "maxProperties": 16, "x-kubernetes-preserve-unknown-fields": true})
    }
}
