//! What needs a second process: the lock across processes, a death, a disk that is full or read-only.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Output, Stdio},
};

use super::*;

/// Tells a child where its folder is.
const PLACE: &str = "FEDTUNE_TEST_PLACE";

/// `command`, ending in this program with the arguments that run the test `name` of this module alone.
fn child(command: &[&str], name: &str, place: &Path) -> Command {
    let program = env::current_exe().unwrap().into_os_string();
    let name = format!("checkpoint::tests::child::{name}");
    let words = command.iter().map(Into::into).chain([program]).collect::<Vec<_>>();
    let mut child = Command::new(&words[0]);
    child.args(&words[1..]).args(["--exact", &name, "--ignored", "--nocapture", "--test-threads", "1"]);
    child.env(PLACE, place).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    child
}

/// The folder that the parent names; a child that nobody's parent started has nothing to do.
fn place() -> Option<std::path::PathBuf> {
    env::var_os(PLACE).map(Into::into)
}

fn assert_passed(output: &Output) {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Runs the test `name` in a mount namespace of its own after `mount`, a shell line. Says so where that is not permitted.
fn run_mounted(mount: &str, name: &str, place: &Path) {
    let script = format!("{mount} && exec \"$@\"");
    let wrapped = |unshare: &'static str| ["unshare", unshare, "sh", "-c", &script, "sh"].map(str::to_owned);
    let is_permitted = |command: &[String; 6]| {
        let mut probe = Command::new(&command[0]);
        probe.args(&command[1..]).arg("true").env(PLACE, place).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let Some(command) = ["-m", "-rm"].map(wrapped).into_iter().find(is_permitted) else {
        let _ = writeln!(std::io::stderr(), "skipped {name}: mounting is not permitted here");
        return;
    };
    assert_passed(&child(&command.each_ref().map(String::as_str), name, place).output().unwrap());
}

#[test]
fn a_second_process_is_refused_until_the_first_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = child(&[], "hold_the_lock", folder.path()).spawn().unwrap();
    wait_for_line(&mut holder, "rounds held");
    assert!(matches!(Store::open(folder.path(), &owner()), Err(CheckpointError::Locked { .. })));
    holder.kill().unwrap();
    holder.wait().unwrap();
    let store = open(folder.path());
    assert_eq!((store.epoch(), store.newest().unwrap()), (2, Some((1, snapshot(1)))));
}

/// Reads until a line ends in `words`; the number that stands before them.
fn wait_for_line(child: &mut Child, words: &str) -> u32 {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines().map_while(Result::ok);
    let found = lines.find_map(|line| Some(line.strip_suffix(words)?.trim().to_owned()));
    found.unwrap_or_else(|| panic!("the child ended before it said {words:?}")).parse().unwrap()
}

#[test]
#[ignore = "a child process of a_second_process_is_refused_until_the_first_is_killed"]
fn hold_the_lock() {
    let Some(place) = place() else { return };
    let mut store = open(&place);
    store.write(1, &snapshot(1)).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\n1 rounds held").unwrap();
    out.flush().unwrap();
    // Until it is killed, or its parent is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
    drop(store);
}

#[test]
fn a_process_killed_while_it_writes_loses_no_round_that_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for life in 1..=20 {
        let mut writer = child(&[], "write_without_end", folder.path()).spawn().unwrap();
        let written = wait_for_line(&mut writer, &format!("written in life {life}"));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let store = open(folder.path());
        let (newest, snapshot) = store.newest().unwrap().unwrap();
        assert!(newest >= written && snapshot == large(newest), "{newest} of {written}");
        let rounds = store.rounds();
        assert!(rounds.ends_with(&[newest - 1, newest]) || newest == 1, "{rounds:?}");
        assert!(!owner::names(folder.path()).unwrap().iter().any(|name| name.starts_with(".fedtune-")));
    }
}

#[test]
#[ignore = "a child process of a_process_killed_while_it_writes_loses_no_round_that_was_written"]
fn write_without_end() {
    let Some(place) = place() else { return };
    let mut store = open(&place);
    // Every second opening is the parent's, which looks at what is there.
    let life = store.epoch().div_ceil(2);
    let begun = store.newest().unwrap().map_or(0, |(round, _)| round);
    for round in begun + 1.. {
        store.write(round, &large(round)).unwrap();
        if writeln!(std::io::stdout(), "\n{round} written in life {life}").is_err() {
            return; // The parent is gone.
        }
    }
}

/// Takes some time to write.
fn large(round: u32) -> Snapshot {
    let tensor = WireTensor {
        shape: vec![1 << 17],
        bytes: round.to_le_bytes().repeat(1 << 17).into(),
        ..snapshot(0).tensors.remove(0)
    };
    Snapshot { fields: json!({"round": round}), tensors: vec![tensor] }
}

#[test]
fn a_full_disk_is_a_sentence_and_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    run_mounted(&format!("mount -t tmpfs -o size=64k tmpfs \"${PLACE}\""), "fill_the_disk", folder.path());
}

#[test]
#[ignore = "a child process of a_full_disk_is_a_sentence_and_leaves_what_was_there"]
fn fill_the_disk() {
    let Some(place) = place() else { return };
    let mut store = open(&place);
    store.write(1, &snapshot(1)).unwrap();
    let before = files(&place);
    let large = Snapshot { fields: json!("x".repeat(1 << 17)), tensors: Vec::new() };
    for name in ["round-00002.state", "round-00002.broadcast"] {
        let written = if name.ends_with("state") { store.write(2, &large) } else { store.write_broadcast(2, &large) };
        assert_eq!(
            written.unwrap_err().to_string(),
            format!(
                "cannot write {}: No space left on device (os error 28); the checkpoints before it are untouched",
                place.join(name).display()
            )
        );
        assert_eq!(files(&place), before);
    }
    // Once there is room, the run goes on.
    store.write(2, &snapshot(2)).unwrap();
    assert_eq!(store.rounds(), [1, 2]);
}

#[test]
fn a_read_only_folder_is_a_sentence_and_leaves_what_was_there() {
    let folder = folder_with(&[1, 2]);
    let before = files(folder.path());
    let mount = format!("mount --bind \"${PLACE}\" \"${PLACE}\" && mount -o remount,bind,ro \"${PLACE}\"");
    run_mounted(&mount, "open_read_only", folder.path());
    assert_eq!(files(folder.path()), before);
}

#[test]
#[ignore = "a child process of a_read_only_folder_is_a_sentence_and_leaves_what_was_there"]
fn open_read_only() {
    let Some(place) = place() else { return };
    let before = files(&place);
    assert_eq!(
        Store::open(&place, &owner()).unwrap_err().to_string(),
        format!(
            "cannot write {}: Read-only file system (os error 30); the checkpoints before it are untouched",
            place.join("lock").display()
        )
    );
    assert_eq!(files(&place), before);
    assert!(fs::write(place.join("other"), "").is_err());
}
