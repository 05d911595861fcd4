//! A panic of a library that reads what others wrote, as a sentence.
//! Must not be put around our own code: a panic there is a bug, and should be seen as one.

use std::{
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::server::panic_sentence;

/// What `work` gives, or what it said when it panicked. What it was working on must not be used again.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panic_sentence(panic.as_ref()))
}

/// An error of libtorch as a sentence: it appends a backtrace of its own, with this machine's addresses.
pub(crate) fn first_line(error: &impl Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
