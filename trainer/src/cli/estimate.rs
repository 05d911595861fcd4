//! `fedtune estimate SPEC...`.
//! Must not start a run.

use std::path::PathBuf;

use clap::Args;
use fedtune_crds::quantities::{ByteSize, Decimal};

use super::{CONFIGURATION, SUCCESS, SpecArgs, complain, environment, specs};
use crate::{
    estimate::{Budget, Estimate, Facts, table, verdict},
    events::Events,
    plan::Plan,
    sources::{Access, Fetcher},
};

/// Arguments of `fedtune estimate`.
#[derive(Debug, Args)]
pub struct EstimateArgs {
    /// Files of `FederatedFineTune` resources. Each is estimated in every framework.
    #[arg(required = true, value_name = "SPEC")]
    specs: Vec<PathBuf>,
    /// Says which framework exchanges no more than this, both directions and all clients together, as in 10Gi.
    #[arg(long, value_name = "BYTES")]
    max_bytes: Option<ByteSize>,
    /// Says in which framework all clients together do no more operations than this, as in 1e15.
    #[arg(long, value_name = "FLOPS")]
    max_client_flops: Option<Decimal>,
    /// Every client and round as JSON, instead of the table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    spec: SpecArgs,
}

/// What is put into a spec to see it in another framework.
const FRAMEWORKS: [(&str, &str); 5] = [
    ("fedLLM", "framework={fedLLM: {}}"),
    ("kdFedLLM", "framework={kdFedLLM: {}}"),
    ("splitFedLLM", "framework={splitFedLLM: {}}"),
    ("central", "framework={central: {}}"),
    ("localOnly", "framework={localOnly: {}}"),
];

/// Prints what each spec will cost in each framework.
pub(super) fn estimate(arguments: &EstimateArgs, events: &Events) -> u8 {
    let mut all = Vec::new();
    for file in &arguments.specs {
        match of_file(file, arguments, events) {
            Ok(mut estimates) => all.append(&mut estimates),
            Err(sentence) => return complain(sentence, CONFIGURATION),
        }
    }
    if arguments.json {
        let estimates: Vec<&Estimate> = all.iter().flat_map(|(estimates, _)| estimates).collect();
        println!("{}", serde_json::to_string_pretty(&estimates).expect("an estimate is numbers and texts"));
        return SUCCESS;
    }
    for (estimates, left_out) in &all {
        print(arguments, estimates, left_out);
    }
    SUCCESS
}

type Estimates = (Vec<Estimate>, Vec<String>);

/// The estimates of each spec of a file, and what could not be estimated.
fn of_file(file: &PathBuf, arguments: &EstimateArgs, events: &Events) -> Result<Vec<Estimates>, String> {
    let cache = arguments.spec.cache.clone().or_else(environment::default_cache);
    let fetcher = Fetcher::new(cache.clone(), Access::from_environment(), events.clone());
    let own = plans(file, &arguments.spec.sets, None)?;
    let variants: Vec<(&str, Result<Vec<Plan>, String>)> =
        FRAMEWORKS.iter().map(|(name, set)| (*name, plans(file, &arguments.spec.sets, Some(set)))).collect();
    own.iter()
        .enumerate()
        .map(|(index, plan)| {
            let facts = Facts::read(plan, &fetcher, cache.as_deref(), events)
                .map_err(|error| format!("{}: {error}", plan.name))?;
            let (mut estimates, mut left_out) = (Vec::new(), Vec::new());
            for (name, variant) in &variants {
                match variant {
                    Ok(variant) if variant[index].framework.name() == plan.framework.name() => {
                        estimates.push(Estimate::of(plan, &facts, true));
                    }
                    Ok(variant) => estimates.push(Estimate::of(&variant[index], &facts, false)),
                    Err(problem) => left_out.push(format!("{name} is left out: {problem}")),
                }
            }
            Ok((estimates, left_out))
        })
        .collect()
}

fn plans(file: &PathBuf, sets: &[String], framework: Option<&&str>) -> Result<Vec<Plan>, String> {
    let sets: Vec<String> = sets.iter().cloned().chain(framework.map(|set| (*set).to_owned())).collect();
    specs::plans(&[file], &sets).map_err(|problems| problems.join("\nfedtune: "))
}

fn print(arguments: &EstimateArgs, estimates: &[Estimate], left_out: &[String]) {
    let Some(first) = estimates.first() else { return };
    match &first.bound {
        None => println!("{}: bytes are exact, each client and round on average, then all together", first.run),
        Some(reason) => println!("{}: upper bounds, as {reason}", first.run),
    }
    print!("{}", table(estimates));
    for sentence in left_out {
        println!("{sentence}");
    }
    let budget = Budget {
        bytes: arguments.max_bytes.as_ref().map(ByteSize::bytes),
        client_flops: arguments.max_client_flops.as_ref().map(Decimal::value),
    };
    print!("{}", verdict(estimates, budget));
    println!();
}
