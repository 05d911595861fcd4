//! Feeds `fedtune::fuzzing::checkpoint` and looks for a panic, a wrong access, and waste of time or memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(fedtune::fuzzing::checkpoint(bytes)));
