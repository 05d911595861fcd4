//! Feeds `fedtune::fuzzing::tokenizer` and looks for a wrong access, and waste of time or memory.
#![no_main]

// The library's panics are caught where a run uses it; the fuzzer would abort before they are.
libfuzzer_sys::fuzz_target!(
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| drop(fedtune::fuzzing::tokenizer(bytes))
);
