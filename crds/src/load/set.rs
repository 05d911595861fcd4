//! Applies overrides of the command line, `--set training.rounds=5`, to a document.
//! Must not judge a value: the checks after it do, as if the file had said it.

use serde_json::{Map, Value};

use super::{
    Problem,
    check::{is_open, unknown},
};

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

/// Applies each of `sets` to `document`; what cannot be applied comes back.
pub(super) fn apply(schema: &Value, document: &mut Value, sets: &[String]) -> Vec<Problem> {
    sets.iter()
        .filter_map(|set| {
            let problem = apply_one(schema, document, set).err()?;
            Some(Problem { sentence: format!("--set {set}: {}", problem.sentence), ..problem })
        })
        .collect()
}

fn apply_one(schema: &Value, document: &mut Value, set: &str) -> Result<(), Problem> {
    let (path, text) = set
        .split_once('=')
        .ok_or_else(|| Problem::new(set, "there is no =; write path=value, as in training.rounds=5"))?;
    let steps = steps(path)?;
    let schemas = descend(schema, &steps)?;
    let value = parse(schemas.last().expect("a path has a step"), text)
        .map_err(|error| Problem::new(path, format!("the value is not YAML: {error}")))?;
    write(document, &steps, &schemas, value)
}

/// `path` as steps from the root; `spec` is understood where it is left out.
fn steps(path: &str) -> Result<Vec<Step<'_>>, Problem> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let (field, indices) = part.split_once('[').map_or((part, None), |(field, rest)| (field, Some(rest)));
        if field.is_empty() {
            return Err(Problem::new(path, "a part of the path is empty; write it as in clients.groups[0].replicas"));
        }
        steps.push(field.parse().map_or(Step::Field(field), Step::Index));
        for index in indices.into_iter().flat_map(|indices| indices.split('[')) {
            let index = index.strip_suffix(']').and_then(|index| index.parse().ok());
            let index = index
                .ok_or_else(|| Problem::new(path, "an index is a number in [], as in clients.groups[0].replicas"))?;
            steps.push(Step::Index(index));
        }
    }
    if !matches!(steps.first(), Some(Step::Field("spec" | "metadata"))) {
        steps.insert(0, Step::Field("spec"));
    }
    Ok(steps)
}

/// The schema after each step.
fn descend<'a>(root: &'a Value, steps: &[Step<'_>]) -> Result<Vec<&'a Value>, Problem> {
    let mut path = String::new();
    let mut schema = root;
    let mut schemas = Vec::new();
    for step in steps {
        schema = match step {
            Step::Field(field) => field_schema(schema, &path, field)?,
            Step::Index(index) if is_open(schema) || schema["type"] == "object" => {
                field_schema(schema, &path, &index.to_string())?
            }
            Step::Index(_) => &schema["items"],
        };
        if schema.is_null() {
            return Err(Problem::new(path.clone(), format!("{path} is one value, without fields or entries")));
        }
        path = describe(&path, step);
        schemas.push(schema);
    }
    Ok(schemas)
}

fn field_schema<'a>(schema: &'a Value, path: &str, field: &str) -> Result<&'a Value, Problem> {
    if schema["type"] == "array" {
        return Err(Problem::new(path, format!("{path} is a list; say which entry, as in {path}[0].{field}")));
    }
    let additional = &schema["additionalProperties"];
    match schema["properties"].get(field) {
        Some(property) => Ok(property),
        None if additional.is_object() => Ok(additional),
        None if is_open(schema) => Ok(schema),
        None if schema["type"] != "object" => Ok(&Value::Null),
        None => {
            let nothing = Map::new();
            Err(unknown(schema["properties"].as_object().unwrap_or(&nothing), path, field))
        }
    }
}

fn describe(path: &str, step: &Step<'_>) -> String {
    match step {
        Step::Field(field) => super::words::join(path, field),
        Step::Index(index) => format!("{path}[{index}]"),
    }
}

/// `text` as a value: as it stands where the schema wants text, so that `alpha=16` needs no quotes, else as YAML.
fn parse(schema: &Value, text: &str) -> Result<Value, serde_yaml::Error> {
    if schema["type"] == "string" { Ok(Value::from(text)) } else { serde_yaml::from_str(text) }
}

/// Writes `value` at the end of `steps`, making what lies between; a list is filled with its default before it is
/// entered.
fn write(document: &mut Value, steps: &[Step<'_>], schemas: &[&Value], value: Value) -> Result<(), Problem> {
    let mut place = document;
    let mut path = String::new();
    for (step, schema) in steps.iter().zip(schemas) {
        place = match (step, place) {
            (Step::Index(index), Value::Array(items)) => {
                let count = items.len();
                items.get_mut(*index).ok_or_else(|| {
                    Problem::new(
                        path.clone(),
                        format!("{path} has {count} entries, counted from 0; there is no [{index}]"),
                    )
                })?
            }
            (Step::Index(index), place) => field_of(place, &index.to_string(), schema),
            (Step::Field(field), place) => field_of(place, field, schema),
        };
        path = describe(&path, step);
    }
    *place = value;
    Ok(())
}

/// The field of `place`, which becomes an object if it is none.
fn field_of<'a>(place: &'a mut Value, field: &str, schema: &Value) -> &'a mut Value {
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    let fields = place.as_object_mut().expect("made an object above");
    fields.entry(field).or_insert_with(|| {
        if schema["type"] == "array" {
            schema.get("default").cloned().unwrap_or_else(|| Value::Array(Vec::new()))
        } else {
            Value::Null
        }
    })
}
