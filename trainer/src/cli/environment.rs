//! What the environment says of places. What it must hold before libtorch starts is in `environment.c`.
//! Must not change it.

use std::env;

/// The user's cache folder for tokenised data and what is downloaded, where there is one.
pub fn default_cache() -> Option<std::path::PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let home = || env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cache"));
    base.or_else(home).map(|base| base.join("fedtune"))
}
