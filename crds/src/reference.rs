//! The page on every field of the resource, from the schema that a cluster gets.
//! Must not say anything that the schema does not.

pub mod metrics;

use serde_json::{Map, Value};

use crate::crd;

const HEADER: &str = "<!-- Generated from the types in crds/src by `make generate`; change those. -->\n
# The resource\n
Every field of `FederatedFineTune`, `fedtune.io/v1alpha1`. A field without a default may be left out unless it is said to be needed.
`fedtune run` and the API server refuse what breaks a rule, in the same words.\n";

/// The page, as Markdown: a section for each object, a row for each of its fields.
pub fn markdown() -> String {
    let schema = crd::schema();
    let mut page = HEADER.to_owned();
    for part in ["spec", "status"] {
        write_object(&mut page, part, &schema["properties"][part]);
    }
    page
}

/// A section for an object, and then those of the objects in it.
fn write_object(page: &mut String, path: &str, schema: &Value) {
    let heading = format!("\n## `{path}`\n\n{}\n", line(&schema["description"]));
    page.push_str(&heading);
    page.extend(rules(schema).map(|rule| format!("\n- {rule}")));
    page.push_str("\n\n| field | is | default | |\n|---|---|---|---|\n");
    for (name, field) in properties(schema) {
        page.push_str(&row(path, name, field, is_needed(schema, name)));
    }
    for (name, field) in properties(schema) {
        if let Some((path, object)) = object_in(&format!("{path}.{name}"), field) {
            write_object(page, &path, object);
        }
    }
}

fn row(path: &str, name: &str, field: &Value, is_needed: bool) -> String {
    let default = match &field["default"] {
        Value::Null if is_needed => "needed".to_owned(),
        Value::Null => String::new(),
        value => format!("`{value}`"),
    };
    let mut said = vec![line(&field["description"])];
    // An object's rules stand in its own section.
    if object_in("", field).is_none() {
        said.extend(rules(field).map(|rule| format!("*{rule}*")));
    }
    let cells = [format!("`{name}`"), kind(&format!("{path}.{name}"), field), default, said.join("<br>")];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

/// What a field holds, in words; of an object with a link to its section.
fn kind(path: &str, field: &Value) -> String {
    if let Some((path, _)) = object_in(path, field) {
        let word = if field["type"] == "array" { "list" } else { "object" };
        return format!("[{word}](#{})", anchor(&path));
    }
    if let Some(values) = field["enum"].as_array() {
        return values.iter().map(|value| format!("`{}`", line(value))).collect::<Vec<_>>().join(", ");
    }
    if field["x-kubernetes-int-or-string"] == true {
        return "number or text".to_owned();
    }
    match field["type"].as_str().unwrap_or_default() {
        "array" => format!("list of {}", kind(path, &field["items"])),
        "object" if field["additionalProperties"].is_object() => {
            format!("map to {}", kind(path, &field["additionalProperties"]))
        }
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        other => other.to_owned(),
    }
}

/// The object that a field is, or is a list of, if its fields are known, and where it stands.
fn object_in<'a>(path: &str, field: &'a Value) -> Option<(String, &'a Value)> {
    if field["properties"].is_object() {
        return Some((path.to_owned(), field));
    }
    let items = &field["items"];
    items["properties"].is_object().then(|| (format!("{path}[]"), items))
}

/// The heading's address: small letters, without what is no letter.
fn anchor(path: &str) -> String {
    path.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect()
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flat_map(Map::iter)
}

fn is_needed(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|names| names.iter().any(|needed| needed == name))
}

fn rules(schema: &Value) -> impl Iterator<Item = String> {
    schema["x-kubernetes-validations"].as_array().into_iter().flatten().map(|rule| line(&rule["message"]))
}

/// A text as one line of Markdown.
fn line(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_this_one() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/resource.md");
        assert!(std::fs::read_to_string(file).is_ok_and(|page| page == markdown()), "run `make generate`");
    }

    #[test]
    fn a_row_has_what_the_schema_says_of_a_field() {
        let page = markdown();
        for words in [
            "\n## `spec.clients.groups[]`\n",
            "| `rounds` | whole number |",
            "| `groups` | [list](#specclientsgroups) |",
            "*an attempt can only be raised*",
            "`FedAvg`, `FFALoRA`",
        ] {
            assert!(page.contains(words), "{words}");
        }
    }
}
