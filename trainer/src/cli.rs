//! The command line: arguments in, exit code out.
//! Must not compute or print results of its own; each command calls one part of the library.

use std::{
    env,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    events::Events,
    logs::{self, LogError, LogFormat},
    progress::{ProgressMode, colour_wanted, listener},
    telemetry::metrics_reference,
};

mod apart;
mod base;
mod certs;
pub mod environment;
mod estimate;
mod identity;
mod merge;
mod predict;
mod report;
mod run;
mod serve;
mod signals;
mod specs;
mod telemetry;

use signals::{Signal, Watch};

/// Everything worked.
const SUCCESS: u8 = 0;
/// A run failed.
const FAILED: u8 = 1;
/// The spec, the model, the data or the machine's set-up is at fault (`EX_CONFIG` of sysexits).
const CONFIGURATION: u8 = 78;

/// Fine-tunes language models across clients whose data stays where it is, and compares the ways to do so.
#[derive(Debug, Parser)]
#[command(name = "fedtune", version, about)]
pub struct Cli {
    /// text for people: progress bars on a terminal, a line a round elsewhere; json for machines.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What to log: error, warn, info, debug, trace or module=level.
    #[arg(long, global = true, value_name = "FILTER", env = "RUST_LOG")]
    log: Option<String>,
    /// No progress, only results and errors.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs specs on this machine, server and clients in one process, and compares them.
    Run(run::RunArgs),
    /// Runs the server of a spec; clients come over the network.
    Server(apart::ServerArgs),
    /// Runs one client of a spec.
    Client(apart::ClientArgs),
    /// Compares results that are there already.
    Report(report::ReportArgs),
    /// Says what a spec will cost in each framework, before anything runs.
    Estimate(estimate::EstimateArgs),
    /// Puts an adapter into its base model, for any program that loads Hugging Face models.
    Merge(merge::MergeArgs),
    /// Asks a tuned model: the label of each text, with probabilities.
    Predict(predict::PredictArgs),
    /// Serves the results of a run for a while, for reading: how `kubectl fedtune adapter` fetches them from a claim.
    Serve(serve::ServeArgs),
    /// Makes a CA, certificates and join bundles for a run, or renews them.
    Certs(certs::CertsArgs),
    /// Prints which metrics servers and clients serve, as Markdown.
    Metrics,
}

/// Arguments that every command which reads specs has.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Changes one field, as in `training.rounds=5`; may be given several times.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// Where tokenised data is kept, and what is downloaded; by default in the user's cache folder.
    #[arg(long, value_name = "DIR", env = "FEDTUNE_CACHE")]
    pub cache: Option<PathBuf>,
}

/// Runs a command and says how it went.
pub fn run(cli: &Cli) -> ExitCode {
    let code = match start_logs(cli) {
        Err(error) => complain(error, CONFIGURATION),
        Ok(events) => match Watch::begin() {
            Err(error) => complain(format!("cannot listen for signals: {error}"), FAILED),
            Ok(watch) => {
                let code = obey(&cli.command, events, &watch);
                watch.caught().map_or(code, Signal::code)
            }
        },
    };
    ExitCode::from(code)
}

fn obey(command: &Command, events: Events, watch: &Watch) -> u8 {
    match command {
        Command::Run(arguments) => run::run(arguments, events),
        Command::Server(arguments) => apart::server(arguments, &events, watch),
        Command::Client(arguments) => apart::client(arguments, &events),
        Command::Report(arguments) => report::report(arguments),
        Command::Estimate(arguments) => estimate::estimate(arguments, &events),
        Command::Merge(arguments) => merge::merge(arguments, &events),
        Command::Predict(arguments) => predict::predict(arguments, &events),
        Command::Serve(arguments) => serve::serve(arguments),
        Command::Certs(arguments) => certs::certs(arguments),
        Command::Metrics => match metrics_reference() {
            Ok(page) => print(&page),
            Err(error) => complain(error, FAILED),
        },
    }
}

/// Sets up logs and progress, both on standard error.
fn start_logs(cli: &Cli) -> Result<Events, LogError> {
    let (terminal, no_color) = (io::stderr().is_terminal(), env::var_os("NO_COLOR"));
    let mode = if cli.quiet {
        ProgressMode::Silent
    } else {
        ProgressMode::fitting(cli.log_format == LogFormat::Json, terminal, no_color.as_deref())
    };
    let colour = colour_wanted(terminal, no_color.as_deref());
    logs::start(cli.log_format, cli.log.as_deref(), colour, mode.screen())?;
    Ok(listener(mode))
}

fn print(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => SUCCESS,
        Err(error) => complain(format!("standard output cannot be written: {error}"), FAILED),
    }
}

/// Whether the table on standard output may be coloured.
fn table_colour() -> bool {
    colour_wanted(io::stdout().is_terminal(), env::var_os("NO_COLOR").as_deref())
}

/// Says an error as one would to a person, and gives the exit code back.
fn complain(error: impl std::fmt::Display, code: u8) -> u8 {
    eprintln!("fedtune: {error}");
    code
}
