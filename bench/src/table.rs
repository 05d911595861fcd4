//! `fedtune-bench run`: contests one after another, then their table.
//! Must not stop at a contest that fails: the others are measured all the same.

use std::path::PathBuf;

use clap::Args;

use crate::{
    contest::{Places, hold},
    error::BenchError,
    report::{json_line, lines, table},
    rows::{Contest, contests},
    work::gpt2,
};

/// Arguments of `fedtune-bench run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Only contests whose names hold this word; may be given several times.
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// How often each side runs.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Small sizes and one repeat: shows in seconds that everything runs.
    #[arg(long)]
    smoke: bool,
    /// Folder of models, with `minilm` and `smollm2`.
    #[arg(long, value_name = "DIR", default_value = ".cache/models")]
    models: PathBuf,
    /// What the bench writes goes here.
    #[arg(long, value_name = "DIR", default_value = ".cache/bench")]
    scratch: PathBuf,
    /// The trainer's program; by default the one beside this.
    #[arg(long, value_name = "PROGRAM")]
    fedtune: Option<PathBuf>,
    /// A Python that has what `bench/peers/requirements.txt` lists; without it the peers are left out.
    #[arg(long, value_name = "PYTHON")]
    python: Option<PathBuf>,
    /// The peers' scripts.
    #[arg(long, value_name = "DIR", default_value = "bench/peers")]
    peers: PathBuf,
}

/// Runs the contests; fails if one of them could not be held.
pub(crate) fn run(arguments: &RunArgs) -> Result<(), BenchError> {
    let (chosen, places) = (choose(arguments)?, places(arguments)?);
    let repeats = if arguments.smoke { 1 } else { arguments.repeats.max(1) };
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for contest in &chosen {
        eprintln!("{}", contest.work);
        match hold(contest, &places, repeats) {
            Ok(measured) => {
                println!("{}", json_line(contest, &measured));
                rows.extend(lines(contest, &measured));
            }
            Err(error) => {
                eprintln!("{}: {error}", contest.name);
                failed.push(contest.name.clone());
            }
        }
    }
    println!("\n{}", table(&rows));
    if failed.is_empty() { Ok(()) } else { Err(BenchError::Unheld { contests: failed.join(", ") }) }
}

fn choose(arguments: &RunArgs) -> Result<Vec<Contest>, BenchError> {
    let all = contests(arguments.smoke);
    let is_named = |word: &String| all.iter().any(|contest| contest.name.contains(word.as_str()));
    if let Some(word) = arguments.only.iter().find(|word| !is_named(word)) {
        let existing = all.iter().map(|contest| contest.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(BenchError::NoRow { pattern: word.clone(), existing });
    }
    let wanted = |contest: &Contest| {
        arguments.only.is_empty() || arguments.only.iter().any(|word| contest.name.contains(word.as_str()))
    };
    Ok(all.into_iter().filter(wanted).collect())
}

fn places(arguments: &RunArgs) -> Result<Places, BenchError> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path).map_err(|error| BenchError::io(format!("{} is no path", path.display()), error))
    };
    let own = std::env::current_exe().map_err(|error| BenchError::io("this program has no path", error))?;
    let places = Places {
        models: absolute(&arguments.models)?,
        scratch: absolute(&arguments.scratch)?,
        fedtune: absolute(arguments.fedtune.as_ref().unwrap_or(&own.with_file_name("fedtune")))?,
        peers: absolute(&arguments.peers)?,
        python: arguments.python.as_ref().map(absolute).transpose()?,
    };
    std::fs::create_dir_all(&places.scratch)
        .map_err(|error| BenchError::io(format!("{} cannot be made", places.scratch.display()), error))?;
    if !arguments.smoke {
        gpt2::prepare(&places.scratch)?;
    }
    Ok(places)
}
