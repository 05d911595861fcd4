//! `fedtune-operator`: runs `FederatedFineTune` resources on a cluster, prints their definition and its pages, checks them by its rules.
//! Must not link libtorch.

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use fedtune_crds::{crd, load_all, reference};
use fedtune_operator::{arguments::RunArgs, metrics};
use tokio::signal::unix::{SignalKind, signal};

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
    /// Runs the resources of a cluster: the one of the pod's service account, else of KUBECONFIG.
    Run(Box<RunArgs>),
    /// Prints the definition of the resource, for `kubectl apply -f -`.
    Crd,
    /// Prints a page on every field of the resource, as Markdown.
    Reference,
    /// Prints which metrics the operator serves, as Markdown.
    Metrics,
    /// Checks resources by the rules that the API server applies; says all that is wrong, one sentence a line.
    Validate {
        /// YAML files, each with one or more resources.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Crd => print(&crd::yaml()),
        Command::Reference => print(&reference::markdown()),
        Command::Metrics => print(&metrics::reference()?),
        Command::Validate { files } => validate(&files),
        Command::Run(arguments) => run(&arguments),
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(text.as_bytes()).context("the text cannot be printed")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the operator until SIGTERM or SIGINT.
fn run(arguments: &RunArgs) -> anyhow::Result<ExitCode> {
    arguments.start_logging()?;
    let machine = env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
    let options = match arguments.options(&machine, RandomState::new().hash_one(())) {
        Ok(options) => options,
        Err(error) => {
            writeln!(io::stderr(), "fedtune-operator: {error}").context("the problem cannot be printed")?;
            return Ok(ExitCode::from(EX_CONFIG));
        }
    };
    // Once, before the first connection: with two providers in the program rustls would not choose.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("rustls has a provider already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let ended: anyhow::Result<()> = runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = async {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        let client = kube::Client::try_default()
            .await
            .context("there is no cluster: neither a pod's service account nor a KUBECONFIG that can be read")?;
        Ok(fedtune_operator::operator::run(client, options, stop).await?)
    });
    if let Err(error) = ended {
        writeln!(io::stderr(), "fedtune-operator: {error:#}").context("the problem cannot be printed")?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
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
