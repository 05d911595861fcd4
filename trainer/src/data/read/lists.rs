//! Cells that hold a list, as JSON text: answers to choose from, conversations.
//! Must not mend a list: what is no list of its kind is refused with its place.

use super::{Place, ReadError, Row, Said, name_all};
use crate::data::chat::Turn;

/// Answers to choose from.
pub(super) fn choices(cell: &str, column: &str, place: &Place) -> Result<Vec<String>, ReadError> {
    let wrong = |problem: &str| ReadError::malformed(place, format!("`{column}` {problem}"));
    let choices: Vec<String> =
        serde_json::from_str(cell).map_err(|_| wrong("is not a list of texts, such as [\"ham\", \"spam\"]"))?;
    if choices.len() < 2 || choices.iter().any(String::is_empty) {
        return Err(wrong("must name at least two answers, none of them empty"));
    }
    Ok(choices)
}

/// The response must be one of the answers that its own row names.
pub(super) fn check_choice(row: &Row) -> Result<(), ReadError> {
    let (Said::Response(choices), Some(response)) = (&row.said, &row.label) else { return Ok(()) };
    if choices.is_empty() || choices.contains(response) {
        return Ok(());
    }
    let problem = format!("the response `{response}` is not one of its choices: {}", name_all(choices));
    Err(ReadError::malformed(&row.place, problem))
}

/// A conversation in which something is answered.
pub(super) fn turns(cell: &str, column: &str, place: &Place) -> Result<Vec<Turn>, ReadError> {
    let wrong = |problem: &str| ReadError::malformed(place, format!("`{column}` {problem}"));
    let turns: Vec<Turn> = serde_json::from_str(cell).map_err(|error| {
        wrong(&format!("is not a list of messages such as {{\"role\": \"user\", \"content\": \"...\"}}: {error}"))
    })?;
    if !turns.iter().any(Turn::is_answer) {
        return Err(wrong("has no message of role assistant, and so nothing to learn"));
    }
    if turns.iter().any(|turn| turn.is_answer() && turn.content.trim().is_empty()) {
        return Err(wrong("has an assistant's message that says nothing; take it out"));
    }
    Ok(turns)
}
