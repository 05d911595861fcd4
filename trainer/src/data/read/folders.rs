//! Text files in folders, `<path>/<folder>/*.txt`, labelled by their folder.
//! Must not skip a text: what is not UTF-8 is read as Latin-1, and said.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Columns, Place, ReadError, Reading, Row, Said, Source, entries, name_all, open_error};
use crate::events::Event;

/// A folder, its label, its files.
type Labelled = (String, String, Vec<PathBuf>);

pub(super) fn read(
    reading: &mut Reading<'_>,
    source: &Source,
    label_map: &BTreeMap<String, String>,
    value: Option<&str>,
) -> Result<Vec<Row>, ReadError> {
    let path = &source.path;
    let said = match source.columns {
        Columns::Labelled { .. } => Said::Label,
        Columns::Text { .. } => Said::All,
        // A prompt, whose answer is its folder's label.
        Columns::Prompt { .. } | Columns::Messages { .. } => Said::Response(Vec::new()),
    };
    let folders = labelled_folders(path, label_map)?;
    reading.start(path, folders.iter().map(|(.., files)| files.len()).sum());
    let (mut rows, mut latin) = (Vec::new(), 0);
    for (folder, label, files) in folders {
        let value = value_of(path, value, &folder, &label)?;
        reading.enter(&folder);
        for file in files {
            let text = String::from_utf8(reading.file(&file)?).unwrap_or_else(|bytes| {
                latin += 1;
                bytes.as_bytes().iter().map(|&byte| char::from(byte)).collect()
            });
            let place = Place { file: Arc::from(file), line: None };
            rows.push(Row { text, label: Some(label.clone()), said: said.clone(), value: value.clone(), place });
        }
    }
    reading.events.tell(Event::StageFinished);
    if latin > 0 {
        let text =
            format!("{latin} of {} files in {} are not UTF-8 and were read as Latin-1", rows.len(), path.display());
        reading.events.tell(Event::Note { text });
    }
    Ok(rows)
}

/// Folders that hold texts, each with its label.
fn labelled_folders(path: &Path, label_map: &BTreeMap<String, String>) -> Result<Vec<Labelled>, ReadError> {
    if !path.is_dir() {
        return Err(open_error(path, std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such folder")));
    }
    let mut folders = Vec::new();
    for folder in entries(path)?.into_iter().filter(|entry| entry.is_dir()) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A volume's own folder, which only root may read.
        if name == "lost+found" {
            continue;
        }
        let is_text = |file: &PathBuf| file.extension().is_some_and(|end| end == "txt");
        let files: Vec<PathBuf> = entries(&folder)?.into_iter().filter(is_text).collect();
        if files.is_empty() {
            continue;
        }
        let label = label_of(&name, label_map).ok_or_else(|| {
            let known = name_all(&label_map.keys().collect::<Vec<_>>());
            ReadError::FolderWithoutLabel { folder: name.clone(), path: path.display().to_string(), known }
        })?;
        folders.push((name, label, files));
    }
    Ok(folders)
}

/// Without a map a folder's name is its label.
fn label_of(folder: &str, label_map: &BTreeMap<String, String>) -> Option<String> {
    if label_map.is_empty() { Some(folder.to_owned()) } else { label_map.get(folder).cloned() }
}

fn value_of(path: &Path, column: Option<&str>, folder: &str, label: &str) -> Result<String, ReadError> {
    match column {
        None => Ok(String::new()),
        Some("folder") => Ok(folder.to_owned()),
        Some("label") => Ok(label.to_owned()),
        Some(other) => Err(ReadError::MissingColumn {
            place: path.display().to_string(),
            column: other.to_owned(),
            there: name_all(&["folder", "label"]),
        }),
    }
}
