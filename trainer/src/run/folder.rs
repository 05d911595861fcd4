//! The output folder of a run: whose it is, what is finished, where the adapter goes.
//! Must not overwrite what another spec made.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use fedtune_crds::report::{RunPhase, RunReport};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{RunError, local::Ended, materials::Materials};
use crate::{
    checkpoint::{CheckpointError, Store},
    client::Finished,
    durable,
    export::{Export, write_adapter},
    plan::Plan,
    report,
};

/// The file that says whose a folder is.
const MARK: &str = "run.json";

/// The folder of the server's checkpoints.
pub const CHECKPOINTS: &str = "checkpoint";

/// `out/<name>`.
#[derive(Debug)]
pub struct Folder(PathBuf);

/// What [`MARK`] holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    name: String,
    spec_hash: String,
}

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Results of something else.
    #[error("{} holds a run of another spec; choose another --out or metadata.name, or --fresh to replace it", .0.display())]
    OtherSpec(PathBuf),
    /// Not a folder of runs.
    #[error("{} is there already and is no run's folder; choose another --out or metadata.name", .0.display())]
    NotARun(PathBuf),
    /// A run that is under way, or a disk that does not say.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No room or no right to write.
    #[error("{} cannot be written: {error}; choose an --out that this user may write to", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Folder {
    /// The folder of `plan` below `out`.
    pub fn of(out: &Path, plan: &Plan) -> Self {
        Self(out.join(&plan.name))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the server keeps its checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join(CHECKPOINTS)
    }

    /// The report of an earlier run of the same spec that succeeded, unless a fresh one is wanted.
    pub fn finished(&self, plan: &Plan, fresh: bool) -> Result<Option<RunReport>, FolderError> {
        let Some(mark) = self.mark()? else { return Ok(None) };
        if fresh {
            return Ok(None);
        }
        if mark.spec_hash != plan.spec_hash {
            return Err(FolderError::OtherSpec(self.0.clone()));
        }
        // A report that cannot be read is not a finished run: it is made again.
        Ok(report::read(&self.0).ok().filter(|report| report.phase == RunPhase::Succeeded))
    }

    /// Makes the folder this plan's own; with `fresh`, what an earlier run left goes first, unless it is under way.
    pub fn begin(&self, plan: &Plan, fresh: bool) -> Result<(), FolderError> {
        if fresh && self.0.exists() {
            let _lock = Store::claim(&self.checkpoints())?;
            fs::remove_dir_all(&self.0).map_err(|error| self.io(error))?;
        }
        self.write_mark(plan)
    }

    /// Makes the folder this plan's own unless it is already.
    pub fn join(&self, plan: &Plan) -> Result<(), FolderError> {
        match self.mark()? {
            Some(mark) if mark.spec_hash == plan.spec_hash => Ok(()),
            Some(_) => Err(FolderError::OtherSpec(self.0.clone())),
            None => self.write_mark(plan),
        }
    }

    fn write_mark(&self, plan: &Plan) -> Result<(), FolderError> {
        fs::create_dir_all(&self.0).map_err(|error| self.io(error))?;
        let mark = Mark { name: plan.name.clone(), spec_hash: plan.spec_hash.clone() };
        let text = serde_json::to_string_pretty(&mark).expect("a mark is two texts");
        durable::write_whole(&self.0.join(MARK), text.as_bytes()).map_err(|error| self.io(error))
    }

    /// Writes the adapter, or each client's own where there is no global one.
    pub fn export(&self, plan: &Plan, materials: &Materials, ended: &Ended) -> Result<(), RunError> {
        if let Some(model) = ended.outcome.half.model() {
            let export = export(plan, materials, &ended.outcome.labels);
            return Ok(write_adapter(&self.0.join("adapter"), model, &export)?);
        }
        let mut clients = ended.clients.iter().enumerate();
        clients.try_for_each(|(ordinal, finished)| self.export_client(plan, materials, ordinal, finished))
    }

    /// Writes a client's own adapter.
    pub fn export_client(
        &self,
        plan: &Plan,
        materials: &Materials,
        ordinal: usize,
        finished: &Finished,
    ) -> Result<(), RunError> {
        let client = &plan.clients[ordinal];
        let own = self.0.join("adapter").join(&client.group).join(client.index.to_string());
        Ok(write_adapter(&own, &finished.half.seat().model, &export(plan, materials, &finished.labels))?)
    }

    fn mark(&self) -> Result<Option<Mark>, FolderError> {
        match fs::read(self.0.join(MARK)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| FolderError::NotARun(self.0.clone())),
            Err(error) if error.kind() == ErrorKind::NotFound => self.check_empty().map(|()| None),
            Err(error) => Err(self.io(error)),
        }
    }

    /// A folder without a mark must be empty, or not there.
    fn check_empty(&self) -> Result<(), FolderError> {
        match fs::read_dir(&self.0) {
            Ok(mut entries) => match entries.next() {
                None => Ok(()),
                Some(_) => Err(FolderError::NotARun(self.0.clone())),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.io(error)),
        }
    }

    fn io(&self, error: io::Error) -> FolderError {
        FolderError::Io { path: self.0.clone(), error }
    }
}

fn export<'a>(plan: &'a Plan, materials: &'a Materials, labels: &'a [String]) -> Export<'a> {
    Export { lora: &materials.lora, base: &plan.model, labels, pad_id: materials.pad_id }
}
