//! Oracles of `tuning.lora.initialAdapter`: everyone starts from the adapter that is named, in every framework.

use std::{path::PathBuf, sync::Arc};

use super::*;
use crate::{
    adapter_files::AdapterFiles,
    export::{Export, write_adapter},
    run::materials::Materials,
};

/// The adapter of a run, as it is exported with these labels.
fn exported(above: &Path, plan: &Plan, ended: &Ended, labels: [&str; 3]) -> PathBuf {
    let (folder, labels) = (above.join("adapter"), labels.map(str::to_owned));
    let export = Export {
        lora: &plan.lora,
        base: "tiny-bert".into(),
        revision: None,
        labels: &labels,
        pad_id: 0,
        system_prompt: None,
    };
    write_adapter(&folder, ended.outcome.half.model().unwrap(), &export).unwrap();
    folder
}

fn from(plan: &Plan, folder: &Path) -> Materials {
    let clients = (0..plan.clients.len()).map(|k| records(10 + k, k as u64)).collect();
    Materials { initial: Some(Arc::new(AdapterFiles::read(folder).unwrap())), ..materials(plan, clients) }
}

#[test]
fn every_framework_starts_from_the_adapter_that_is_named() {
    let above = tempfile::tempdir().unwrap();
    let trained = plan("fedLLM: {}", &[]);
    let ended = run_with_unequal_clients(&trained);
    let folder = exported(above.path(), &trained, &ended, ["a", "b", "c"]);
    // The first step of a warm-up has a rate of 0, and there is no other: what a run ends with is what it began with.
    let still = [
        r#"training.schedule={"linear":{"warmupSteps":5}}"#,
        "training.rounds=1",
        "training.localSteps=1",
        "clients.groups[0].replicas=2",
    ];
    for framework in [
        "fedLLM: {}",
        "kdFedLLM: {distillationSteps: 1}",
        "splitFedLLM: {variant: V1, cutLayer: 1}",
        "splitFedLLM: {variant: V2, cutLayer: 1}",
    ] {
        let plan = plan(framework, &still);
        let again = run(&plan, &from(&plan, &folder), Kept::Nowhere, &Events::silent()).unwrap();
        assert_eq!(adapter_of(&again), adapter_of(&ended), "{framework}");
    }
}

#[test]
fn an_adapter_with_its_labels_in_another_order_is_refused() {
    let above = tempfile::tempdir().unwrap();
    let plan = plan("fedLLM: {}", &[]);
    let folder = exported(above.path(), &plan, &run_with_unequal_clients(&plan), ["b", "a", "c"]);
    let error = run(&plan, &from(&plan, &folder), Kept::Nowhere, &Events::silent()).err().unwrap();
    assert!(error.is_configuration());
    let sentence = error.to_string();
    assert!(sentence.contains("its labels are b, a, c, and the run's are a, b, c; set data.labels"), "{sentence}");
}
