//! The output folder of a run: whose it is, what is finished, where the adapter goes.
//! Must not overwrite what another spec made, nor go on from another run's work unless `resumeFrom` names that run.

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
    data::{Labels, encode},
    durable,
    export::{Export, ExportError, PROBES, condense, write_adapter},
    models::LoraSettings,
    plan::Plan,
    report,
};

/// The file that says whose a folder is.
const MARK: &str = "run.json";

/// The folder of the server's checkpoints.
pub const CHECKPOINTS: &str = "checkpoint";

/// `out/<name>`, or that of the earlier run that is gone on from.
#[derive(Debug)]
pub struct Folder(PathBuf);

/// What [`MARK`] holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    name: String,
    spec_hash: String,
    /// The resource's uid, where the run has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
}

impl Mark {
    fn of(plan: &Plan) -> Self {
        Self { name: plan.name.clone(), spec_hash: plan.spec_hash.clone(), uid: plan.uid.clone() }
    }

    /// Whether it is of this run, or of the earlier one that this run goes on from.
    fn is_in_line(&self, plan: &Plan) -> bool {
        self.uid.is_some() && (self.uid == plan.uid || self.uid == plan.resumes)
    }
}

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// Results of something else.
    #[error("{} holds a run of another spec; choose another --out or metadata.name, or --fresh to replace it", .0.display())]
    OtherSpec(PathBuf),
    /// Work of another run of the same spec.
    #[error(
        "{} holds the work of run {theirs}, and this is run {own}; set resumeFrom.uid to {theirs} to go on from it, \
         or give this run a claim of its own",
        path.display()
    )]
    OtherRun {
        /// Where it lies.
        path: PathBuf,
        /// The run that made it.
        theirs: String,
        /// The run that found it.
        own: String,
    },
    /// The earlier run is not there.
    #[error("resumeFrom: no folder in {} holds the work of run {uid}", out.display())]
    NothingToResume {
        /// The folder of all runs.
        out: PathBuf,
        /// The run that was to be gone on from.
        uid: String,
    },
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
    /// The folder of `plan` below `out`; where the plan goes on from an earlier run, that run's, if it is there.
    pub fn of(out: &Path, plan: &Plan) -> Self {
        let own = Self(out.join(&plan.name));
        if plan.resumes.is_none() {
            return own;
        }
        let all = fs::read_dir(out).into_iter().flatten().flatten().map(|entry| Self(entry.path()));
        let mut in_line: Vec<_> = all.filter(|folder| folder.is_in_line(plan)).collect();
        in_line.sort_by(|one, other| one.0.cmp(&other.0));
        in_line.into_iter().next().unwrap_or(own)
    }

    fn is_in_line(&self, plan: &Plan) -> bool {
        self.mark().ok().flatten().is_some_and(|mark| mark.is_in_line(plan))
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
        let mark = self.mark()?;
        if fresh {
            return Ok(None);
        }
        if let Some(uid) = plan.resumes.as_ref().filter(|_| !self.is_in_line(plan)) {
            let out = self.0.parent().unwrap_or(&self.0).to_owned();
            return Err(FolderError::NothingToResume { out, uid: uid.clone() });
        }
        let Some(mark) = mark else { return Ok(None) };
        self.check(&mark, plan)?;
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
            Some(mark) => self.check(&mark, plan),
            None => self.write_mark(plan),
        }
    }

    /// Whether `plan` may use what the run of `mark` left here.
    fn check(&self, mark: &Mark, plan: &Plan) -> Result<(), FolderError> {
        if mark.spec_hash != plan.spec_hash {
            return Err(FolderError::OtherSpec(self.0.clone()));
        }
        match (&mark.uid, &plan.uid) {
            (Some(theirs), Some(own)) if !mark.is_in_line(plan) => {
                let (path, theirs, own) = (self.0.clone(), theirs.clone(), own.clone());
                Err(FolderError::OtherRun { path, theirs, own })
            }
            // Outside of a cluster a run has no uid, and goes on from whatever its folder holds.
            _ => Ok(()),
        }
    }

    fn write_mark(&self, plan: &Plan) -> Result<(), FolderError> {
        fs::create_dir_all(&self.0).map_err(|error| self.io(error))?;
        let text = serde_json::to_string_pretty(&Mark::of(plan)).expect("a mark is texts");
        durable::write_whole(&self.0.join(MARK), text.as_bytes()).map_err(|error| self.io(error))
    }

    /// Writes the adapter, or each client's own where there is no global one.
    pub fn export(&self, plan: &Plan, materials: &Materials, ended: &Ended) -> Result<(), RunError> {
        if let Some(model) = ended.outcome.half.model() {
            let export = export(plan, materials, &materials.lora, &ended.outcome.labels);
            let held_out = &materials.corpus.evaluation;
            let probes = encode(&held_out[..held_out.len().min(PROBES)], &Labels::new(ended.outcome.labels.clone()))?;
            let condensed = condense(model, &materials.lora, &probes, materials.pad_id).map_err(ExportError::from)?;
            return Ok(write_adapter(&self.0.join("adapter"), condensed.as_ref().unwrap_or(model), &export)?);
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
        let lora = plan.lora_of(ordinal, &materials.lora);
        Ok(write_adapter(&own, &finished.half.seat().model, &export(plan, materials, &lora, &finished.labels))?)
    }

    fn mark(&self) -> Result<Option<Mark>, FolderError> {
        if let Some(mark) = self.read_mark()? {
            return Ok(Some(mark));
        }
        if self.is_unused()? {
            return Ok(None);
        }
        // Another process of this run may have made the folder its own meanwhile.
        self.read_mark()?.map(Some).ok_or_else(|| FolderError::NotARun(self.0.clone()))
    }

    fn read_mark(&self) -> Result<Option<Mark>, FolderError> {
        match fs::read(self.0.join(MARK)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| FolderError::NotARun(self.0.clone())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Whether it is not there, or holds nothing but a mark that was not, or not yet, written to its end.
    fn is_unused(&self) -> Result<bool, FolderError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(self.io(error)),
        };
        for entry in entries {
            let name = entry.map_err(|error| self.io(error))?.file_name();
            if !name.to_string_lossy().starts_with(durable::PARTIAL) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn io(&self, error: io::Error) -> FolderError {
        FolderError::Io { path: self.0.clone(), error }
    }
}

fn export<'a>(plan: &'a Plan, materials: &'a Materials, lora: &'a LoraSettings, labels: &'a [String]) -> Export<'a> {
    Export {
        lora,
        base: plan.model.reference(),
        revision: plan.model.revision(),
        labels,
        pad_id: materials.pad_id,
        system_prompt: plan.data.language.as_ref().and_then(|language| language.system_prompt.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let above = tempfile::tempdir().unwrap();
        let folder = Folder(above.path().join("run"));
        (above, folder)
    }

    #[test]
    fn a_folder_whose_mark_was_cut_off_is_unused() {
        let (_above, folder) = folder();
        assert!(folder.mark().unwrap().is_none());
        durable::create_folder(folder.path()).unwrap();
        fs::write(folder.path().join(format!("{}mark", durable::PARTIAL)), "{").unwrap();
        assert!(folder.mark().unwrap().is_none());
    }

    #[test]
    fn a_folder_of_anything_else_is_no_runs() {
        let (_above, folder) = folder();
        durable::create_folder(folder.path()).unwrap();
        fs::write(folder.path().join("thesis.txt"), "three years of work").unwrap();
        assert!(matches!(folder.mark(), Err(FolderError::NotARun(_))));
    }

    #[test]
    fn a_folder_that_many_processes_make_their_own_at_once_is_refused_to_none() {
        for _ in 0..20 {
            let (_above, folder) = folder();
            std::thread::scope(|scope| {
                let begin = || {
                    if folder.mark().unwrap().is_none() {
                        durable::write_whole(&folder.path().join(MARK), br#"{"name":"n","specHash":"h"}"#).unwrap();
                        fs::create_dir_all(folder.path().join(CHECKPOINTS)).unwrap();
                    }
                };
                (0..4).for_each(|_| drop(scope.spawn(begin)));
            });
            assert_eq!(folder.mark().unwrap().unwrap().name, "n");
        }
    }

    const EARLIER: &str = "0b1c2d3e-0000-4000-8000-000000000001";
    const LATER: &str = "0b1c2d3e-0000-4000-8000-000000000002";

    fn plan(name: &str, uid: &str, resumes: Option<&str>) -> Plan {
        let mut plan = crate::testing::plan("fedLLM: {}", &[]);
        (plan.name, plan.uid, plan.resumes) = (name.to_owned(), Some(uid.to_owned()), resumes.map(str::to_owned));
        plan
    }

    #[test]
    fn the_work_of_another_run_is_refused_by_its_uid_also_where_the_spec_is_the_same() {
        let out = tempfile::tempdir().unwrap();
        let earlier = plan("mail", EARLIER, None);
        Folder::of(out.path(), &earlier).begin(&earlier, false).unwrap();
        let refused = |plan: &Plan| Folder::of(out.path(), plan).finished(plan, false).unwrap_err().to_string();
        assert!(refused(&plan("mail", LATER, None)).ends_with(&format!(
            "mail holds the work of run {EARLIER}, and this is run {LATER}; set resumeFrom.uid to {EARLIER} to go on \
             from it, or give this run a claim of its own"
        )));
        assert!(Folder::of(out.path(), &earlier).finished(&earlier, false).unwrap().is_none(), "its own");
    }

    #[test]
    fn a_run_that_resumes_goes_on_in_the_earlier_runs_folder_and_owns_it_from_then_on() {
        let out = tempfile::tempdir().unwrap();
        let earlier = plan("mail", EARLIER, None);
        let later = plan("mail-again", LATER, Some(EARLIER));
        let refused = Folder::of(out.path(), &later).finished(&later, false).unwrap_err();
        assert!(refused.to_string().ends_with(&format!("holds the work of run {EARLIER}")), "{refused}");

        Folder::of(out.path(), &earlier).begin(&earlier, false).unwrap();
        for _ in 0..2 {
            let folder = Folder::of(out.path(), &later);
            assert_eq!(folder.path(), out.path().join("mail"));
            assert!(folder.finished(&later, false).unwrap().is_none());
            folder.begin(&later, false).unwrap();
        }
        let refused = Folder::of(out.path(), &earlier).finished(&earlier, false).unwrap_err();
        assert!(matches!(refused, FolderError::OtherRun { .. }), "{refused}");
    }
}
