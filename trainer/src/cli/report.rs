//! `fedtune report DIR...`.
//! Must not run anything.

use std::path::PathBuf;

use clap::Args;

use super::{CONFIGURATION, SUCCESS, complain, table_colour};
use crate::report::report_command;

/// Arguments of `fedtune report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folders of runs, or folders that hold such folders.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Where the page goes.
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
}

/// Writes the page, prints the table.
pub(super) fn report(arguments: &ReportArgs) -> u8 {
    match report_command(&arguments.dirs, &arguments.out, None, table_colour()) {
        Ok(table) => {
            print!("{table}");
            println!("\nThe report is {}.", arguments.out.display());
            SUCCESS
        }
        Err(error) => complain(error, CONFIGURATION),
    }
}
