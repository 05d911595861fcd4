//! Apache Parquet with flat columns, and lists where they belong.
//! Must not read columns that nobody asked for: files of texts often hold embeddings too.

use std::{fmt::Display, path::Path, sync::Arc};

use bytes::Bytes;
use parquet::{
    errors::ParquetError,
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::Field,
    schema::types::Type,
};

use serde_json::Value;

use super::{Place, ReadError, Row, Wanted};
use crate::caught::caught;

pub(super) fn parse(bytes: Vec<u8>, file: &Arc<Path>, wanted: Wanted<'_>) -> Result<Vec<Row>, ReadError> {
    // The library checks some lengths by assertion.
    caught(|| read_rows(bytes, file, wanted)).unwrap_or_else(|panic| Err(not_parquet(file, panic)))
}

fn not_parquet(file: &Arc<Path>, reason: impl Display) -> ReadError {
    let whole = Place { file: file.clone(), line: None };
    ReadError::malformed(&whole, format!("not readable as Parquet: {reason}"))
}

fn read_rows(bytes: Vec<u8>, file: &Arc<Path>, wanted: Wanted<'_>) -> Result<Vec<Row>, ReadError> {
    let refuse = |error: ParquetError| not_parquet(file, error);
    let reader = SerializedFileReader::new(Bytes::from(bytes)).map_err(refuse)?;
    let schema = reader.metadata().file_metadata().schema();
    wanted.check(file, &schema.get_fields().iter().map(|field| field.name()).collect::<Vec<_>>())?;
    let projection = project(schema, wanted).map_err(refuse)?;
    let rows = reader.get_row_iter(Some(projection)).map_err(refuse)?;
    rows.zip(1..).map(|(row, number)| read_row(&row.map_err(refuse)?, number, file, wanted)).collect()
}

fn project(schema: &Type, wanted: Wanted<'_>) -> Result<Type, ParquetError> {
    let names: Vec<&str> = wanted.all().collect();
    let asked_for = |name: &str| names.contains(&name);
    let fields = schema.get_fields().iter().filter(|field| asked_for(field.name())).cloned().collect();
    Type::group_type_builder(schema.name()).with_fields(fields).build()
}

/// Rows of Parquet have no lines: `number` counts them from 1.
fn read_row(row: &parquet::record::Row, number: u64, file: &Arc<Path>, wanted: Wanted<'_>) -> Result<Row, ReadError> {
    let place = Place { file: file.clone(), line: Some(number) };
    let name = place.clone();
    wanted.row(place, |column| {
        let field = row.get_column_iter().find(|(name, _)| *name == column).map(|(_, field)| field);
        let list = field.filter(|_| wanted.is_list(column)).and_then(list).map(|list| list.to_string());
        list.or_else(|| field.and_then(cell)).ok_or_else(|| {
            let there = field.map_or_else(String::new, |field| format!(", not {field}"));
            ReadError::malformed(&name, format!("`{column}` must be a string or an integer{there}"))
        })
    })
}

/// A list of texts or of groups of texts, as JSON.
fn list(field: &Field) -> Option<Value> {
    match field {
        Field::ListInternal(list) => list.elements().iter().map(list_item).collect::<Option<Vec<_>>>().map(Value::from),
        _ => None,
    }
}

fn list_item(field: &Field) -> Option<Value> {
    match field {
        Field::Group(group) => {
            let pairs = group.get_column_iter().map(|(name, field)| Some((name.clone(), Value::from(cell(field)?))));
            Some(Value::Object(pairs.collect::<Option<_>>()?))
        }
        field => cell(field).map(Value::from),
    }
}

fn cell(field: &Field) -> Option<String> {
    match field {
        Field::Str(text) => Some(text.clone()),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).ok().map(str::to_owned),
        Field::Bool(_)
        | Field::Byte(_)
        | Field::Short(_)
        | Field::Int(_)
        | Field::Long(_)
        | Field::UByte(_)
        | Field::UShort(_)
        | Field::UInt(_)
        | Field::ULong(_) => Some(field.to_string()),
        _ => None,
    }
}
