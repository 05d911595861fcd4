use std::collections::BTreeMap;

use super::*;
use crate::data::testing::{folders, notes, recorded, source, write};

/// Text, label and value of each row.
fn cells(source: &Source, value: Option<&str>) -> Vec<(String, String, String)> {
    let rows = read(source, value, &Events::silent()).unwrap().rows;
    rows.into_iter().map(|row| (row.text, row.label.unwrap_or_default(), row.value)).collect()
}

fn error(source: &Source, value: Option<&str>) -> String {
    read(source, value, &Events::silent()).unwrap_err().to_string()
}

fn row(text: &str, label: &str, value: &str) -> (String, String, String) {
    (text.to_owned(), label.to_owned(), value.to_owned())
}

/// The error of a file with this content.
fn error_in(name: &str, content: &str, format: Format) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), name, content);
    error(&source(path, format), None).replace(folder.path().to_str().unwrap(), "")
}

#[test]
fn csv_with_quotes_line_breaks_and_another_order_of_columns() {
    let folder = tempfile::tempdir().unwrap();
    let content = "label,site,text\nham,x,\"one, \"\"two\"\"\nthree\"\nspam,y,\n";
    let csv = source(write(folder.path(), "mail.csv", content), Format::Csv);
    assert_eq!(cells(&csv, Some("site")), [row("one, \"two\"\nthree", "ham", "x"), row("", "spam", "y")]);
    assert_eq!(cells(&csv, None)[0].2, "");
}

#[test]
fn label_as_a_partition_column_is_the_label_whatever_its_column_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let mut csv = source(write(folder.path(), "mail.csv", "text,category\none,ham\n"), Format::Csv);
    csv.columns = Columns::Labelled { text: "text".into(), label: Some("category".into()) };
    assert_eq!(cells(&csv, Some("label")), [row("one", "ham", "ham")]);
}

#[test]
fn a_public_source_may_do_without_labels() {
    let folder = tempfile::tempdir().unwrap();
    let mut csv = source(write(folder.path(), "mail.csv", "text\none\n"), Format::Csv);
    csv.columns = Columns::Labelled { text: "text".into(), label: None };
    assert_eq!(read(&csv, None, &Events::silent()).unwrap().rows[0].label, None);
}

#[test]
fn a_missing_column_is_named_with_those_that_are_there() {
    let told = error_in("mail.csv", "body,label\none,ham\n", Format::Csv);
    assert_eq!(told, "/mail.csv has no column `text`; the columns there are `body`, `label`");
    let told = error_in("mail.jsonl", "{\"text\": \"one\", \"label\": 1}\n{\"text\": \"two\"}\n", Format::Jsonl);
    assert_eq!(told, "line 2 of /mail.jsonl has no column `label`; the columns there are `text`");
}

#[test]
fn a_csv_row_of_another_width_is_refused_with_its_line() {
    let told = error_in("mail.csv", "text,label\none,ham\ntwo, and three,ham\n", Format::Csv);
    assert_eq!(told, "line 3 of /mail.csv: 3 fields, where the header has 2; quote texts that hold commas");
}

#[test]
fn an_empty_label_is_refused_with_its_line() {
    assert_eq!(error_in("mail.csv", "text,label\none,\n", Format::Csv), "line 2 of /mail.csv: the label is empty");
}

#[test]
fn jsonl_with_numbers_as_labels_and_blank_lines() {
    let folder = tempfile::tempdir().unwrap();
    let content =
        "{\"text\": \"one\", \"label\": 1, \"site\": true}\n\n{\"site\": \"y\", \"label\": \"a\", \"text\": \"\"}";
    let jsonl = source(write(folder.path(), "mail.jsonl", content), Format::Jsonl);
    assert_eq!(cells(&jsonl, Some("site")), [row("one", "1", "true"), row("", "a", "y")]);
}

#[test]
fn jsonl_that_is_no_object_or_no_text_is_refused_with_its_line() {
    let of = |line: &str| error_in("mail.jsonl", &format!("\n{line}\n"), Format::Jsonl);
    assert!(of("{\"text\": ").starts_with("line 2 of /mail.jsonl: not a JSON object: EOF"));
    assert!(of("[1]").starts_with("line 2 of /mail.jsonl: not a JSON object: invalid type"));
    assert_eq!(of("{\"text\": null, \"label\": 1}"), "line 2 of /mail.jsonl: `text` is null");
    assert!(of("{\"text\": [], \"label\": 1}").ends_with("`text` is not a string, a number or a boolean"));
}

#[test]
fn folders_are_read_in_order_and_labelled_by_the_map() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("c/1.txt", "three"), ("a/2.txt", "two"), ("a/1.txt", "one"), ("a/1.json", "{}"), ("SUMS", "")]
    {
        write(folder.path(), name, text);
    }
    let mail = source(folder.path(), folders());
    let expected = [row("one", "ham", "a"), row("two", "ham", "a"), row("three", "spam", "c")];
    assert_eq!(cells(&mail, Some("folder")), expected);
    assert_eq!(cells(&mail, Some("label"))[2], row("three", "spam", "spam"));
    assert!(error(&mail, Some("site")).ends_with("has no column `site`; the columns there are `folder`, `label`"));
}

#[test]
fn a_text_that_is_not_utf_8_is_read_as_latin_1_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a/1.txt", b"caf\xe9");
    write(folder.path(), "a/2.txt", "café");
    let (events, told) = recorded();
    let rows = read(&source(folder.path(), folders()), None, &events).unwrap().rows;
    assert_eq!([&rows[0].text, &rows[1].text], ["café", "café"]);
    assert!(notes(&told)[0].starts_with("1 of 2 files in"), "{:?}", notes(&told));
}

#[test]
fn without_a_map_a_folder_s_name_is_its_label() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "ham/1.txt", "one");
    write(folder.path(), "spam/1.txt", "two");
    let unnamed = source(folder.path(), Format::Folders { label_map: BTreeMap::new() });
    assert_eq!(cells(&unnamed, None), [row("one", "ham", ""), row("two", "spam", "")]);
}

#[test]
fn a_folder_without_a_label_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "d/1.txt", "one");
    let told = error(&source(folder.path(), folders()), None);
    assert!(told.starts_with("the folder `d` in"), "{told}");
    assert!(told.ends_with("has no label; the label map names `a`, `b`, `c`"), "{told}");
}

#[test]
fn a_folder_of_files_is_one_source_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "2.csv", "text,label\ntwo,ham\n");
    write(folder.path(), "1.csv", "text,label\none,ham\n");
    let texts: Vec<String> = cells(&source(folder.path(), Format::Csv), None).into_iter().map(|row| row.0).collect();
    assert_eq!(texts, ["one", "two"]);
    assert!(error(&source(folder.path(), Format::Jsonl), None).ends_with("holds no .jsonl file"));
}

#[test]
fn a_source_that_is_missing_or_empty_is_refused() {
    assert!(
        error(&source("/nowhere/mail.csv", Format::Csv), None).starts_with("cannot read /nowhere/mail.csv: No such")
    );
    assert!(error(&source("/nowhere", folders()), None).starts_with("cannot read /nowhere: there is no such folder"));
    assert_eq!(error_in("mail.csv", "text,label\n", Format::Csv), "/mail.csv holds no example");
}

#[test]
fn the_hash_covers_bytes_and_columns_but_not_where_the_file_lies() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hash = |source: &Source| read(source, None, &Events::silent()).unwrap().hash;
    let csv = |folder: &Path, content| source(write(folder, "mail.csv", content), Format::Csv);
    let first = csv(one.path(), "text,label\none,ham\n");
    let same = csv(other.path(), "text,label\none,ham\n");
    assert_eq!(hash(&first), hash(&same));
    let swapped =
        Source { columns: Columns::Labelled { text: "label".into(), label: Some("text".into()) }, ..first.clone() };
    assert_ne!(hash(&first), hash(&swapped));
    assert_ne!(hash(&first), hash(&csv(other.path(), "text,label\none,spam\n")));
}

#[test]
fn a_client_s_part_is_a_folder_or_a_file_with_the_format_s_ending() {
    let folder = tempfile::tempdir().unwrap();
    let whole = source(folder.path(), Format::Csv);
    write(folder.path(), "silo/0.csv", "text,label\none,ham\n");
    write(folder.path(), "silo/1/x.csv", "text,label\ntwo,ham\n");
    assert_eq!(cells(&part_of(&whole, "silo", 0).unwrap(), None)[0].0, "one");
    assert_eq!(cells(&part_of(&whole, "silo", 1).unwrap(), None)[0].0, "two");
    let told = part_of(&whole, "silo", 2).unwrap_err().to_string();
    assert!(told.starts_with("client silo/2 has no data: there is neither a folder"), "{told}");
}

#[cfg(feature = "parquet")]
mod parquet_files {
    use std::sync::Arc;

    use ::parquet::{
        data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type},
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };

    use super::*;

    /// A file with two rows: `text`, an integer `label`, and a `score` that nobody asks for.
    fn file() -> Vec<u8> {
        let schema = "message mail { REQUIRED BYTE_ARRAY text (UTF8); REQUIRED INT64 label; REQUIRED DOUBLE score; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut bytes = Vec::new();
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts = ["one", "two"].map(ByteArray::from);
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[7, -1], None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[0.5, 0.25], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        bytes
    }

    #[test]
    fn parquet_with_integers_as_labels() {
        let folder = tempfile::tempdir().unwrap();
        let parquet = source(write(folder.path(), "mail.parquet", file()), Format::Parquet);
        assert_eq!(cells(&parquet, Some("label")), [row("one", "7", "7"), row("two", "-1", "-1")]);
    }

    #[test]
    fn a_parquet_column_of_another_kind_or_missing_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let parquet = source(write(folder.path(), "mail.parquet", file()), Format::Parquet);
        assert!(error(&parquet, Some("score")).ends_with("`score` must be a string or an integer, not 0.5"));
        let told = error(&parquet, Some("site"));
        assert!(told.ends_with("has no column `site`; the columns there are `text`, `label`, `score`"), "{told}");
    }

    #[test]
    fn no_spoilt_parquet_file_makes_reading_panic() {
        let (whole, path) = (file(), Arc::from(Path::new("mail.parquet")));
        let columns = Columns::Labelled { text: "text".into(), label: Some("label".into()) };
        let wanted = Wanted::new(&columns, None);
        for at in 0..whole.len() {
            for change in [0x01, 0x10, 0x80, 0xff] {
                let mut spoilt = whole.clone();
                spoilt[at] ^= change;
                drop(super::super::parquet::parse(spoilt, &path, wanted)); // a changed text is no error
            }
        }
    }

    #[test]
    fn a_truncated_parquet_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let whole = file();
        for length in [0, 3, 20, whole.len() / 2, whole.len() - 1] {
            let path = write(folder.path(), "mail.parquet", &whole[..length]);
            assert!(error(&source(path, Format::Parquet), None).contains("not readable as Parquet"), "at {length}");
        }
    }
}
