//! `fedtune`: fine-tunes language models across clients whose data stays where it is, and compares the ways to do so.
//! Must not compute: it reads the command line, calls the library and chooses the exit code.

use std::process::ExitCode;

use clap::Parser;
use fedtune::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(&Cli::parse())
}
