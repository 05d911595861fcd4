//! Reports: reads and writes what a run measured, and compares runs as a terminal table and as one HTML page.
//! Must not measure or judge anything itself: every figure stands in a `RunReport`, or is a sum of such.

mod charts;
mod csv;
mod html;
mod measures;
mod table;
pub mod tensorboard;
pub(crate) mod units;
mod words;

#[cfg(test)]
pub(crate) mod samples;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fedtune_crds::report::{RunReport, SCHEMA_VERSION};
use serde::Deserialize;

use crate::durable;

pub use csv::rounds_csv;
pub use html::comparison;
pub use table::terminal_table;

/// File names in a run's folder.
pub(crate) const RESULTS: &str = "results.json";
pub(crate) const ROUNDS: &str = "rounds.csv";
pub(crate) const PAGE: &str = "report.html";

/// Why a report cannot be read or written; each variant's sentence says which file.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReportError {
    /// Neither the folder nor one level below it has results.
    #[error("{} holds no results: expected {RESULTS} in it, or in a folder directly below it", .0.display())]
    NoResults(PathBuf),
    /// The folder that should be searched cannot be.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file ends in the middle.
    #[error("{} is cut short: it ends at line {line}, before the report does; run the experiment again", path.display())]
    CutShort { path: PathBuf, line: usize },
    /// The file is of a later version of this program.
    #[error("{} has schemaVersion {found}, this program reads up to {SCHEMA_VERSION}: read it with a newer fedtune", path.display())]
    Newer { path: PathBuf, found: u32 },
    /// The file is something else.
    #[error("{} is not the report of a run: {source}", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
    /// The report has no JSON or CSV form.
    #[error("cannot put the report of run {run} into {file}: {reason}")]
    Unwritable { run: String, file: &'static str, reason: String },
    /// The disk refused.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Reads the report of a run from `place`, a folder that holds `results.json`, or the file itself.
pub fn read(place: &Path) -> Result<RunReport, ReportError> {
    let path = if place.is_dir() { place.join(RESULTS) } else { place.to_path_buf() };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Err(ReportError::NoResults(place.into())),
        Err(source) => return Err(ReportError::Unreadable { path, source }),
    };
    let explain = |source: serde_json::Error| {
        if source.is_eof() {
            ReportError::CutShort { path: path.clone(), line: source.line() }
        } else {
            ReportError::Malformed { path: path.clone(), source }
        }
    };
    // The version first: a newer shape need not fit ours, and then that is what should be said.
    let Version { schema_version: found } = serde_json::from_slice(&text).map_err(explain)?;
    if found > SCHEMA_VERSION {
        return Err(ReportError::Newer { path, found });
    }
    serde_json::from_slice(&text).map_err(explain)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    schema_version: u32,
}

/// Writes `results.json`, `rounds.csv` and `report.html` of one run into `folder`, each whole or not at all.
pub fn write(report: &RunReport, folder: &Path) -> Result<(), ReportError> {
    let unwritable = |file, reason: String| ReportError::Unwritable { run: report.name.clone(), file, reason };
    let mut results = serde_json::to_vec_pretty(report).map_err(|error| unwritable(RESULTS, error.to_string()))?;
    results.push(b'\n');
    let rounds = rounds_csv(std::slice::from_ref(report)).map_err(|error| unwritable(ROUNDS, error.to_string()))?;
    put(&folder.join(RESULTS), &results)?;
    put(&folder.join(ROUNDS), rounds.as_bytes())?;
    write_comparison(std::slice::from_ref(report), &folder.join(PAGE))
}

/// Writes the page that compares `reports` to the file `out`.
pub fn write_comparison(reports: &[RunReport], out: &Path) -> Result<(), ReportError> {
    put(out, comparison(reports).as_bytes())
}

/// What `fedtune report DIR... --out FILE` does: finds the results, writes the page, returns the terminal's table.
pub fn report_command(
    places: &[PathBuf],
    out: &Path,
    width: Option<usize>,
    colour: bool,
) -> Result<String, ReportError> {
    let mut reports = Vec::new();
    for path in find_all(places)? {
        reports.push(read(&path)?);
    }
    write_comparison(&reports, out)?;
    Ok(terminal_table(&reports, width, colour))
}

/// The results in and directly below `places`, each file once however often it is named.
fn find_all(places: &[PathBuf]) -> Result<Vec<PathBuf>, ReportError> {
    let mut found = Vec::new();
    for place in places {
        for path in find(place)? {
            let path = path.canonicalize().unwrap_or(path);
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The results file at `place`, in it, or in the folders directly below it in the order of their names.
fn find(place: &Path) -> Result<Vec<PathBuf>, ReportError> {
    if place.is_file() {
        return Ok(vec![place.into()]);
    }
    let own = place.join(RESULTS);
    if own.is_file() {
        return Ok(vec![own]);
    }
    let unreadable = |source| ReportError::Unreadable { path: place.into(), source };
    let mut below = Vec::new();
    for entry in fs::read_dir(place).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path().join(RESULTS);
        if path.is_file() {
            below.push(path);
        }
    }
    below.sort();
    if below.is_empty() { Err(ReportError::NoResults(place.into())) } else { Ok(below) }
}

fn put(path: &Path, content: &[u8]) -> Result<(), ReportError> {
    durable::write_whole(path, content).map_err(|source| ReportError::Write { path: path.into(), source })
}

#[cfg(test)]
mod tests;
