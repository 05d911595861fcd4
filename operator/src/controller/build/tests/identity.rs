//! The spec's text and its hashes: what changes them, and what must not.

use serde_json::Value;

use super::fixtures::{built, plain, settings};
use crate::controller::build::{BuildError, Run, Settings, children, config_map::RUN_JSON, run_hash};

fn config_map_name(run: &Run, settings: &Settings) -> String {
    children(run, settings).unwrap().config_map.metadata.name.unwrap()
}

#[test]
fn what_may_change_while_a_run_goes_on_changes_neither_hash() {
    let run = plain(&["output={volume: {existingClaim: results}}"]);
    for set in ["suspend=true", "attempt=3", "ttlSecondsAfterFinished=5"] {
        let changed = plain(&["output={volume: {existingClaim: results}}", set]);
        assert_eq!(config_map_name(&changed, &settings()), config_map_name(&run, &settings()), "{set}");
        assert_eq!(run_hash(&changed), run_hash(&run), "{set}");
    }
}

#[test]
fn another_image_is_another_text_and_the_same_run() {
    let changed = plain(&["image=registry.example.com/fedtune:2"]);
    assert_ne!(config_map_name(&changed, &settings()), config_map_name(&plain(&[]), &settings()));
    assert_eq!(run_hash(&changed), run_hash(&plain(&[])));
}

#[test]
fn the_operators_image_is_frozen_in_the_text() {
    let newer = Settings::new("registry.example.com/fedtune:newer", "fedtune-system");
    assert_ne!(config_map_name(&plain(&[]), &newer), config_map_name(&plain(&[]), &settings()));
    // Whoever rebuilds the text later takes the image from the Job that is there.
    let frozen = Settings { trainer_image: built(&plain(&[])).server.image().to_owned(), ..newer };
    assert_eq!(config_map_name(&plain(&[]), &frozen), config_map_name(&plain(&[]), &settings()));
}

#[test]
fn the_trainer_reads_the_text_as_the_resource_that_it_is() {
    let run = plain(&["suspend=true", "attempt=4"]);
    let text = &built(&run).config_map.data.unwrap()[RUN_JSON];
    let read = fedtune_crds::load(text, &[]).unwrap();
    assert_eq!(read.metadata.uid, run.metadata.uid);
    assert_eq!((read.spec.suspend, read.spec.attempt), (false, 0));
    assert_eq!(read.spec.image.as_deref(), Some("registry.example.com/fedtune:default"));
    assert_eq!(run_hash(&read), run_hash(&run));
    let text: Value = serde_json::from_str(text).unwrap();
    assert_eq!(text["spec"]["training"]["batchSize"], Value::from(run.spec.training.batch_size), "defaults are in it");
}

#[test]
fn what_was_never_stored_is_refused() {
    let mut run = plain(&[]);
    run.metadata.uid = None;
    let error = children(&run, &settings()).unwrap_err();
    assert_eq!(error, BuildError::NotStored { run: "mail".to_owned(), field: "metadata.uid" });
    assert_eq!(error.to_string(), "mail has no metadata.uid; only what the API server has stored can be run");
}
