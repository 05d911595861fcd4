//! `fedtune run`: server and clients of a spec in one process, over loopback, as they would run apart.
//! Must not know frameworks; it prepares, starts, waits and writes down.
//!
//! | file | one thing |
//! |---|---|
//! | `folder.rs` | the output folder: whose it is, what is finished |
//! | `materials.rs` | device, base model, tokenizer and data, read once for all specs of a call |
//! | `local.rs` | one server and its clients on threads |
//! | `summary.rs` | what they did, as a `RunReport` |
//! | `uid.rs` | names that no two runs or processes share |

use std::path::{Path, PathBuf};

use fedtune_crds::report::RunReport;
use thiserror::Error;

use crate::{
    adapter_files::AdapterError,
    checkpoint::CheckpointError,
    client::ClientError,
    data::DataError,
    deliver::{self, DeliverError, Destination},
    events::{Event, Events},
    export::ExportError,
    models::{LoadError, ModelError},
    plan::Plan,
    report::ReportError,
    server::ServerError,
    sources::{Access, SourceError},
    wire::{client::ConnectError, server::ListenError},
};

pub mod folder;
pub mod local;
pub mod materials;
pub mod summary;
pub mod uid;

use folder::{Folder, FolderError};
use local::Kept;
use materials::Shelf;

/// Where a run writes and what it may reuse.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Each run writes to a folder of its name in here.
    pub out: PathBuf,
    /// Starts anew where results of the same spec are there already.
    pub fresh: bool,
    /// Where tokenised data is kept, and what is brought to this machine.
    pub cache: Option<PathBuf>,
    /// What opens sources that are not on this machine.
    pub access: Access,
    /// Who listens.
    pub events: Events,
}

/// Why a run failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// The output folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The device.
    #[error(transparent)]
    Device(#[from] materials::DeviceError),
    /// Rows too long for the model.
    #[error(transparent)]
    Length(#[from] materials::LengthError),
    /// Where the base model comes from.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The base model or its tokenizer.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The adapter.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The adapter to start from.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The network.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server of the run.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A client of the run.
    #[error("client {client}: {error}")]
    Client {
        /// Which.
        client: String,
        /// Its error.
        error: ClientError,
    },
    /// The adapter's files.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The report's files.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// Where results are wanted.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// Threads of the network.
    #[error("the network's threads cannot be started: {0}")]
    Runtime(std::io::Error),
}

impl RunError {
    /// Whether the user's configuration is at fault: exit code 78.
    pub fn is_configuration(&self) -> bool {
        match self {
            // What may pass by itself is nobody's mistake.
            Self::Source(error) | Self::Data(DataError::Source(error)) => !error.is_passing(),
            Self::Folder(_)
            | Self::Device(_)
            | Self::Length(_)
            | Self::Load(_)
            | Self::Model(_)
            | Self::Adapter(_)
            | Self::Data(_)
            | Self::Checkpoint(_)
            | Self::Listen(_) => true,
            Self::Server(ServerError::Checkpoint(error)) => error.is_refusal(),
            Self::Server(error) => {
                matches!(
                    error,
                    ServerError::CutLayer { .. }
                        | ServerError::Unfit(_)
                        | ServerError::Data(_)
                        | ServerError::Adapter(_)
                        | ServerError::Saved { .. }
                )
            }
            Self::Client { .. }
            | Self::Connect(_)
            | Self::Export(_)
            | Self::Report(_)
            | Self::Deliver(_)
            | Self::Runtime(_) => false,
        }
    }
}

impl RunError {
    /// Whether the run did not even begin, because of the checkpoints that lie there.
    fn is_of_checkpoints(&self) -> bool {
        match self {
            Self::Checkpoint(_) | Self::Server(ServerError::Saved { .. }) => true,
            Self::Server(ServerError::Checkpoint(error)) => error.is_refusal(),
            Self::Folder(_)
            | Self::Device(_)
            | Self::Length(_)
            | Self::Source(_)
            | Self::Load(_)
            | Self::Model(_)
            | Self::Adapter(_)
            | Self::Data(_)
            | Self::Listen(_)
            | Self::Connect(_)
            | Self::Server(_)
            | Self::Client { .. }
            | Self::Export(_)
            | Self::Report(_)
            | Self::Deliver(_)
            | Self::Runtime(_) => false,
        }
    }
}

/// Runs the plans one after another; each gives its report, or the error that ended it.
pub fn run_all(plans: &[Plan], options: &RunOptions) -> Vec<Result<RunReport, RunError>> {
    let mut shelf = Shelf::new(options.cache.clone(), options.access.clone(), options.events.clone());
    plans.iter().map(|plan| run(plan, &mut shelf, options)).collect()
}

/// Runs one plan and writes its folder.
fn run(plan: &Plan, shelf: &mut Shelf, options: &RunOptions) -> Result<RunReport, RunError> {
    let folder = Folder::of(&options.out, plan);
    if let Some(report) = folder.finished(plan, options.fresh)? {
        say_finished(plan, &options.events);
        deliver(plan, &folder, None, &options.access)?;
        return Ok(report);
    }
    let ended = run_in(plan, shelf, &folder, options);
    let ended = ended.and_then(|report| deliver(plan, &folder, None, &options.access).map(|()| report));
    let error = ended.as_ref().err().map(ToString::to_string);
    options.events.tell(Event::RunFinished { run: plan.name.clone(), error });
    ended
}

fn run_in(plan: &Plan, shelf: &mut Shelf, folder: &Folder, options: &RunOptions) -> Result<RunReport, RunError> {
    let materials = shelf.take(plan)?;
    // Not before: a run that is refused leaves no folder that its corrected spec would then find taken.
    folder.begin(plan, options.fresh)?;
    say_start(plan, &materials, &options.events);
    match local::run(plan, &materials, Kept::In(folder.path()), &options.events) {
        Ok(ended) => {
            folder.export(plan, &materials, &ended)?;
            let report = summary::succeeded(plan, &materials, &ended);
            crate::report::write(&report, folder.path())?;
            Ok(report)
        }
        // What lies there may be another process's: nothing of it is overwritten.
        Err(error) if error.is_of_checkpoints() => Err(error),
        Err(error) => {
            let failed = summary::failed(plan, &materials, &error.to_string());
            // What ended the run may be why this cannot be written either: the first error is the one to tell.
            if let Err(unwritten) = crate::report::write(&failed, folder.path()) {
                tracing::warn!("{unwritten}");
            }
            Err(error)
        }
    }
}

/// Takes the results to where the spec wants them, and to the folder `output`, where there is one.
pub fn deliver(plan: &Plan, folder: &Folder, output: Option<&Path>, access: &Access) -> Result<(), RunError> {
    let folders = output.map(|output| Destination::Folder(output.to_owned()));
    let destinations: Vec<Destination> =
        folders.into_iter().chain(plan.output.clone().map(Destination::Store)).collect();
    Ok(deliver::deliver(folder.path(), &destinations, access)?)
}

/// Says why nothing is run.
pub fn say_finished(plan: &Plan, events: &Events) {
    events.tell(Event::Note { text: format!("{} is finished already; --fresh runs it anew", plan.name) });
}

fn say_start(plan: &Plan, materials: &materials::Materials, events: &Events) {
    let corpus = &materials.corpus;
    let sizes: Vec<String> = corpus.clients.iter().map(|records| records.len().to_string()).collect();
    let text = format!(
        "{} on {}; clients hold {} examples, {} public, {} held out",
        materials.model_name,
        materials.device_words,
        sizes.join(", "),
        corpus.public.len(),
        corpus.evaluation.len()
    );
    events.tell(Event::Note { text });
    say_begun(plan, events);
}

/// Says that a run begins, and how long it is.
pub fn say_begun(plan: &Plan, events: &Events) {
    events.tell(Event::RunStarted {
        run: plan.name.clone(),
        framework: plan.framework.name().to_string(),
        rounds: plan.rules.rounds,
        clients: plan.rules.clients as u32,
    });
}
