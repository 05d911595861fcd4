//! The manifests that a user applies: each loads, and those of an experiment are the same but for the framework.
//! Must not run them.

use std::{collections::BTreeMap, fs, path::Path};

use fedtune_crds::{FederatedFineTuneSpec, canonical_json, load};
use serde_json::Value;

fn manifests() -> BTreeMap<String, FederatedFineTuneSpec> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
    let files = fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("a readable entry").path());
    files
        .map(|file| {
            let yaml = fs::read_to_string(&file).expect("a readable file");
            let resource = load(&yaml, &[]).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            (file.file_stem().expect("a name").to_string_lossy().into_owned(), resource.spec)
        })
        .collect()
}

#[test]
fn every_manifest_loads_and_each_framework_has_one() {
    let frameworks: BTreeMap<String, &str> = manifests()
        .into_iter()
        .map(|(file, spec)| (file, spec.framework.name().expect("exactly one is set").as_str()))
        .collect();
    let expected = [
        ("central", "central"),
        ("fedllm", "FedLLM"),
        ("fedllm-flora", "FedLLM"),
        ("fedllm-gradients", "FedLLM"),
        ("kd", "KD-FedLLM"),
        ("lm-central", "central"),
        ("lm-fedllm", "FedLLM"),
        ("lm-kd", "KD-FedLLM"),
        ("lm-local-only", "localOnly"),
        ("lm-split-v1", "Split-FedLLM"),
        ("local-only", "localOnly"),
        ("split-u", "Split-FedLLM"),
        ("split-v1", "Split-FedLLM"),
        ("split-v2", "Split-FedLLM"),
    ];
    assert_eq!(frameworks, expected.into_iter().map(|(file, name)| (file.to_owned(), name)).collect());
}

#[test]
fn the_manifests_of_an_experiment_differ_in_nothing_but_the_framework() {
    let rest = |spec: &FederatedFineTuneSpec| {
        let mut json: Value = serde_json::from_str(&canonical_json(spec)).expect("canonical JSON is JSON");
        json.as_object_mut().expect("an object").remove("framework");
        (json, spec.experiment.clone())
    };
    let manifests = manifests();
    for (file, spec) in &manifests {
        let first = if file.starts_with("lm-") { "lm-fedllm" } else { "fedllm" };
        assert_eq!(rest(spec), rest(&manifests[first]), "{file}");
    }
}
