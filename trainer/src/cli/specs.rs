//! Spec files to plans: read, checked, refused with a sentence for each thing that is wrong.
//! Must not start a run of several specs when one of them is wrong.

use std::{collections::BTreeSet, fs, path::Path};

use fedtune_crds::load_all;

use crate::plan::Plan;

/// All resources of `files` as plans, or every problem of all of them.
pub(super) fn plans(files: &[impl AsRef<Path>], sets: &[String]) -> Result<Vec<Plan>, Vec<String>> {
    let (mut plans, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        match plans_of(file.as_ref(), sets) {
            Ok(mut more) => plans.append(&mut more),
            Err(mut more) => problems.append(&mut more),
        }
    }
    let mut names = BTreeSet::new();
    let twice = plans.iter().filter(|plan| !names.insert(&plan.name));
    problems.extend(twice.map(|plan| {
        format!("two specs are named {}; each run needs a metadata.name and so an output folder of its own", plan.name)
    }));
    if problems.is_empty() { Ok(plans) } else { Err(problems) }
}

/// The one resource of `file` as a plan.
pub(super) fn one_plan(file: &Path, sets: &[String]) -> Result<Plan, String> {
    let mut plans = plans(&[file], sets).map_err(|problems| problems.join("\nfedtune: "))?;
    match (plans.pop(), plans.len()) {
        (Some(plan), 0) => Ok(plan),
        (_, more) => Err(format!("{} holds {} resources; expected one", file.display(), more + 1)),
    }
}

fn plans_of(file: &Path, sets: &[String]) -> Result<Vec<Plan>, Vec<String>> {
    let in_file = |problem: String| format!("{}: {problem}", file.display());
    let text = fs::read_to_string(file).map_err(|error| vec![in_file(error.to_string())])?;
    let resources = load_all(&text, sets)
        .map_err(|error| error.to_string().lines().map(|line| in_file(line.to_owned())).collect::<Vec<_>>())?;
    let plans = resources.iter().map(|resource| {
        Plan::of(resource).map_err(|error| error.to_string().lines().map(|l| in_file(l.to_owned())).collect::<Vec<_>>())
    });
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for plan in plans {
        match plan {
            Ok(plan) => good.push(plan),
            Err(mut problems) => bad.append(&mut problems),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}
