//! A contest: all sides in turn, A B A B, so that a machine that slows down slows both.
//! Must not choose among repeats: every run that ended well counts.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde::Serialize;

use crate::{
    error::BenchError,
    process::{Taken, measure},
    rows::{Contest, Program, Side},
};

/// Set where a run's network holds nothing else.
pub(crate) const OWN_NETWORK: &str = "FEDTUNE_BENCH_OWN_NETWORK";

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
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
pub(crate) struct Measured {
    /// As the table calls the side.
    pub side: String,
    /// What was run.
    pub command: String,
    /// In the order of the repeats; empty where the side was left out.
    pub runs: Vec<Taken>,
}

/// Runs every side `repeats` times, in turn.
pub(crate) fn hold(contest: &Contest, places: &Places, repeats: usize) -> Result<Vec<Measured>, BenchError> {
    let mut measured: Vec<Measured> = contest.sides.iter().map(|side| blank(side, contest, places)).collect();
    for repeat in 0..repeats {
        for (place, side) in contest.sides.iter().enumerate() {
            let Some(mut command) = command(side, contest.own_network, places) else { continue };
            let mark = format!("{}-{}-{place}-{repeat}", std::process::id(), contest.name);
            measured[place].runs.push(measure(&mut command, &mark)?);
        }
    }
    check_same_work(contest, &measured)?;
    Ok(measured)
}

/// What a peer that says it must say as our side does: numbers that are trained, bytes of tensors that are exchanged.
const ALIKE: [&str; 2] = ["trained", "payloadBytes"];

fn check_same_work(contest: &Contest, measured: &[Measured]) -> Result<(), BenchError> {
    let peers = contest.sides.iter().zip(measured).filter(|(side, _)| matches!(side.program, Program::Peer(_)));
    for ((_, peer), what) in peers.flat_map(|peer| ALIKE.map(|what| (peer, what))) {
        let said = |side: &Measured| side.runs.first().and_then(|run| run.said[what].as_u64());
        if let (Some(ours), Some(theirs)) = (said(&measured[0]), said(peer))
            && ours != theirs
        {
            return Err(BenchError::Unlike { what, side: peer.side.clone(), theirs, ours });
        }
    }
    Ok(())
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
    let alone = own_network && may_have_own_network();
    let mut command = if alone { in_own_network(&program) } else { Command::new(program) };
    if alone {
        command.env(OWN_NETWORK, "1");
    }
    command.arg(first).args(&side.arguments);
    if matches!(side.program, Program::Peer(_)) {
        // As the trainer sets it for itself: threads that spin while they wait would measure what else the machine does.
        command.env("OMP_WAIT_POLICY", "PASSIVE");
    }
    command.env("FEDTUNE_BENCH_MODELS", &places.models);
    command.env("FEDTUNE_BENCH_SCRATCH", &places.scratch);
    command.env("FEDTUNE_BENCH_PROGRAM", &places.fedtune);
    Some(command)
}

/// Whether this user may make a network namespace; without one, bytes on loopback are nobody's and are left out.
fn may_have_own_network() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let tried = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    })
}

/// A network namespace holds nothing but this run, so its loopback's counter is the run's own.
fn in_own_network(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn measured(said: Value) -> Measured {
        let taken = Taken { wall_seconds: 1.0, cpu_seconds: 1.0, peak_bytes: 1, processes: 1, others_cores: 0.0, said };
        Measured { side: "a side".into(), command: String::new(), runs: vec![taken] }
    }

    #[test]
    fn a_peer_that_trains_another_count_of_numbers_is_refused() {
        let side = |program| Side { name: String::new(), program, arguments: Vec::new() };
        let sides = vec![side(Program::Work), side(Program::Peer("silent.py")), side(Program::Peer("x.py"))];
        let contest =
            Contest { name: String::new(), work: String::new(), sides, claims: Vec::new(), own_network: false };
        let check = |theirs: u64| {
            let said = [json!({"trained": 7}), json!({}), json!({"trained": theirs})];
            check_same_work(&contest, &said.map(measured))
        };
        assert!(check(7).is_ok());
        let error = check(8).unwrap_err().to_string();
        assert!(error.contains("says 8 of trained where ours says 7"), "{error}");
    }
}
