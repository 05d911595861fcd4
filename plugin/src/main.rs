//! `kubectl fedtune`: runs of a cluster, compared and looked at with the rights of whoever asks.
//! Must not link libtorch, nor change a run.
//!
//! | file | one thing |
//! |---|---|
//! | `cluster.rs` | the cluster of the user's kubeconfig, and what it refuses in a sentence |
//! | `compare.rs` | the runs of an experiment as a table |
//! | `logs.rs` | what server and clients of a run say, merged |
//! | `results.rs` | report and adapter, from the claim they lie on |
//! | `estimate.rs` | what an experiment would cost, by the trainer on this machine |

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use cluster::{Cluster, ClusterError};
use results::Wanted;

mod cluster;
mod compare;
mod estimate;
mod logs;
mod results;

/// Looks at the runs of a cluster.
#[derive(Debug, Parser)]
#[command(name = "kubectl-fedtune", bin_name = "kubectl fedtune", version)]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Which cluster and namespace, as for kubectl.
#[derive(Debug, Args)]
struct Place {
    /// Namespace of the runs. Left out, the context's.
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// Context of the kubeconfig. Left out, the current one.
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the runs of an experiment side by side: accuracy, bytes, what clients computed.
    Compare {
        /// `spec.experiment` of the runs.
        experiment: String,
        /// Of all namespaces.
        #[arg(short = 'A', long, conflicts_with = "namespace")]
        all_namespaces: bool,
    },
    /// Prints what server and clients of a run say, in the order of time.
    Logs {
        /// Name of the run.
        name: String,
        /// Goes on with what they say from now on.
        #[arg(short, long)]
        follow: bool,
        /// Lines of each pod from its end. Left out, all.
        #[arg(long, value_name = "LINES")]
        tail: Option<i64>,
    },
    /// Fetches results.json and report.html of a run that has ended.
    Report(Fetched),
    /// Fetches the adapter of a run that has ended.
    Adapter(Fetched),
    /// Says what an experiment would send and compute, by the program `fedtune` on this machine.
    Estimate {
        /// Its file.
        #[arg(short, long, value_name = "FILE")]
        filename: PathBuf,
        /// What `fedtune estimate` takes besides.
        #[arg(last = true)]
        others: Vec<String>,
    },
}

/// What is fetched, and where to.
#[derive(Debug, Args)]
struct Fetched {
    /// Name of the run.
    name: String,
    /// Folder for the files, which must not be there. Left out, one of the run's name.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Image of the trainer, for a run whose pods are gone. Left out, the run's.
    #[arg(long)]
    image: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(run(Cli::parse())).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kubectl fedtune: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Cli { place, command }: Cli) -> anyhow::Result<ExitCode> {
    match command {
        Command::Compare { experiment, all_namespaces } => {
            let cluster = connect(&place).await?;
            let runs = cluster.runs_of(&experiment, all_namespaces).await?;
            println!("{}", compare::table(&runs, all_namespaces));
            Ok(ExitCode::SUCCESS)
        }
        Command::Logs { name, follow, tail } => {
            let cluster = connect(&place).await?;
            let pods = cluster.pods_of(&cluster.run(&name).await?).await?;
            logs::print(&cluster, &pods, &logs::Wanted { follow, tail }, &mut std::io::stdout()).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Report(fetched) => Box::pin(fetch(&place, fetched, Wanted::Report)).await,
        Command::Adapter(fetched) => Box::pin(fetch(&place, fetched, Wanted::Adapter)).await,
        Command::Estimate { filename, others } => Ok(estimate::run(&filename, &others)?),
    }
}

async fn connect(place: &Place) -> Result<Cluster, ClusterError> {
    cluster::connect(place.context.as_deref(), place.namespace.clone()).await
}

async fn fetch(place: &Place, fetched: Fetched, wanted: Wanted) -> anyhow::Result<ExitCode> {
    let cluster = connect(place).await?;
    let run = cluster.run(&fetched.name).await?;
    let into = fetched.output.unwrap_or_else(|| PathBuf::from(&fetched.name));
    for file in results::bring(&cluster, &run, fetched.image, wanted, &into).await? {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
