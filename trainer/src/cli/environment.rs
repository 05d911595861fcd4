//! What must be in the environment before libtorch starts; set by starting this program once more.
//! Must not change what a user has set.

use std::{env, io, os::unix::process::CommandExt, process::Command};

/// What libgomp and the allocator read when they load.
const WANTED: [(&str, &str); 2] = [
    // Idle OpenMP threads sleep rather than spin: two processes that spin halve each other's speed.
    ("OMP_WAIT_POLICY", "PASSIVE"),
    // Model threads take turns with the same large tensors; with an arena each, all of them keep their largest.
    ("MALLOC_ARENA_MAX", "1"),
];

/// Says that the environment is settled, so that a program which cannot settle it does not start itself for ever.
const SETTLED: &str = "FEDTUNE_ENVIRONMENT_SETTLED";

/// Starts this program anew with what is wanted and not set, unless that is done already.
pub fn settle() -> io::Result<()> {
    let missing: Vec<_> = WANTED.into_iter().filter(|(name, _)| env::var_os(name).is_none()).collect();
    if missing.is_empty() || env::var_os(SETTLED).is_some() {
        return Ok(());
    }
    let program = env::current_exe()?;
    Err(Command::new(program).args(env::args_os().skip(1)).envs(missing).env(SETTLED, "1").exec())
}

/// The user's cache folder for tokenised data and what is downloaded, where there is one.
pub fn default_cache() -> Option<std::path::PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let home = || env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cache"));
    base.or_else(home).map(|base| base.join("fedtune"))
}
