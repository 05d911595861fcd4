//! Every rule of the resource: the smallest spec that breaks it, and the sentence that its writer reads.
//! Must not test a rule's wording alone: each row loads a whole resource, and only its one rule may speak.

use std::collections::BTreeSet;

use fedtune_crds::{crd, load};
use kube::core::cel::Validator;
use serde_json::{Value, json};

#[path = "rules/table.rs"]
mod table;

use table::{BROKEN, KEPT, SMALLEST};

fn overrides(sets: &[&str]) -> Vec<String> {
    sets.iter().map(|set| (*set).to_owned()).collect()
}

#[test]
fn a_broken_rule_gives_its_own_sentence_and_no_other() {
    for (sets, sentence) in BROKEN {
        let error = load(SMALLEST, &overrides(sets)).expect_err(&format!("{sets:?} breaks a rule"));
        assert_eq!(error.sentences(), [*sentence], "{sets:?}");
    }
}

#[test]
fn what_keeps_the_rules_loads() {
    for sets in KEPT {
        if let Err(error) = load(SMALLEST, &overrides(sets)) {
            panic!("{sets:?}: {error}");
        }
    }
}

/// Rules that compare with the object before are tested below.
fn compares_with_before(rule: &Value) -> bool {
    rule["rule"].as_str().is_some_and(|rule| rule.contains("oldSelf"))
}

fn messages(schema: &Value, into: &mut BTreeSet<String>) {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    for rule in rules.filter(|rule| !compares_with_before(rule)) {
        into.insert(rule["message"].as_str().expect("every rule has a sentence").to_owned());
    }
    let fields = schema["properties"].as_object().into_iter().flat_map(|fields| fields.values());
    let inner = ["items", "additionalProperties"].map(|key| &schema[key]);
    for schema in fields.chain(inner).filter(|schema| schema.is_object()) {
        messages(schema, into);
    }
}

#[test]
fn every_rule_of_the_resource_is_in_the_table() {
    let mut missing = BTreeSet::new();
    messages(&crd::schema(), &mut missing);
    assert!(missing.len() > 70, "found {} rules", missing.len());
    missing.retain(|message| !BROKEN.iter().any(|(_, sentence)| sentence.ends_with(message.as_str())));
    assert_eq!(missing, BTreeSet::new());
}

/// A stored object in `phase`, all spec fields present.
fn stored(phase: &str) -> Value {
    let full = include_str!("full.yaml");
    let mut object = serde_json::to_value(load(full, &[]).expect("full.yaml loads")).expect("plain data");
    object["status"] = json!({"phase": phase});
    object
}

/// The sentences with which `after` is refused as an update of `before`.
fn refusals(before: &Value, after: &Value) -> Vec<String> {
    match Validator::new().validate(&crd::schema(), after, Some(before)) {
        Ok(()) => Vec::new(),
        // The evaluator keeps the dot that begins a path relative to the root; the API server does not.
        Err(errors) => errors.iter().map(|error| error.to_string().trim_start_matches('.').to_owned()).collect(),
    }
}

#[test]
fn a_started_run_keeps_every_field_but_the_free_ones() {
    let before = stored("Running");
    let fields: Vec<String> = before["spec"].as_object().expect("an object").keys().cloned().collect();
    let schema = crd::schema();
    let declared = schema["properties"]["spec"]["properties"].as_object().expect("an object");
    assert_eq!(fields.len(), declared.len(), "full.yaml has every field of the spec");
    for field in fields {
        let mut after = before.clone();
        after["spec"].as_object_mut().expect("an object").remove(&field);
        let refused =
            format!("spec.{field}: {field} is fixed once the run has started; give a new resource the new value");
        let frozen = refusals(&before, &after).contains(&refused);
        assert_eq!(frozen, !crd::FREE_AFTER_START.contains(&field.as_str()), "{field}");
    }
}

#[test]
fn a_pending_run_may_change_and_a_suspended_one_only_go_on() {
    let change = |phase: &str, field: &str, value: Value| {
        let before = stored(phase);
        let mut after = before.clone();
        after["spec"][field] = value;
        refusals(&before, &after)
    };
    assert_eq!(change("Pending", "seed", json!(8)), Vec::<String>::new());
    assert_eq!(change("Suspended", "suspend", json!(false)), Vec::<String>::new());
    assert_eq!(
        change("Suspended", "seed", json!(8)),
        ["spec.seed: seed is fixed once the run has started; give a new resource the new value"]
    );
    assert_eq!(change("Failed", "attempt", json!(3)), Vec::<String>::new());
    assert_eq!(change("Failed", "attempt", json!(1)), ["spec.attempt: an attempt can only be raised"]);
}
