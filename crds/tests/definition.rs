//! The generated definition: that the file beside the types is current, small enough and complete.
//! Must not test rules: `rules.rs` does.

use std::{collections::BTreeSet, fs, path::Path};

use fedtune_crds::{crd, load};
use serde_json::Value;

/// Calls `visit` with every schema below `schema` and its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
        walk(inner, &format!("{path}.{field}"), visit);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{path}[]"), visit);
        }
    }
}

#[test]
fn the_file_beside_the_types_is_what_they_generate() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("federatedfinetunes.fedtune.io.yaml");
    let written = fs::read_to_string(&file).expect("the generated file is there");
    assert!(written == crd::yaml(), "run `make generate`");
}

#[test]
fn the_definition_fits_into_kubectl_apply() {
    // kubectl keeps what it applied in an annotation, and all annotations together hold 256 KiB.
    let json = serde_json::to_string(&crd::definition()).expect("plain data");
    assert!(json.len() < 256 * 1024, "{} bytes", json.len());
    assert!(crd::yaml().len() < 256 * 1024, "{} bytes", crd::yaml().len());
}

#[test]
fn every_field_is_explained() {
    let mut silent = Vec::new();
    for part in ["spec", "status"] {
        walk(&crd::schema()["properties"][part], part, &mut |path, schema| {
            if !path.ends_with("[]") && schema["description"].as_str().is_none_or(|text| text.len() < 8) {
                silent.push(path.to_owned());
            }
        });
    }
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn every_list_text_and_map_has_a_bound() {
    let mut unbounded = Vec::new();
    walk(&crd::schema(), "", &mut |path, schema| {
        let bound = match schema["type"].as_str() {
            Some("array") => "maxItems",
            Some("string") if schema["enum"].is_array() => "enum",
            Some("string") => "maxLength",
            Some("object") if schema["additionalProperties"].is_object() => "maxProperties",
            Some("object") if schema["x-kubernetes-preserve-unknown-fields"] == true => "maxProperties",
            None if schema["x-kubernetes-int-or-string"] == true => "maxLength",
            Some(_) | None => "type",
        };
        if schema[bound].is_null() && path != ".metadata" {
            unbounded.push(format!("{path} has no {bound}"));
        }
    });
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn every_rule_has_a_sentence_and_no_field_knows_of_rust() {
    walk(&crd::schema(), "", &mut |path, schema| {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            assert!(rule["message"].as_str().is_some_and(|message| !message.contains('\n')), "{path}: {rule}");
        }
        assert!(schema["nullable"].is_null() && schema["anyOf"].is_null() && schema["oneOf"].is_null(), "{path}");
        assert!(schema["format"].as_str().is_none_or(|format| !format.starts_with("uint")), "{path}");
    });
}

#[test]
fn names_are_as_users_type_them() {
    let spec = crd::definition().spec;
    assert_eq!((spec.group.as_str(), spec.names.kind.as_str()), ("fedtune.io", "FederatedFineTune"));
    assert_eq!(spec.names.short_names, Some(vec!["fft".to_owned()]));
    assert_eq!(spec.names.categories, Some(vec!["all".to_owned()]));
    let version = &spec.versions[0];
    assert_eq!(version.name, "v1alpha1");
    let subresources = version.subresources.as_ref().expect("there are some");
    assert!(subresources.status.is_some() && subresources.scale.is_none());
}

/// Paths of the fields that `value` sets.
fn set_fields(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    into.insert(path.to_owned());
    for (field, inner) in value.as_object().into_iter().flatten() {
        set_fields(inner, &format!("{path}.{field}"), into);
    }
    for inner in value.as_array().into_iter().flatten() {
        set_fields(inner, &format!("{path}[]"), into);
    }
}

/// Alternatives that `full.yaml` cannot set together with the ones it sets, and parts it shows elsewhere.
const ALTERNATIVES: [&str; 11] = [
    ".data.columns.messages",
    ".framework.kdFedLLM",
    ".framework.splitFedLLM",
    ".framework.central",
    ".framework.localOnly",
    ".training.localEpochs",
    ".checkpoint.volumeClaim",
    ".cache.existingClaim",
    ".groups[].cutLayer",
    ".groups[].data.labelMap",
    ".schedule.",
];

#[test]
fn an_object_with_every_field_reads_and_writes_itself() {
    let yaml = include_str!("full.yaml");
    let resource = load(yaml, &[]).expect("it loads");
    let written: Value = serde_json::to_value(&resource).expect("plain data");
    let mut object: Value = serde_yaml::from_str(yaml).expect("YAML");
    // The one group that leaves something to its defaults.
    object["spec"]["clients"]["groups"][1]["replicas"] = 2.into();
    assert_eq!(written["spec"], object["spec"]);

    let mut set = BTreeSet::new();
    set_fields(&written["spec"], "spec", &mut set);
    let mut absent = Vec::new();
    walk(&crd::schema()["properties"]["spec"], "spec", &mut |path, _| {
        let is_union = ["ource.", "ptimizer.", "artition.", "dapter."].iter().any(|union| path.contains(union));
        let is_alternative = ALTERNATIVES.iter().any(|alternative| path.contains(alternative));
        // Several parts have columns; those of `spec.data` show all of them.
        let is_repeated = path.contains(".columns.") && !path.starts_with("spec.data.columns.");
        if !(set.contains(path)
            || is_repeated
            || is_union
            || is_alternative
            || path.contains(".s3.")
            || path.ends_with("[]"))
        {
            absent.push(path.to_owned());
        }
    });
    assert_eq!(absent, Vec::<String>::new(), "full.yaml sets every field");
}
