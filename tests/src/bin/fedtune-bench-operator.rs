//! `make bench-operator`: many runs at once at a real API server, and what the operator and the API server took for them.
//! Must not judge: it prints figures, each beside its goal.

use std::io::{self, Write};

use clap::Parser;
use fedtune_tests::load::Load;

/// Measures the operator against a real API server. Nothing trains: there is no node, or a pretended one.
#[derive(Parser)]
struct Cli {
    /// Runs of four clients in one group.
    #[arg(long, default_value_t = 1000)]
    runs: u32,
    /// Seconds that the suspended runs are watched for.
    #[arg(long, default_value_t = 600)]
    idle_seconds: u64,
    /// Whether pods are pretended, too, by kwok.
    #[arg(long)]
    pods: bool,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let Cli { runs, idle_seconds, pods } = Cli::parse();
    let mut load = Load::start(pods).await;
    let mut out = io::stdout().lock();
    writeln!(out, "| {runs} runs of 4 clients | measured | goal |\n|---|---|---|")?;
    for row in load.apply(runs).await {
        writeln!(out, "{row}")?;
    }
    for row in load.take_over() {
        writeln!(out, "{row}")?;
    }
    for row in load.suspend(idle_seconds).await {
        writeln!(out, "{row}")?;
    }
    Ok(())
}
