//! A contest: all sides in turn, A B A B, so that a machine that slows down slows both.
//! Must not choose among repeats: every run that ended well counts.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde::Serialize;

use crate::{
    error::BenchError,
    process::{Taken, measure},
    rows::{Contest, Program, Side},
};

/// Where things are.
#[derive(Debug, Clone)]
pub struct Places {
    /// Folder of models: `minilm`, `smollm2`.
    pub models: PathBuf,
    /// What the bench writes: data, a model of random weights, outputs.
    pub scratch: PathBuf,
    /// The trainer's program.
    pub fedtune: PathBuf,
    /// The peers' scripts.
    pub peers: PathBuf,
    /// A Python that has what the peers need; none: they are left out.
    pub python: Option<PathBuf>,
}

/// What all repeats of one side took.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// As the table calls the side.
    pub side: String,
    /// What was run.
    pub command: String,
    /// In the order of the repeats; empty where the side was left out.
    pub runs: Vec<Taken>,
}

/// Runs every side `repeats` times, in turn.
pub fn hold(contest: &Contest, places: &Places, repeats: usize) -> Result<Vec<Measured>, BenchError> {
    let mut measured: Vec<Measured> = contest.sides.iter().map(|side| blank(side, contest, places)).collect();
    for repeat in 0..repeats {
        for (place, side) in contest.sides.iter().enumerate() {
            let Some(mut command) = command(side, contest.own_network, places) else { continue };
            let mark = format!("{}-{}-{place}-{repeat}", std::process::id(), contest.name);
            measured[place].runs.push(measure(&mut command, &mark)?);
        }
    }
    Ok(measured)
}

fn blank(side: &Side, contest: &Contest, places: &Places) -> Measured {
    let command = command(side, contest.own_network, places).map_or_else(String::new, |command| words(&command));
    Measured { side: side.name.clone(), command, runs: Vec::new() }
}

/// The command as one would type it, without the folders of this machine.
fn words(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| {
        let argument = argument.to_string_lossy();
        if argument.starts_with('/') {
            argument.rsplit('/').next().unwrap_or_default().to_owned()
        } else {
            argument.into()
        }
    });
    std::iter::once(name).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn command(side: &Side, own_network: bool, places: &Places) -> Option<Command> {
    let (program, first) = match side.program {
        Program::Work => (std::env::current_exe().ok()?, PathBuf::from("work")),
        Program::Peer(script) => (places.python.clone()?, places.peers.join(script)),
    };
    let mut command = if own_network { in_own_network(&program) } else { Command::new(program) };
    command.arg(first).args(&side.arguments);
    command.env("FEDTUNE_BENCH_MODELS", &places.models);
    command.env("FEDTUNE_BENCH_SCRATCH", &places.scratch);
    command.env("FEDTUNE_BENCH_PROGRAM", &places.fedtune);
    Some(command)
}

/// A network namespace holds nothing but this run, so its loopback's counter is the run's own.
fn in_own_network(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).arg(program);
    command
}
