//! What `fedtune server` and `fedtune client` say of themselves to machines, as the command line asks for it.
//! Must not change what they compute, nor how they end.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use tokio::{runtime::Handle, time::sleep};

use super::complain;
use crate::{
    events::{Event, Events},
    plan::Plan,
    telemetry::{Clock, Http, HttpError, Role, RunFacts, Telemetry, termination},
};

/// Arguments about telemetry.
#[derive(Debug, Args)]
#[command(next_help_heading = "Telemetry")]
pub(super) struct TelemetryArgs {
    /// Serves /healthz, /readyz, /metrics and a server's /status here, over plain HTTP: figures of the run, and no data
    /// of any client. Off unless given.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Writes the last words here, at most 3 KiB: a server its final figures as JSON, either an error as a sentence.
    #[arg(long, value_name = "FILE")]
    termination_log: Option<PathBuf>,
    /// Seconds to go on serving --http after the end, so that the last figures are still read.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=86_400))]
    linger: u64,
    /// Kubernetes namespace of the run, a label of its metrics.
    #[arg(long, value_name = "NAME", env = "FEDTUNE_NAMESPACE", default_value = "", hide_default_value = true)]
    namespace: String,
}

/// The telemetry of a command that runs.
#[derive(Debug)]
pub(super) struct Told {
    /// What it knows.
    pub(super) telemetry: Telemetry,
    /// Tells it, and those who listened already.
    pub(super) events: Events,
    http: Option<Http>,
}

impl TelemetryArgs {
    /// Begins to listen to the run and to be read; before anything slow is begun, so that a probe is answered early.
    pub(super) fn start(
        &self,
        plan: &Plan,
        role: Role,
        clock: Clock,
        events: &Events,
        runtime: &Handle,
    ) -> Result<Told, HttpError> {
        let telemetry = Telemetry::new(RunFacts::of(plan, &self.namespace), role, clock);
        let http = self.http.map(|address| Http::bind(address, &telemetry, runtime)).transpose()?;
        // First, so that what a person is told is true for machines already.
        Ok(Told { events: telemetry.listener().and(events.clone()), telemetry, http })
    }

    /// Says an error to the person and in the last words, and gives the exit code back.
    pub(super) fn complain(&self, error: impl std::fmt::Display, code: u8) -> u8 {
        if let Some(file) = &self.termination_log {
            termination::write_error(file, &error.to_string());
        }
        complain(error, code)
    }

    /// Tells everyone how the run ended; a server that succeeded leaves its figures.
    pub(super) fn end(&self, told: &Told, plan: &Plan, error: Option<String>) {
        let failed = error.is_some();
        told.events.tell(Event::RunFinished { run: plan.name.clone(), error });
        if let (false, Role::Server, Some(file)) = (failed, told.telemetry.role(), &self.termination_log) {
            termination::write_summary(file, &told.telemetry.status());
        }
    }

    /// Goes on serving for `--linger`, or until `stop`.
    pub(super) fn linger(&self, told: &Told, runtime: &Handle, stop: impl Future<Output = ()>) {
        if told.http.is_some() && self.linger > 0 {
            let time = Duration::from_secs(self.linger);
            runtime.block_on(async {
                tokio::select! {
                    () = sleep(time) => {}
                    () = stop => {}
                }
            });
        }
    }
}
