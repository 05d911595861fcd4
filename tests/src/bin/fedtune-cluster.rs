//! The process behind a test's cluster.
//! Must not hold what it does: that is `cluster/keep.rs`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use fedtune_tests::cluster::keep;

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
    },
}

fn main() -> ExitCode {
    let Command::Keep { folder } = Cli::parse().command;
    if let Err(error) = keep(&folder) {
        eprintln!("the keeper of the cluster in {}: {error}", folder.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
