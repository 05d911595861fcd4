//! Files that are cut short, changed, misplaced or of others.

use std::fs;

use super::*;

#[test]
fn a_newest_file_cut_short_at_any_length_is_passed_over_for_the_one_before() {
    let folder = folder_with(&[1, 2]);
    let store = open(folder.path());
    let path = folder.path().join("round-00002.state");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(store.newest().unwrap(), Some((1, snapshot(1))), "{length}");
        assert!(store.read(2).is_err());
    }
    assert_eq!(store.rounds(), [1]);
    fs::write(&path, &whole).unwrap();
    assert_eq!(store.newest().unwrap(), Some((2, snapshot(2))));
}

#[test]
fn a_damaged_newest_file_is_replaced_when_its_round_is_done_again() {
    let folder = folder_with(&[1, 2]);
    fs::write(folder.path().join("round-00002.state"), "").unwrap();
    let mut store = open(folder.path());
    store.write(2, &snapshot(2)).unwrap();
    assert_eq!((store.rounds(), store.newest().unwrap()), (vec![1, 2], Some((2, snapshot(2)))));
}

#[test]
fn when_all_are_damaged_the_run_does_not_begin_anew() {
    let folder = folder_with(&[1, 2]);
    let newest = folder.path().join("round-00002.state");
    fs::write(&newest, "fedtune\n").unwrap();
    fs::write(folder.path().join("round-00001.state"), "something else").unwrap();
    let store = open(folder.path());
    let before = files(folder.path());
    assert_eq!(
        store.newest().unwrap_err().to_string(),
        format!(
            "no checkpoint in {} is whole, so the run cannot go on from there; the newest: {} is no whole checkpoint: \
             it has 8 bytes, fewer than every checkpoint: it is cut short",
            folder.path().display(),
            newest.display()
        )
    );
    assert_eq!((store.rounds(), files(folder.path())), (vec![], before));
}

#[test]
fn a_file_under_the_name_of_another_is_passed_over() {
    let folder = folder_with(&[1, 2]);
    let path = |name: &str| folder.path().join(name);
    fs::copy(path("round-00002.state"), path("round-00003.state")).unwrap();
    let mut store = open(folder.path());
    assert_eq!(store.newest().unwrap(), Some((2, snapshot(2))));
    assert_eq!(
        store.read(3).unwrap_err().to_string(),
        format!("{} is in the wrong place: it is the state of round 2", path("round-00003.state").display())
    );
    store.write_broadcast(2, &snapshot(2)).unwrap();
    fs::copy(path("round-00002.broadcast"), path("round-00002.state")).unwrap();
    assert_eq!(store.newest().unwrap(), Some((1, snapshot(1))));
}

#[test]
fn names_that_are_no_checkpoints_are_let_be() {
    let folder = folder_with(&[1]);
    let others = ["round-2.state", "round-00002.state.bak", "round-+0002.state", "round-99999999999.state", "notes"];
    for name in others {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let mut store = open(folder.path());
    store.write(3, &snapshot(3)).unwrap();
    assert_eq!((store.rounds(), store.newest().unwrap()), (vec![1, 3], Some((3, snapshot(3)))));
    assert!(others.iter().all(|name| folder.path().join(name).is_file()));
}

#[test]
fn a_round_that_cannot_be_put_in_place_leaves_those_before_and_nothing_else() {
    let folder = folder_with(&[1, 2]);
    let place = folder.path().join("round-00003.state");
    fs::create_dir_all(place.join("child")).unwrap();
    let mut store = open(folder.path());
    let error = store.write(3, &snapshot(3)).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write {}: ", place.display())), "{error}");
    assert!(error.ends_with("; the checkpoints before it are untouched"), "{error}");
    assert_eq!(store.rounds(), [1, 2]);
    assert!(!owner::names(folder.path()).unwrap().iter().any(|name| name.starts_with(".fedtune-")));
}
