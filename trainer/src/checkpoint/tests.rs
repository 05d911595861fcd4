//! A folder of checkpoints through crashes, damage, strangers and full disks.

mod child;
mod damage;
mod refusals;

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use fedtune_crds::report::PayloadKind;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::wire::Element;

fn owner() -> Owner {
    let [run_hash, spec_hash, base_hash] = ["1a", "2b", "3c"].map(|byte| byte.repeat(32));
    Owner { run_hash, spec_hash, base_hash }
}

/// What a run has after `round`: different in every round.
fn snapshot(round: u32) -> Snapshot {
    let bytes = Bytes::from(round.to_le_bytes().repeat(2));
    let (name, kind) = ("score.weight".to_owned(), PayloadKind::Head);
    let tensor = WireTensor { name, kind, element: Element::F32, shape: vec![2], bytes };
    Snapshot { fields: json!({"round": round}), tensors: vec![tensor] }
}

fn open(folder: &Path) -> Store {
    Store::open(folder, &owner()).unwrap()
}

/// A folder in which a run reached `rounds`, one after the other.
fn folder_with(rounds: &[u32]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(folder.path());
    for round in rounds {
        store.write(*round, &snapshot(*round)).unwrap();
    }
    folder
}

/// Every file of `folder` with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = owner::names(folder).unwrap();
    names.into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

/// A folder and memory, for what holds of both.
fn both() -> (TempDir, [Box<dyn Keep>; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("run/checkpoint"));
    (folder, [Box::new(store), Box::new(InMemory::new())])
}

#[test]
fn a_new_place_holds_nothing() {
    let (_folder, places) = both();
    for place in places {
        assert_eq!((place.epoch(), place.newest().unwrap(), place.rounds()), (1, None, vec![]));
        assert_eq!((place.read(1).unwrap(), place.broadcast(1).unwrap()), (None, None));
    }
}

#[test]
fn the_two_last_rounds_and_every_broadcast_are_kept() {
    let (_folder, places) = both();
    for mut place in places {
        for round in [0, 1, 2, 4, 6] {
            assert!(place.write(round, &snapshot(round)).unwrap() >= 8);
            assert!(place.write_broadcast(round, &snapshot(100 + round)).unwrap() >= 8);
        }
        assert_eq!(place.rounds(), [4, 6], "{place:?}");
        assert_eq!(place.newest().unwrap(), Some((6, snapshot(6))));
        assert_eq!(place.read(4).unwrap(), Some(snapshot(4)));
        assert_eq!(place.read(2).unwrap(), None);
        for round in [0, 1, 2, 4, 6] {
            assert_eq!(place.broadcast(round).unwrap(), Some(snapshot(100 + round)));
        }
    }
}

#[test]
fn a_run_that_went_back_does_not_find_what_came_later() {
    let (_folder, places) = both();
    for mut place in places {
        for round in [4, 5, 2] {
            place.write(round, &snapshot(round)).unwrap();
        }
        assert_eq!(place.rounds(), [2], "{place:?}");
        place.write(3, &snapshot(3)).unwrap();
        assert_eq!(place.rounds(), [2, 3], "{place:?}");
    }
}

#[test]
fn a_round_written_again_is_the_later_one() {
    let (_folder, places) = both();
    for mut place in places {
        for (round, content) in [(1, 1), (2, 2), (2, 9)] {
            place.write(round, &snapshot(content)).unwrap();
            place.write_broadcast(round, &snapshot(content)).unwrap();
        }
        assert_eq!(place.newest().unwrap(), Some((2, snapshot(9))));
        assert_eq!(place.broadcast(2).unwrap(), Some(snapshot(9)));
        assert_eq!(place.rounds(), [1, 2]);
    }
}

#[test]
fn the_size_is_that_of_the_file() {
    let folder = folder_with(&[]);
    let bytes = open(folder.path()).write(12, &snapshot(12)).unwrap();
    assert_eq!(fs::metadata(folder.path().join("round-00012.state")).unwrap().len(), bytes);
}

#[test]
fn the_next_process_finds_what_was_written() {
    let folder = folder_with(&[1, 2, 3]);
    open(folder.path()).write_broadcast(3, &snapshot(30)).unwrap();
    let store = open(folder.path());
    assert_eq!(store.newest().unwrap(), Some((3, snapshot(3))));
    assert_eq!((store.rounds(), store.broadcast(3).unwrap()), (vec![2, 3], Some(snapshot(30))));
    let expected = ["lock", "owner.json", "round-00002.state", "round-00003.broadcast", "round-00003.state"];
    assert!(files(folder.path()).keys().eq(expected));
}

#[test]
fn the_epoch_grows_by_one_with_every_opening() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!([(); 3].map(|()| open(folder.path()).epoch()), [1, 2, 3]);
}

#[test]
fn what_a_cut_off_write_left_is_removed_and_the_epoch_grows_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    // The very first opening is cut off: there is no owner yet.
    for name in ["lock", ".fedtune-aB3xYz"] {
        fs::write(folder.path().join(name), "{\"form").unwrap();
    }
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    assert_eq!(open(folder.path()).epoch(), 1);
    fs::remove_dir(folder.path().join("lost+found")).unwrap();
    assert!(files(folder.path()).keys().eq(["lock", "owner.json"]));
    // A later one is.
    fs::write(folder.path().join(".fedtune-Q"), "{\"format\": 1, \"epoch\": 2").unwrap();
    assert_eq!(open(folder.path()).epoch(), 2);
    assert!(files(folder.path()).keys().eq(["lock", "owner.json"]));
}

#[test]
fn a_restart_in_memory_finds_what_was_written_and_the_dead_process_writes_no_more() {
    let mut first = InMemory::new();
    first.write(1, &snapshot(1)).unwrap();
    let second = first.restart();
    assert_eq!((first.epoch(), second.epoch(), second.newest().unwrap()), (1, 2, Some((1, snapshot(1)))));
    second.clone().write(2, &snapshot(2)).unwrap();
    assert!(matches!(first.write(3, &snapshot(3)), Err(CheckpointError::Locked { .. })));
    assert!(matches!(first.write_broadcast(3, &snapshot(3)), Err(CheckpointError::Locked { .. })));
    assert_eq!(second.rounds(), [1, 2]);
}
