//! Where a piece of work finds models and may write: told by the environment, as for the peers.
//! Must not create anything.

use std::path::PathBuf;

/// Folder of models.
pub(super) fn models() -> PathBuf {
    of("FEDTUNE_BENCH_MODELS", ".cache/models")
}

/// What may be written to.
pub(super) fn scratch() -> PathBuf {
    of("FEDTUNE_BENCH_SCRATCH", ".cache/bench")
}

/// The trainer's program.
pub(super) fn program() -> PathBuf {
    of("FEDTUNE_BENCH_PROGRAM", "target/release/fedtune")
}

fn of(name: &str, otherwise: &str) -> PathBuf {
    std::env::var_os(name).map_or_else(|| PathBuf::from(otherwise), PathBuf::from)
}
