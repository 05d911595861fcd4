//! The program as a user runs it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn operator(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fedtune-operator")).args(arguments).output().expect("the program starts")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds the crate")
}

#[test]
fn crd_prints_the_file_beside_the_types() {
    let output = operator(&["crd"]);
    assert!(output.status.success());
    let file = fs::read(root().join("crds/federatedfinetunes.fedtune.io.yaml")).expect("the generated file is there");
    assert!(output.stdout == file, "the printed definition is not the committed one");
}

#[test]
fn validate_is_silent_about_what_is_right() {
    let file = root().join("manifests/fedllm.yaml");
    let output = operator(&["validate", &file.to_string_lossy()]);
    assert_eq!((output.status.code(), output.stdout.len(), output.stderr.len()), (Some(0), 0, 0));
}

#[test]
fn validate_names_file_field_and_remedy_and_exits_78() {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let file = Path::new(folder).join("rank.yaml");
    let good = fs::read_to_string(root().join("manifests/kd.yaml")).expect("the manifest is there");
    fs::write(&file, good.replace("rank: 8", "rank: 0").replace("rounds:", "round:")).expect("a writable folder");
    let output = operator(&["validate", &file.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(78));
    let path = file.display();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        format!(
            "{path}: spec.training.round is not a field; did you mean rounds?\n\
             {path}: spec.tuning.lora.rank is 0; a LoRA rank is a whole number from 1 to 1024\n"
        )
    );
}

#[test]
fn validate_says_which_file_is_not_there() {
    let output = operator(&["validate", "no-such-file.yaml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("no-such-file.yaml: it cannot be read: "));
}
