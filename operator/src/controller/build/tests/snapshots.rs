//! Every child of three resources, to the letter, beside them as `*.children.yaml`. `FEDTUNE_SNAPSHOTS=write` writes
//! them anew: read what changed before it is committed.

use std::{env, fs, path::PathBuf};

use fedtune_crds::canonical::sorted;
use serde_json::Value;

use super::fixtures::{built, objects, read};

#[test]
fn a_plain_run_has_these_children() {
    matches_its_snapshot("plain", include_str!("plain.yaml"));
}

#[test]
fn a_run_with_everything_has_these_children() {
    matches_its_snapshot("everything", include_str!("everything.yaml"));
}

#[test]
fn a_run_with_the_longest_names_has_these_children() {
    matches_its_snapshot("longest", include_str!("longest.yaml"));
}

fn matches_its_snapshot(name: &str, resource: &str) {
    let text = text(&objects(&built(&read(resource, &[]))));
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/controller/build/tests/{name}.children.yaml"));
    if env::var("FEDTUNE_SNAPSHOTS").is_ok_and(|wish| wish == "write") {
        fs::write(&path, &text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(text.lines()).enumerate().find(|(_, (expected, found))| expected != found);
    assert!(
        expected == text,
        "{} is another; first {}",
        path.display(),
        differs.map_or("in its length".to_owned(), |(line, (expected, found))| format!(
            "in line {}: expected {expected:?}, built {found:?}",
            line + 1
        ))
    );
}

/// YAML with keys in order, whatever map JSON was built with.
fn text(objects: &[Value]) -> String {
    let ordered = objects.iter().map(|object| serde_json::from_str::<Value>(&sorted(object)).unwrap());
    let documents: Vec<String> = ordered.map(|object| serde_yaml::to_string(&object).unwrap()).collect();
    format!("---\n{}", documents.join("---\n"))
}
