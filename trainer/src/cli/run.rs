//! `fedtune run SPEC...`.
//! Must not stop at the first failed run: the others are done and compared all the same.

use std::{path::PathBuf, time::SystemTime};

use clap::Args;
use fedtune_crds::report::RunReport;

use super::{CONFIGURATION, FAILED, SUCCESS, SpecArgs, complain, environment, specs, table_colour};
use crate::{
    events::Events,
    report,
    run::{RunError, RunOptions, run_all},
    sources::Access,
};

/// Arguments of `fedtune run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Files of `FederatedFineTune` resources.
    #[arg(required = true, value_name = "SPEC")]
    specs: Vec<PathBuf>,
    /// Each run writes to a folder of its name in here, the comparison to report.html.
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Starts anew where results are there already.
    #[arg(long)]
    fresh: bool,
    /// Writes each run's rounds for TensorBoard to a folder of its name in here.
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
    #[command(flatten)]
    spec: SpecArgs,
}

/// Runs the specs, writes the comparison, prints the table.
pub(super) fn run(arguments: &RunArgs, events: Events) -> u8 {
    let plans = match specs::plans(&arguments.specs, &arguments.spec.sets) {
        Ok(plans) => plans,
        Err(problems) => return complain(problems.join("\nfedtune: "), CONFIGURATION),
    };
    let options = RunOptions {
        out: arguments.out.clone(),
        fresh: arguments.fresh,
        cache: arguments.spec.cache.clone().or_else(environment::default_cache),
        access: Access::from_environment(),
        events,
    };
    let ended = run_all(&plans, &options);
    let code = ended.iter().map(|run| run.as_ref().map_or_else(exit_code, |_| SUCCESS)).max().unwrap_or(SUCCESS);
    let mut reports = Vec::new();
    for (plan, run) in plans.iter().zip(ended) {
        match run {
            Ok(report) => reports.push(report),
            Err(error) => {
                complain(format!("{}: {error}", plan.name), FAILED);
            }
        }
    }
    if let Err(error) = compare(&reports, arguments) {
        return complain(error, FAILED);
    }
    match write_events(&reports, arguments) {
        Ok(()) => code,
        Err(sentence) => complain(sentence, FAILED),
    }
}

fn exit_code(error: &RunError) -> u8 {
    if error.is_configuration() { CONFIGURATION } else { FAILED }
}

fn write_events(reports: &[RunReport], arguments: &RunArgs) -> Result<(), String> {
    let Some(folder) = &arguments.tensorboard else { return Ok(()) };
    let written = reports.iter().try_for_each(|report| report::tensorboard::write(report, folder, SystemTime::now()));
    written.map_err(|error| format!("{} cannot be written: {error}; choose another --tensorboard", folder.display()))
}

fn compare(reports: &[RunReport], arguments: &RunArgs) -> Result<(), report::ReportError> {
    if reports.is_empty() {
        return Ok(());
    }
    let page = arguments.out.join("report.html");
    report::write_comparison(reports, &page)?;
    print!("{}", report::terminal_table(reports, None, table_colour()));
    println!("\nThe report is {}; adapters lie in {}/<run>/adapter.", page.display(), arguments.out.display());
    Ok(())
}
