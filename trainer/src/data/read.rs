//! Sources into rows: CSV, JSONL, Parquet, folders of text files.
//! Must not decide who gets a row, nor shorten or reorder anything.

mod csv;
mod error;
mod folders;
mod jsonl;
mod lists;
#[cfg(feature = "parquet")]
mod parquet;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use error::ReadError;
use sha2::{Digest, Sha256};

use super::{Columns, Format, Source, chat::Turn, labels::name_all};
use crate::events::{Event, Events};

/// A text with what a source says about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// What tells it from others: its text, its prompt, or its conversation as it was written.
    pub(super) text: String,
    /// Its label, or a language model's response.
    pub(super) label: Option<String>,
    pub(super) said: Said,
    /// Its value of the column that the partition looks at; empty where it looks at none.
    pub(super) value: String,
    pub(super) place: Place,
}

/// What a row says of what a model is to say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// Its label.
    Label,
    /// All of its text.
    All,
    /// The response, and what it may be chosen from; empty where the row does not say.
    Response(Vec<String>),
    /// The answers of a conversation.
    Turns(Vec<Turn>),
}

/// Where a row stands, for a person who must find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<Path>,
    pub(super) line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line} of {}", self.file.display()),
            None => write!(f, "{}", self.file.display()),
        }
    }
}

/// All rows of a source.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// SHA-256 over format, columns, and names and bytes of the files; not over where they lie.
    pub(super) hash: [u8; 32],
}

/// The columns that are read.
#[derive(Debug, Clone, Copy)]
struct Wanted<'a> {
    columns: &'a Columns,
    text: &'a str,
    label: Option<&'a str>,
    choices: Option<&'a str>,
    value: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// `label` as a partition column is the label, or the response, whatever its column is called.
    fn new(columns: &'a Columns, value: Option<&'a str>) -> Self {
        let (text, label, choices) = match columns {
            Columns::Labelled { text, label } => (text, label.as_deref(), None),
            Columns::Text { text } => (text, None, None),
            Columns::Prompt { prompt, response, choices } => (prompt, response.as_deref(), choices.as_deref()),
            Columns::Messages { messages } => (messages, None, None),
        };
        let value = value.map(|name| if name == "label" { label.unwrap_or(name) } else { name });
        Self { columns, text, label, choices, value }
    }

    /// Whether a column holds a list, which comes as JSON text.
    fn is_list(&self, column: &str) -> bool {
        self.choices == Some(column) || matches!(self.columns, Columns::Messages { messages } if messages == column)
    }

    fn all(&self) -> impl Iterator<Item = &'a str> {
        [Some(self.text), self.label, self.choices, self.value].into_iter().flatten()
    }

    /// A row of the cells that `cell` finds. An empty text is one, an empty label is none.
    fn row(&self, place: Place, cell: impl Fn(&str) -> Result<String, ReadError>) -> Result<Row, ReadError> {
        let label = self.label.map(&cell).transpose()?;
        if label.as_ref().is_some_and(String::is_empty) {
            return Err(ReadError::malformed(&place, self.empty_label()));
        }
        let value = self.value.map(&cell).transpose()?.unwrap_or_default();
        let text = cell(self.text)?;
        let said = match self.columns {
            Columns::Labelled { .. } => Said::Label,
            Columns::Text { .. } => Said::All,
            Columns::Prompt { .. } => Said::Response(
                self.choices
                    .map(|column| lists::choices(&cell(column)?, column, &place))
                    .transpose()?
                    .unwrap_or_default(),
            ),
            Columns::Messages { messages } => Said::Turns(lists::turns(&text, messages, &place)?),
        };
        let row = Row { text, label, said, value, place };
        lists::check_choice(&row)?;
        Ok(row)
    }

    fn empty_label(&self) -> &'static str {
        match self.columns {
            Columns::Prompt { .. } => {
                "the response is empty; a language model cannot learn to say nothing, so take the row out"
            }
            Columns::Labelled { .. } | Columns::Text { .. } | Columns::Messages { .. } => "the label is empty",
        }
    }

    /// Refuses the columns that are not `there`.
    fn check(&self, file: &Path, there: &[impl AsRef<str>]) -> Result<(), ReadError> {
        let missing = |column: &&str| !there.iter().any(|name| name.as_ref() == *column);
        match self.all().find(missing) {
            None => Ok(()),
            Some(column) => Err(ReadError::MissingColumn {
                place: file.display().to_string(),
                column: column.to_owned(),
                there: name_all(there),
            }),
        }
    }
}

/// Reads all rows of `source`, with their values of the partition's column where it needs one.
pub(super) fn read(source: &Source, value: Option<&str>, events: &Events) -> Result<Table, ReadError> {
    let mut hash = Sha256::new();
    // Debug names every part of both, so a new one cannot be forgotten.
    hash.update(format!("{:?} {:?}\n", source.format, source.columns));
    let mut reading = Reading { hash, files: 0, events };
    let wanted = Wanted::new(&source.columns, value);
    let rows = match &source.format {
        Format::Csv => reading.each(source, |bytes, file| csv::parse(&bytes, file, wanted)),
        Format::Jsonl => reading.each(source, |bytes, file| jsonl::parse(&bytes, file, wanted)),
        Format::Parquet => read_parquet(&mut reading, source, wanted),
        Format::Folders { label_map } => folders::read(&mut reading, source, label_map, value),
    }?;
    if rows.is_empty() {
        return Err(ReadError::Empty { path: source.path.display().to_string() });
    }
    Ok(Table { rows, hash: reading.hash.finalize().into() })
}

#[cfg(feature = "parquet")]
fn read_parquet(reading: &mut Reading<'_>, source: &Source, wanted: Wanted<'_>) -> Result<Vec<Row>, ReadError> {
    reading.each(source, |bytes, file| parquet::parse(bytes, file, wanted))
}

#[cfg(not(feature = "parquet"))]
fn read_parquet(_: &mut Reading<'_>, source: &Source, _: Wanted<'_>) -> Result<Vec<Row>, ReadError> {
    Err(ReadError::NoParquet { path: source.path.display().to_string() })
}

/// The part of `source` that belongs to client `index` of `group`: `<path>/<group>/<index>`.
pub(super) fn part_of(source: &Source, group: &str, index: usize) -> Result<Source, ReadError> {
    let folder = source.path.join(group).join(index.to_string());
    let file = folder.with_file_name(format!("{index}.{}", source.format.ending()));
    let path = if folder.is_dir() {
        folder
    } else if file.is_file() {
        file
    } else {
        return Err(ReadError::NoPart {
            client: format!("{group}/{index}"),
            path: folder.display().to_string(),
            ending: source.format.ending(),
        });
    };
    Ok(Source { path, ..source.clone() })
}

/// Files being read: each one's bytes go into the hash, and each one is progress.
struct Reading<'a> {
    hash: Sha256,
    files: u64,
    events: &'a Events,
}

impl Reading<'_> {
    /// Parses every file of `source` with `parse`.
    fn each(
        &mut self,
        source: &Source,
        parse: impl Fn(Vec<u8>, &Arc<Path>) -> Result<Vec<Row>, ReadError>,
    ) -> Result<Vec<Row>, ReadError> {
        let files = files_of(&source.path, source.format.ending())?;
        self.start(&source.path, files.len());
        let mut rows = Vec::new();
        for file in files {
            rows.extend(parse(self.file(&file)?, &Arc::from(file))?);
        }
        self.events.tell(Event::StageFinished);
        Ok(rows)
    }

    fn start(&mut self, path: &Path, files: usize) {
        self.files = 0;
        self.events.tell(Event::StageStarted { stage: format!("Reading {}", path.display()), of: files as u64 });
    }

    /// Marks in the hash which folder the next files are in.
    fn enter(&mut self, folder: &str) {
        self.hash.update(format!("{folder}/\n"));
    }

    fn file(&mut self, path: &Path) -> Result<Vec<u8>, ReadError> {
        let bytes = fs::read(path).map_err(|source| open_error(path, source))?;
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        for part in [name, &bytes] {
            self.hash.update((part.len() as u64).to_le_bytes());
            self.hash.update(part);
        }
        self.files += 1;
        self.events.tell(Event::StageAdvanced { at: self.files });
        Ok(bytes)
    }
}

/// The file itself, or the files of a folder whose names end so, sorted.
fn files_of(path: &Path, ending: &'static str) -> Result<Vec<PathBuf>, ReadError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files: Vec<PathBuf> = entries(path)?
        .into_iter()
        .filter(|file| file.is_file() && file.extension().is_some_and(|end| end == ending))
        .collect();
    if files.is_empty() {
        return Err(ReadError::NoFile { path: path.display().to_string(), ending });
    }
    Ok(files)
}

/// What is in a folder, sorted; hidden entries are not.
fn entries(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let list = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries: Vec<PathBuf> = list
        .map_err(|source| open_error(path, source))?
        .into_iter()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .collect();
    entries.sort_unstable();
    Ok(entries)
}

fn open_error(path: &Path, source: io::Error) -> ReadError {
    ReadError::Open { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests;
