//! Every spec that is given to users, run small: a tiny model and tiny texts in the place of its own, one round.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use fedtune_crds::{FederatedFineTune, data::Format, load_all, model::Task, report::RunPhase};
use fedtune_tests::{Bench, tiny};

/// All YAML files below `folder`, sorted.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(yaml_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Texts in the shape that the resource reads: its folders, or a CSV with its columns.
fn write_data(bench: &Bench, resource: &FederatedFineTune) -> PathBuf {
    let data = &resource.spec.data;
    match data.format {
        Format::Folders => {
            for (number, folder) in data.label_map.iter().flatten().map(|(folder, _)| folder).enumerate() {
                tiny::write_folder(&bench.path("texts").join(folder), number * 40, 40);
            }
            bench.path("texts")
        }
        Format::Csv | Format::JsonLines | Format::Parquet => {
            let columns = &data.columns;
            let header = format!("{},{},shop", columns.text, columns.label);
            bench.write("texts.csv", tiny::csv(200).replacen("text,mood,shop", &header, 1))
        }
    }
}

/// The overrides that make the resource small and leave its meaning.
fn sets(bench: &Bench, resource: &FederatedFineTune) -> Vec<String> {
    let spec = &resource.spec;
    let mut sets = vec![
        format!("model.source={{path: {}}}", bench.path("model").display()),
        format!("data.source={{path: {}}}", write_data(bench, resource).display()),
        "data.evaluation={examples: 16}".to_owned(),
        "training.rounds=1".to_owned(),
        "training.batchSize=4".to_owned(),
        "training.device=CPU".to_owned(),
    ];
    let (modules, length) = match spec.model.task {
        Task::SequenceClassification => ("[query, value]", 12),
        // The system prompt takes its part.
        Task::CausalLm => ("[q_proj, v_proj]", 40),
    };
    sets.push(format!("tuning.lora.targetModules={modules}"));
    sets.push(format!("training.maxSequenceLength={length}"));
    let mut when = |wanted: bool, set: &str| sets.extend(wanted.then(|| set.to_owned()));
    when(spec.data.public.is_some(), "data.public={examples: 8}");
    when(spec.training.local_steps.is_some(), "training.localSteps=2");
    when(spec.training.local_epochs.is_some(), "training.localEpochs=1");
    when(spec.framework.kd_fed_llm.is_some(), "framework.kdFedLLM.distillationSteps=2");
    let logits = spec.framework.kd_fed_llm.as_ref().and_then(|kd| kd.logits.as_ref());
    when(logits.is_some_and(|logits| logits.top_k.is_some()), "framework.kdFedLLM.logits.topK=16");
    when(spec.framework.split_fed_llm.is_some(), "framework.splitFedLLM.cutLayer=1");
    let csv = matches!(spec.data.format, Format::JsonLines | Format::Parquet);
    when(csv, "data.format=CSV");
    sets
}

fn run_small(file: &Path) {
    let yaml = fs::read_to_string(file).unwrap();
    let name = file.display();
    let resources = load_all(&yaml, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
    let [resource] = &resources[..] else { panic!("{name} holds {} resources, expected one", resources.len()) };
    let run = resource.metadata.name.as_deref().unwrap();
    let bench = Bench::new();
    if resource.spec.model.task == Task::CausalLm {
        tiny::write_language_model(&bench.path("model"));
    }
    let sets = sets(&bench, resource);
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let ended = bench.run(&file.canonicalize().unwrap().display().to_string(), &sets);
    assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
    let report = bench.report("out", run);
    assert_eq!((report.phase, report.rounds.len()), (RunPhase::Succeeded, 1), "{name}");
}

#[test]
fn every_manifest_runs() {
    let files = yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests"));
    assert!(files.len() >= 7, "{files:?}");
    for file in &files {
        run_small(file);
    }
}
