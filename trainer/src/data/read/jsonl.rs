//! One JSON object a line.
//! Must not guess: a cell is a string, a number or a boolean, or a list where one belongs.

use std::{path::Path, sync::Arc};

use serde_json::{Map, Value};

use super::{Place, ReadError, Row, Wanted};

pub(super) fn parse(bytes: &[u8], file: &Arc<Path>, wanted: Wanted<'_>) -> Result<Vec<Row>, ReadError> {
    let lines = bytes.split(|&byte| byte == b'\n').zip(1..);
    let filled = lines.filter(|(line, _)| !line.trim_ascii().is_empty());
    filled.map(|(line, number)| parse_line(line, Place { file: file.clone(), line: Some(number) }, wanted)).collect()
}

fn parse_line(line: &[u8], place: Place, wanted: Wanted<'_>) -> Result<Row, ReadError> {
    let object: Map<String, Value> = serde_json::from_slice(line)
        .map_err(|error| ReadError::malformed(&place, format!("not a JSON object: {error}")))?;
    let there: Vec<&String> = object.keys().collect();
    wanted.check(Path::new(&place.to_string()), &there)?;
    let name = place.clone();
    wanted.row(place, |column| match &object[column] {
        Value::String(text) => Ok(text.clone()),
        scalar @ (Value::Number(_) | Value::Bool(_)) => Ok(scalar.to_string()),
        list @ (Value::Array(_) | Value::Object(_)) if wanted.is_list(column) => Ok(list.to_string()),
        Value::Null => Err(ReadError::malformed(&name, format!("`{column}` is null"))),
        Value::Array(_) | Value::Object(_) => {
            Err(ReadError::malformed(&name, format!("`{column}` is not a string, a number or a boolean")))
        }
    })
}
