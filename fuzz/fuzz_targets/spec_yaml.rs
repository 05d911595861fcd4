//! Feeds `fedtune::fuzzing::spec_yaml` and looks for a panic, a wrong access, and waste of time or memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(fedtune::fuzzing::spec_yaml(bytes)));
