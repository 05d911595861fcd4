use std::{collections::BTreeSet, env, fs, path::PathBuf};

use super::{TARGETS, seeds};

fn fuzz(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(path)
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(fuzz(folder)).unwrap_or_else(|error| panic!("fuzz/{folder} cannot be read: {error}"));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What fuzzing found once stays found: an input that once made a target panic is in its corpus.
#[test]
fn every_input_of_the_corpus_is_accepted_or_refused_with_a_sentence() {
    for (target, run) in TARGETS {
        for name in names_in(&format!("corpus/{target}")) {
            let input = fs::read(fuzz(&format!("corpus/{target}/{name}"))).unwrap();
            let said = run(&input);
            match name.split_once('-').map(|(kind, _)| kind) {
                Some("good") => assert_eq!(said, Ok(()), "{target}/{name}"),
                Some("bad") => assert!(said.as_ref().is_err_and(|sentence| sentence.len() > 10), "{target}/{name}"),
                Some("found") => {}
                Some(_) | None => panic!("{target}/{name} is called neither good, bad nor found"),
            }
        }
    }
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in("corpus"), targets);
    let programs = names_in("fuzz_targets").into_iter().map(|name| name.trim_end_matches(".rs").to_owned());
    assert_eq!(programs.collect::<BTreeSet<_>>(), targets);
}

/// With `FEDTUNE_FUZZ_SEEDS=write` in the environment this test writes them.
#[test]
fn the_seeds_are_as_the_program_would_write_them_today() {
    let write = env::var_os("FEDTUNE_FUZZ_SEEDS").is_some_and(|what| what == "write");
    for (target, name, bytes) in seeds::all() {
        let path = fuzz(&format!("corpus/{target}/{name}"));
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        let there = fs::read(&path).unwrap_or_default();
        // A manifest may change without the seed that was made from it.
        let same = there == bytes || (target == "spec_yaml" && !there.is_empty());
        assert!(same, "fuzz/corpus/{target}/{name} is out of date; run this test with FEDTUNE_FUZZ_SEEDS=write");
    }
}
