//! Apache Parquet with flat columns, and lists where they belong.
//! Must not read columns that nobody asked for: files of texts often hold embeddings too.

use std::{collections::BTreeMap, fmt::Display, path::Path, sync::Arc};

use bytes::Bytes;
use parquet::{
    errors::ParquetError,
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
    record::Field,
    schema::types::Type,
};

use serde_json::Value;

use super::{Place, ReadError, Row, Said, Wanted};
use crate::caught::caught;

/// How much may come out of a file. A code of a few bytes can stand for any number of rows, or for any number of copies
/// of a long text.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Rows, and in each column values: a list has many in one row.
    rows: u64,
    /// Bytes of all texts together.
    text: usize,
}

impl Bounds {
    /// For a file of `length` bytes: what fits into a modest machine in any case, and far beyond that what texts come
    /// to when they are unpacked, which is seldom ten times their size.
    fn of(length: usize) -> Self {
        Self { rows: (1 << 20) + length as u64, text: (256_usize << 20).saturating_add(length.saturating_mul(100)) }
    }
}

pub(super) fn parse(bytes: Vec<u8>, file: &Arc<Path>, wanted: Wanted<'_>) -> Result<Vec<Row>, ReadError> {
    let bounds = Bounds::of(bytes.len());
    parse_within(bounds, bytes, file, wanted)
}

fn parse_within(bounds: Bounds, bytes: Vec<u8>, file: &Arc<Path>, wanted: Wanted<'_>) -> Result<Vec<Row>, ReadError> {
    // The library checks some lengths by assertion.
    caught(|| read_rows(bounds, bytes, file, wanted)).unwrap_or_else(|panic| Err(not_parquet(file, panic)))
}

fn not_parquet(file: &Arc<Path>, reason: impl Display) -> ReadError {
    let whole = Place { file: file.clone(), line: None };
    ReadError::malformed(&whole, format!("not readable as Parquet: {reason}"))
}

fn read_rows(bounds: Bounds, bytes: Vec<u8>, file: &Arc<Path>, wanted: Wanted<'_>) -> Result<Vec<Row>, ReadError> {
    let length = bytes.len();
    let too_much = |what| not_parquet(file, format!("{what}, too much for a file of {length} bytes"));
    let refuse = |error: ParquetError| not_parquet(file, error);
    let reader = SerializedFileReader::new(Bytes::from(bytes)).map_err(refuse)?;
    let schema = reader.metadata().file_metadata().schema();
    wanted.check(file, &schema.get_fields().iter().map(|field| field.name()).collect::<Vec<_>>())?;
    let projection = project(schema, wanted).map_err(refuse)?;
    let claimed = reader.metadata().row_groups().iter().map(|group| u64::try_from(group.num_rows()).ok());
    let claimed = claimed.sum::<Option<u64>>().ok_or_else(|| not_parquet(file, "a group of less than no rows"))?;
    if claimed > bounds.rows {
        return Err(too_much(format!("it claims {claimed} rows")));
    }
    if let Some(column) = overlong_column(&reader, wanted, bounds.rows).map_err(refuse)? {
        return Err(too_much(format!("its column `{column}` claims more than {} values", bounds.rows)));
    }
    let mut left = bounds.text;
    let rows = reader.get_row_iter(Some(projection)).map_err(refuse)?;
    let rows = rows.zip(1..).map(|(row, number)| {
        let row = read_row(&row.map_err(refuse)?, number, file, wanted)?;
        let fits = left.checked_sub(text_bytes(&row));
        left = fits.ok_or_else(|| too_much(format!("more than {} bytes in its first {number} rows", bounds.text)))?;
        Ok(row)
    });
    rows.collect()
}

/// A wanted column whose pages claim more than `most` values, by what stands before each page; none is unpacked.
fn overlong_column(reader: &impl FileReader, wanted: Wanted<'_>, most: u64) -> Result<Option<String>, ParquetError> {
    let mut values = BTreeMap::<String, u64>::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        for (index, column) in group.metadata().columns().iter().enumerate() {
            let path = column.column_path();
            if !wanted.all().any(|name| path.parts().first().is_some_and(|root| root == name)) {
                continue;
            }
            let count = values.entry(path.string()).or_default();
            let mut pages = group.get_column_page_reader(index)?;
            while let Some(page) = pages.peek_next_page()? {
                *count = count.saturating_add(page.num_levels.unwrap_or(0) as u64);
                pages.skip_next_page()?;
            }
        }
    }
    Ok(values.into_iter().find(|(_, count)| *count > most).map(|(column, _)| column))
}

/// What a row holds of texts; a conversation as it was written, and its turns.
fn text_bytes(row: &Row) -> usize {
    let said = match &row.said {
        Said::Label | Said::All => 0,
        Said::Response(choices) => choices.iter().map(String::len).sum(),
        Said::Turns(_) => row.text.len(),
    };
    row.text.len() + row.label.as_ref().map_or(0, String::len) + row.value.len() + said
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

#[cfg(test)]
mod tests {
    use parquet::{
        data_type::{ByteArray, ByteArrayType},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };

    use super::*;
    use crate::data::Columns;

    /// A file whose one text stands in every row, by a dictionary and a run length.
    fn repeated(text: &str, rows: usize) -> Vec<u8> {
        file("REQUIRED", &vec![ByteArray::from(text); rows], None)
    }

    /// A file of one row, whose text is a list.
    fn list_of(text: &str, values: usize) -> Vec<u8> {
        // Every value is there; the first begins a row, no other does.
        let begins: Vec<i16> = (0..values).map(|value| i16::from(value > 0)).collect();
        file("REPEATED", &vec![ByteArray::from(text); values], Some((&vec![1; values], &begins)))
    }

    fn file(kind: &str, values: &[ByteArray], levels: Option<(&[i16], &[i16])>) -> Vec<u8> {
        let schema = format!("message mail {{ {kind} BYTE_ARRAY text (UTF8); }}");
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let (there, begins) = levels.unzip();
        column.typed::<ByteArrayType>().write_batch(values, there, begins).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        bytes
    }

    fn read(bounds: Option<Bounds>, bytes: Vec<u8>) -> Result<usize, String> {
        let columns = Columns::Labelled { text: "text".into(), label: None };
        let (file, wanted) = (Arc::from(Path::new("mail.parquet")), Wanted::new(&columns, None));
        let bounds = bounds.unwrap_or(Bounds::of(bytes.len()));
        parse_within(bounds, bytes, &file, wanted).map(|rows| rows.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_few_bytes_that_claim_more_rows_than_memory_holds_are_refused() {
        let rows = (1 << 20) + 10_000;
        let bytes = repeated("one", rows);
        let length = bytes.len();
        assert!(length < 10_000, "{length}");
        let sentence = format!(
            "mail.parquet: not readable as Parquet: it claims {rows} rows, too much for a file of {length} bytes"
        );
        assert_eq!(read(None, bytes), Err(sentence));
    }

    #[test]
    fn one_row_that_claims_more_values_than_memory_holds_is_refused() {
        let bytes = list_of("one", (1 << 20) + 10_000);
        let length = bytes.len();
        let sentence = format!(
            "mail.parquet: not readable as Parquet: its column `text` claims more than {} values, \
             too much for a file of {length} bytes",
            (1 << 20) + length
        );
        assert_eq!(read(None, bytes), Err(sentence));
    }

    #[test]
    fn a_text_that_stands_for_more_bytes_than_its_file_should_is_refused_where_it_is_too_much() {
        let (bytes, bounds) = (repeated("twelve bytes", 100), Bounds { rows: 100, text: 1200 });
        let length = bytes.len();
        assert_eq!(read(Some(bounds), bytes.clone()), Ok(100));
        let bounds = Bounds { text: 1199, ..bounds };
        let sentence = format!(
            "mail.parquet: not readable as Parquet: more than 1199 bytes in its first 100 rows, \
             too much for a file of {length} bytes"
        );
        assert_eq!(read(Some(bounds), bytes), Err(sentence));
    }
}
