//! One reconcile as a table of contents: `observe` reads, `validate` and `build` are pure, `apply` writes, `status` says.
//! Must not hold what a step does: that is the step's own file.

pub mod build;
