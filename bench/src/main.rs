//! `fedtune-bench`: the trainer's speed, memory and bytes, beside those of what people use today.
//! Must not assert a time: it measures and prints, and whoever reads decides.
//!
//! | file | one thing |
//! |---|---|
//! | `rows.rs` | the table: what is measured, against whom, and the goal |
//! | `contest.rs` | both sides in turn, A B A B, each time in processes of their own |
//! | `process.rs` | one program with all that it starts: seconds, CPU seconds, peak memory |
//! | `statistics.rs` | median and spread, of one side and of ratios |
//! | `report.rs` | a JSON line a contest, then the table |
//! | `work.rs` | what our side does in a process of its own |
//! | `peers/` | the same work in Python |

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod contest;
mod error;
mod process;
mod report;
mod rows;
mod statistics;
mod table;
mod work;

/// Measures the trainer, and with `--peers` what people use today beside it.
#[derive(Debug, Parser)]
#[command(name = "fedtune-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs contests and prints their table.
    Run(table::RunArgs),
    /// Does one piece of work in this process and says what it took, as one line of JSON.
    Work {
        /// Which.
        #[command(subcommand)]
        work: work::Work,
    },
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Run(arguments) => table::run(&arguments),
        Command::Work { work } => work::run(&work).map(|said| println!("{said}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fedtune-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
