//! Comma-separated values with a header (RFC 4180).
//! Must not guess: a row with another number of fields than the header is refused.

use std::{path::Path, sync::Arc};

use super::{Place, ReadError, Row, Wanted};

pub(super) fn parse(bytes: &[u8], file: &Arc<Path>, wanted: Wanted<'_>) -> Result<Vec<Row>, ReadError> {
    let mut reader = csv::Reader::from_reader(bytes);
    let header = reader.headers().map_err(|error| refuse(file, &error))?.clone();
    wanted.check(file, &header.iter().collect::<Vec<_>>())?;
    let row = |record: Result<csv::StringRecord, csv::Error>| {
        let record = record.map_err(|error| refuse(file, &error))?;
        let place = Place { file: file.clone(), line: record.position().map(csv::Position::line) };
        wanted.row(place, |column| {
            let cell = header.iter().position(|name| name == column).and_then(|index| record.get(index));
            Ok(cell.unwrap_or_default().to_owned())
        })
    };
    reader.records().map(row).collect()
}

fn refuse(file: &Arc<Path>, error: &csv::Error) -> ReadError {
    let place = Place { file: file.clone(), line: error.position().map(csv::Position::line) };
    let problem = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields, where the header has {expected_len}; quote texts that hold commas")
        }
        csv::ErrorKind::Utf8 { .. } => "not UTF-8; convert the file".to_owned(),
        _ => error.to_string(),
    };
    ReadError::malformed(&place, problem)
}
