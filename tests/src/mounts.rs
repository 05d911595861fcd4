//! A mount namespace of a test's own, in which disks turn read-only and back.
//! Must not mount anything outside of it: what is mounted there is gone with the test.

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
};

use crate::program;

/// Set in a test that has a namespace of its own.
const INSIDE: &str = "FEDTUNE_TEST_MOUNTS";

/// Runs the test `name` once more, in a mount namespace of its own. True there; false outside, where nothing is left to
/// be done. Says so where it is not permitted.
pub fn enter(name: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let Some(unshare) = ["-m", "-rm"].into_iter().find(|kind| is_permitted(kind)) else {
        // Where no test's output is caught.
        let _ = writeln!(io::stderr(), "skipped {name}: mounting is not permitted here");
        return false;
    };
    // It is built outside.
    let _ = program();
    let this = env::current_exe().expect("a test has a path");
    let mut again = Command::new("unshare");
    again.arg(unshare).arg(this).args(["--exact", name, "--nocapture", "--test-threads", "1"]).env(INSIDE, "1");
    let output = again.stdin(Stdio::null()).output().expect("it was there a moment ago");
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Whether a new namespace of this kind lets a folder turn read-only.
fn is_permitted(kind: &str) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut probe = Command::new("unshare");
    probe.args([kind, "sh", "-c", READ_ONLY, "sh"]).arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// A read-only view in the place of a folder. Not the folder's own mount, which cannot turn while a file of it is open
/// for writing, as a lock is: to whoever opens a file from now on it is the same.
const READ_ONLY: &str = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"";

/// From now on nothing can be written below `folder`.
pub fn turn_read_only(folder: &Path) {
    mount(READ_ONLY, folder);
}

/// It can again.
pub fn turn_back(folder: &Path) {
    mount("umount \"$1\"", folder);
}

fn mount(script: &str, folder: &Path) {
    assert!(env::var_os(INSIDE).is_some(), "only a test in a namespace of its own may mount");
    let mut command = Command::new("sh");
    let output = command.args(["-c", script, "sh"]).arg(folder).output().expect("there is a shell");
    assert!(output.status.success(), "{script} on {}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
}
