//! `fedtune-operator`: prints the resource's definition and checks resources by its rules.
//! Must not link libtorch.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use fedtune_crds::{crd, load_all};

/// Exit code of a configuration error, as in sysexits.h and for every program of fedtune.
const EX_CONFIG: u8 = 78;

/// Works on `FederatedFineTune` resources.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the definition of the resource, for `kubectl apply -f -`.
    Crd,
    /// Checks resources by the rules that the API server applies; says all that is wrong, one sentence a line.
    Validate {
        /// YAML files, each with one or more resources.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Crd => {
            io::stdout().write_all(crd::yaml().as_bytes()).context("the definition cannot be printed")?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Validate { files } => validate(&files),
    }
}

/// Checks every file, so that one run shows all problems.
fn validate(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let sentences = problems(file);
        if !sentences.is_empty() {
            code = ExitCode::from(EX_CONFIG);
        }
        for sentence in sentences {
            writeln!(io::stderr(), "{}: {sentence}", file.display()).context("the problems cannot be printed")?;
        }
    }
    Ok(code)
}

/// What is wrong with `file`, one sentence each.
fn problems(file: &Path) -> Vec<String> {
    match fs::read_to_string(file) {
        Ok(yaml) => load_all(&yaml, &[]).err().map_or_else(Vec::new, |error| error.sentences()),
        Err(error) => vec![format!("it cannot be read: {error}")],
    }
}
