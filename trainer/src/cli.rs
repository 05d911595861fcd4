//! The command line: arguments in, exit code out.
//! Must not compute or print results of its own; each command calls one part of the library.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

mod apart;
pub mod environment;
mod report;
mod run;
mod specs;

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
    /// How to say what happens: text for people, json for machines.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log: LogFormat,
    /// No progress, only results and errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to say what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: progress bars on a terminal, a line a round elsewhere.
    Text,
    /// For machines: a JSON object a line.
    Json,
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
}

/// Arguments that every command which reads specs has.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// Changes one field, as in `training.rounds=5`; may be given several times.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    pub sets: Vec<String>,
    /// Where tokenised data is kept; by default in the user's cache folder.
    #[arg(long, value_name = "DIR", env = "FEDTUNE_CACHE")]
    pub cache: Option<PathBuf>,
}

/// Runs a command and says how it went.
pub fn run(cli: Cli) -> ExitCode {
    let Cli { log, quiet, command } = cli;
    let code = match command {
        Command::Run(arguments) => run::run(&arguments, log, quiet),
        Command::Server(arguments) => apart::server(&arguments, log, quiet),
        Command::Client(arguments) => apart::client(&arguments, log, quiet),
        Command::Report(arguments) => report::report(&arguments),
    };
    ExitCode::from(code)
}

/// Says an error as one would to a person, and gives the exit code back.
fn complain(error: impl std::fmt::Display, code: u8) -> u8 {
    eprintln!("fedtune: {error}");
    code
}
