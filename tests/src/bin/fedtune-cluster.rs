//! The process behind a test's cluster, and a cluster for use by hand.
//! Must not hold what it does: that is `cluster/keep.rs` and `cluster/lasting.rs`.

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use fedtune_tests::cluster::{Lasting, end_lasting, keep, keep_enclosed, keep_parts, start_lasting};

/// Keeps Kubernetes clusters for tests.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts what it is told on standard input, and ends it all when that ends; then the folder is gone, too.
    Keep {
        /// The cluster's own folder.
        folder: PathBuf,
        /// Give the parts a network, mounts and processes of their own; takes root.
        #[arg(long)]
        enclosed: bool,
        /// This is the part of an enclosed keeper that is inside.
        #[arg(long, conflicts_with = "enclosed", hide = true)]
        inside: bool,
    },
    /// Starts a cluster with one node and the operator, and prints how it is reached; takes root.
    Up {
        /// Where it is noted how the cluster is ended.
        note: PathBuf,
    },
    /// Ends it.
    Down {
        /// Where that is noted.
        note: PathBuf,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if let Err(error) = run(Cli::parse().command).await {
        eprintln!("fedtune-cluster: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn run(command: Command) -> io::Result<()> {
    match command {
        Command::Keep { folder, enclosed: true, .. } => keep_enclosed(&folder),
        Command::Keep { folder, inside: true, .. } => keep_parts(&folder),
        Command::Keep { folder, .. } => keep(&folder),
        Command::Up { note } => {
            let Lasting { kubeconfig, results } = start_lasting(&note).await?;
            eprintln!("Its claims models and mail hold what make setup brought; results is {}.", results.display());
            println!("export KUBECONFIG={}", kubeconfig.display());
            Ok(())
        }
        Command::Down { note } => {
            println!("{}", if end_lasting(&note).await? { "The cluster is gone." } else { "There is no cluster." });
            Ok(())
        }
    }
}
