//! Checks a document's shape against the schema: fields, types, words, bounds.
//! Must not evaluate rules: CEL does that, in `rules`.

use serde_json::{Map, Value};

use super::{
    Problem,
    words::{describe, join, nearest, suggestion},
};

/// What the document says it is.
pub(super) fn identity(document: &Value) -> Vec<Problem> {
    [("apiVersion", "fedtune.io/v1alpha1"), ("kind", "FederatedFineTune")]
        .into_iter()
        .filter(|(field, expected)| document.get(field) != Some(&Value::from(*expected)))
        .map(|(field, expected)| {
            let found = document.get(field).map_or_else(|| "missing".to_owned(), describe);
            Problem::new(field, format!("{field} is {found}; expected {expected}"))
        })
        .collect()
}

/// Everything in `document` that is not as `schema` says.
pub(super) fn shape(schema: &Value, document: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    check(schema, document, "", &mut problems);
    problems
}

fn check(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let kind = schema["type"].as_str().unwrap_or("integer or string");
    match (kind, value) {
        ("object", Value::Object(fields)) => check_object(schema, fields, path, problems),
        ("array", Value::Array(items)) => check_list(schema, items, path, problems),
        ("string" | "integer or string", Value::String(text)) => check_text(schema, text, path, problems),
        ("integer" | "integer or string", Value::Number(number)) if !number.is_f64() => {}
        ("boolean", Value::Bool(_)) => {}
        (_, _) => problems.push(Problem::new(path, wrong_type(kind, value, path))),
    }
}

fn wrong_type(kind: &str, value: &Value, path: &str) -> String {
    let found = describe(value);
    let expected = match (kind, value) {
        ("string", Value::Number(_) | Value::Bool(_)) => {
            return format!("{path} is {found}; write it in quotes, \"{value}\"");
        }
        ("integer", Value::String(text)) if text.parse::<i64>().is_ok() => {
            return format!("{path} is {found}; write it without quotes, {text}");
        }
        ("object", _) => "an object with fields",
        ("array", _) => "a list",
        ("string", _) => "a text",
        ("boolean", _) => "true or false",
        ("integer", _) => "a whole number",
        (_, _) => "a whole number, or one with a unit such as 10Gi",
    };
    format!("{} is {found}; expected {expected}", if path.is_empty() { "the resource" } else { path })
}

fn check_object(schema: &Value, fields: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    let nothing = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&nothing);
    for (field, value) in fields {
        match (properties.get(field), &schema["additionalProperties"]) {
            (Some(property), _) => check(property, value, &join(path, field), problems),
            (None, additional @ Value::Object(_)) => check(additional, value, &join(path, field), problems),
            (None, _) if is_open(schema) => {}
            (None, _) => problems.push(unknown(properties, path, field)),
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for field in required.filter(|field| !fields.contains_key(*field)) {
        problems.push(missing(&properties[field], &join(path, field)));
    }
    at_most(schema, "maxProperties", fields.len(), "entries", path, problems);
}

/// True where fields are as their writer likes, as in a pod overlay.
pub(super) fn is_open(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true)
}

/// `field` is none of `properties`.
pub(super) fn unknown(properties: &Map<String, Value>, path: &str, field: &str) -> Problem {
    let path = join(path, field);
    let sentence = format!("{path} is not a field{}", suggestion(field, properties.keys().map(String::as_str)));
    Problem::new(path, sentence)
}

fn missing(schema: &Value, path: &str) -> Problem {
    let what = schema["description"].as_str().unwrap_or_default().trim_end_matches('.');
    Problem::new(path, format!("{path} is missing ({what})"))
}

fn check_list(schema: &Value, items: &[Value], path: &str, problems: &mut Vec<Problem>) {
    for (index, item) in items.iter().enumerate() {
        check(&schema["items"], item, &format!("{path}[{index}]"), problems);
    }
    at_most(schema, "maxItems", items.len(), "entries", path, problems);
    at_least(schema, "minItems", items.len(), "entries", path, problems);
    for key in schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        check_unique(items.iter().filter_map(|item| item.get(key)), key, path, problems);
    }
    if schema["x-kubernetes-list-type"] == "set" {
        check_unique(items.iter(), "value", path, problems);
    }
}

fn check_unique<'a>(values: impl Iterator<Item = &'a Value>, key: &str, path: &str, problems: &mut Vec<Problem>) {
    let mut seen: Vec<&Value> = Vec::new();
    for value in values {
        if seen.contains(&value) {
            problems
                .push(Problem::new(path, format!("{path} has two entries with the {key} {value}; each has its own")));
        }
        seen.push(value);
    }
}

fn check_text(schema: &Value, text: &str, path: &str, problems: &mut Vec<Problem>) {
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        if !words.contains(&text) {
            let hint =
                nearest(text, words.iter().copied()).map_or_else(String::new, |word| format!("; did you mean {word}?"));
            problems.push(Problem::new(path, format!("{path} is {text}; it is one of {}{hint}", words.join(", "))));
        }
    }
    at_most(schema, "maxLength", text.chars().count(), "characters", path, problems);
    at_least(schema, "minLength", text.chars().count(), "characters", path, problems);
}

fn at_most(schema: &Value, bound: &str, size: usize, unit: &str, path: &str, problems: &mut Vec<Problem>) {
    if let Some(most) = schema[bound].as_u64().filter(|most| size as u64 > *most) {
        problems.push(Problem::new(path, format!("{path} has {size} {unit}; it has at most {most}")));
    }
}

fn at_least(schema: &Value, bound: &str, size: usize, unit: &str, path: &str, problems: &mut Vec<Problem>) {
    if let Some(least) = schema[bound].as_u64().filter(|least| (size as u64) < *least) {
        problems.push(Problem::new(path, format!("{path} has {size} {unit}; it has at least {least}")));
    }
}
