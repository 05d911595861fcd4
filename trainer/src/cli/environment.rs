//! What must be in the environment before libtorch starts; set by starting this program once more.
//! Must not change what a user has set.

use std::{env, io, os::unix::process::CommandExt, process::Command};

/// Idle OpenMP threads sleep rather than spin: two processes that spin halve each other's speed.
const WAIT_POLICY: (&str, &str) = ("OMP_WAIT_POLICY", "PASSIVE");

/// Says that the environment is settled, so that a program which cannot settle it does not start itself for ever.
const SETTLED: &str = "FEDTUNE_ENVIRONMENT_SETTLED";

/// Starts this program anew with the environment that libgomp reads when it loads, unless that is done or not needed.
pub fn settle() -> io::Result<()> {
    if env::var_os(WAIT_POLICY.0).is_some() || env::var_os(SETTLED).is_some() {
        return Ok(());
    }
    let program = env::current_exe()?;
    Err(Command::new(program).args(env::args_os().skip(1)).env(WAIT_POLICY.0, WAIT_POLICY.1).env(SETTLED, "1").exec())
}

/// The user's cache folder for tokenised data, where there is one.
pub fn default_cache() -> Option<std::path::PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let home = || env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cache"));
    base.or_else(home).map(|base| base.join("fedtune"))
}
