//! Words that every sentence about a resource shares: a value as a reader sees it, and the nearest right word.
//! Must not know the schema.

use serde_json::Value;

/// `value` in a sentence, as in `the number 5`, `the text "yes"`, `a list`.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The candidate that `word` is most likely a misspelling of.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |candidate: &str| strsim::jaro_winkler(&word.to_lowercase(), &candidate.to_lowercase());
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        // Below it, suggestions mislead more often than they help ("rank" for "gain" is 0.5, "rnak" for "rank" 0.92).
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// `; did you mean rank?`, or else all there is to choose from.
pub(super) fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(candidate) = nearest(word, candidates.clone()) {
        return format!("; did you mean {candidate}?");
    }
    let all: Vec<&str> = candidates.into_iter().collect();
    if all.is_empty() {
        "; there are no fields here".to_owned()
    } else {
        format!("; the fields here are {}", all.join(", "))
    }
}

/// `path` with one more field.
pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
