use super::*;
use crate::load;

const YAML: &str = "
apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {name: mail}
spec:
  framework: {fedLLM: {}}
  model: {source: {path: model}}
  data: {source: {path: data}}
";

fn hash(sets: &[&str]) -> String {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    spec_hash(&load(YAML, &sets).unwrap_or_else(|error| panic!("{sets:?}: {error}")).spec)
}

#[test]
fn what_does_not_decide_the_result_does_not_change_the_hash() {
    for set in [
        "experiment=other",
        "suspend=true",
        "attempt=3",
        "image=example.com/fedtune:2",
        "activeDeadlineSeconds=60",
        "output={volume: {existingClaim: results}}",
        "cache={existingClaim: models}",
        "egress=[{cidr: 10.0.0.0/8}]",
        "retentionPolicy=Retain",
        "serviceAccountName=trainer",
        "metrics.maxClientSeries=5",
        "server.checkpoint.everyRounds=5",
        "server.template={spec: {priorityClassName: high}}",
        "clients.groups[0].template={spec: {priorityClassName: high}}",
        "clients.groups[0].state={existingClaim: kd}",
        "metadata.name=other",
    ] {
        assert_eq!(hash(&[set]), hash(&[]), "{set}");
    }
}

#[test]
fn what_decides_the_result_changes_the_hash() {
    for set in [
        "framework.fedLLM.upload=Gradients",
        "model.precision=BF16",
        "tuning.lora.rank=4",
        "data.evaluation.examples=100",
        "training.rounds=4",
        "training.localSteps=11",
        "training.localEpochs=1",
        "participation.minClients=1",
        "stop.patience=3",
        "seed=7",
        "clients.groups[0].name=other",
        "clients.groups[0].replicas=3",
        "clients.groups[0].rank=8",
        "clients.groups[0].maxExamples=3",
    ] {
        assert_ne!(hash(&[set]), hash(&[]), "{set}");
    }
}

#[test]
fn a_default_written_out_is_the_same_spec() {
    assert_eq!(hash(&["training.localSteps=10", "tuning.lora.rank=8", "data.partition={iid: {}}"]), hash(&[]));
}

#[test]
fn keys_are_sorted_and_nothing_is_spaced_or_null() {
    assert_eq!(sorted(&json!({"b": [1, {"d": "x y", "c": null}], "a": "\"é"})), r#"{"a":"\"é","b":[1,{"d":"x y"}]}"#);
}

#[test]
fn the_hash_is_the_sha_256_of_the_canonical_text() {
    let spec = load(YAML, &[]).expect("it loads").spec;
    let text = canonical_json(&spec);
    assert!(
        text.starts_with(r#"{"data":{"columns":{"label":"label","text":"text"},"evaluation":{"examples":200},"#),
        "{text}"
    );
    // `printf %s "$text" | sha256sum`; a change of it makes every finished run start anew, so it is a decision.
    assert_eq!(spec_hash(&spec), "8354a32fdc06b476af4d356648a2bbcaa9685d37a870e9bac7582ba37d41d7ce");
}
