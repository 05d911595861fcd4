//! Evaluates the schema's CEL rules on a document and turns what fails into sentences.
//! Must not state a rule of its own: the schema has them all.

use std::sync::LazyLock;

use kube::core::cel::{CompiledSchema, ErrorKind, ValidationError, Validator, compile_schema};
use serde_json::Value;

use super::{Problem, SCHEMA};

/// Compiled once: it takes longer than to evaluate them.
static RULES: LazyLock<CompiledSchema> = LazyLock::new(|| compile_schema(&SCHEMA));

/// Every rule that `document` breaks, leaving out those that speak of what `known` problems already say.
pub(super) fn broken(document: &Value, known: &[Problem]) -> Vec<Problem> {
    let Err(errors) = Validator::new().validate_compiled(&RULES, document, None) else { return Vec::new() };
    let mut errors = errors.into_vec();
    errors.retain(|error| !is_echo(error, known));
    // The evaluator walks a hash map; sentences come in the order of the fields.
    errors.sort_by(|left, right| left.field_path.cmp(&right.field_path));
    errors.into_iter().map(|error| problem(document, error)).collect()
}

/// True for a rule that fails only because of a known problem: it cannot be evaluated on a broken shape, or it judges
/// the very value, or the object with the very field, that is known to be wrong.
fn is_echo(error: &ValidationError, known: &[Problem]) -> bool {
    let at = error.field_path.as_str();
    let unevaluated = error.kind != ErrorKind::ValidationFailure && !known.is_empty();
    let judged = |problem: &Problem| lies_in(at, &problem.path) || (!at.is_empty() && parent(&problem.path) == at);
    unevaluated || known.iter().any(judged)
}

/// True if `path` is `outer` or a field of it.
fn lies_in(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn parent(path: &str) -> &str {
    path.rfind(['.', '[']).map_or("", |end| &path[..end])
}

fn problem(document: &Value, error: ValidationError) -> Problem {
    let path = error.field_path;
    let sentence = match at(document, &path) {
        Some(value @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => {
            format!("{path} is {value}; {}", error.message)
        }
        // A rule of the whole resource names its field itself: the API server takes no path into `metadata`.
        _ if path.is_empty() => error.message,
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => format!("{path}: {}", error.message),
    };
    Problem::new(path, sentence)
}

/// The value at `path`, as in `spec.clients.groups[0].name`.
fn at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    path.split(['.', '[']).try_fold(document, |value, step| match step.strip_suffix(']') {
        Some(index) => value.get(index.parse::<usize>().ok()?),
        None => value.get(step),
    })
}
