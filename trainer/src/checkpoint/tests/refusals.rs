//! Folders that are not this run's: a sentence, and nothing in them is changed.

use std::fs;

use sha2::{Digest, Sha256};

use super::*;

/// What opening `folder` for `owner` says; nothing in it may change.
fn refusal(folder: &Path, owner: &Owner) -> String {
    let before = files(folder);
    let error = Store::open(folder, owner).unwrap_err();
    assert_eq!(files(folder), before);
    error.to_string().replace(&folder.display().to_string(), "FOLDER")
}

#[test]
fn another_spec_base_model_or_tokenizer_is_refused() {
    let folder = folder_with(&[1, 2]);
    let other = || "0f".repeat(32);
    let cases = [
        (
            Owner { spec_hash: other(), run_hash: other(), ..owner() },
            "FOLDER holds checkpoints of another spec; choose another folder, or run that spec",
        ),
        (
            Owner { base_hash: other(), run_hash: other(), ..owner() },
            "FOLDER holds checkpoints of another base model; choose another folder, or use that model",
        ),
        (
            Owner { run_hash: other(), ..owner() },
            "FOLDER holds checkpoints of a run with another tokenizer; choose another folder, or use that tokenizer",
        ),
    ];
    for (owner, expected) in cases {
        assert_eq!(refusal(folder.path(), &owner), expected);
    }
    assert_eq!(open(folder.path()).newest().unwrap(), Some((2, snapshot(2))));
}

#[test]
fn a_folder_of_a_newer_version_is_refused_whatever_its_shape() {
    let folder = folder_with(&[1]);
    fs::write(folder.path().join("owner.json"), r#"{"format": 2, "owners": []}"#).unwrap();
    assert_eq!(
        refusal(folder.path(), &owner()),
        "FOLDER holds checkpoints in format 2, this program knows up to format 1; go on with a newer fedtune"
    );
}

#[test]
fn a_folder_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("photo.jpg"), "not for us").unwrap();
    assert_eq!(
        refusal(folder.path(), &owner()),
        "FOLDER is there already and is no folder of checkpoints; choose another"
    );
    fs::write(folder.path().join("owner.json"), "{}").unwrap();
    assert_eq!(
        refusal(folder.path(), &owner()),
        "FOLDER/owner.json does not say whose checkpoints these are: missing field `format` at line 1 column 2; choose another folder"
    );
}

#[test]
fn a_file_in_the_place_of_the_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file, &owner()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write {}: ", file.display())), "{error}");
}

#[test]
fn a_whole_file_of_another_run_or_a_newer_version_is_not_passed_over() {
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Owner { run_hash: "0f".repeat(32), ..owner() };
    Store::open(elsewhere.path(), &other).unwrap().write(3, &snapshot(3)).unwrap();
    let of_another_run = fs::read(elsewhere.path().join("round-00003.state")).unwrap();
    let sealed = [&9u64.to_le_bytes()[..], b"whatever it holds"].concat();
    let newer = [&b"fedtune\n"[..], Sha256::digest(&sealed).as_slice(), &sealed].concat();
    let cases = [
        (of_another_run, "is a checkpoint of another run; move it out of this folder"),
        (
            newer,
            "is no whole checkpoint: it is in format 9, this program reads up to format 1; go on with a newer fedtune",
        ),
    ];
    for (bytes, expected) in cases {
        let folder = folder_with(&[1, 2]);
        let path = folder.path().join("round-00003.state");
        fs::write(&path, bytes).unwrap();
        let store = open(folder.path());
        let before = files(folder.path());
        assert_eq!(store.newest().unwrap_err().to_string(), format!("{} {expected}", path.display()));
        assert_eq!((store.rounds(), files(folder.path())), (vec![1, 2], before));
    }
}

#[test]
fn a_second_store_on_one_folder_is_refused() {
    let folder = folder_with(&[1]);
    let first = open(folder.path());
    assert_eq!(
        refusal(folder.path(), &owner()),
        "FOLDER is in use by another process, and only one may write checkpoints there; stop the other or choose another folder"
    );
    assert_eq!(first.epoch(), 2);
    drop(first);
    assert_eq!(open(folder.path()).epoch(), 3);
}
