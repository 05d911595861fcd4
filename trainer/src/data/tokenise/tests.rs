use super::*;
use crate::data::testing::{notes, recorded, tokenizer};

fn tokens(texts: &[&str], max_length: usize) -> Vec<Vec<u32>> {
    tokenise(texts, Texts::Whole(max_length), &tokenizer(true), "hash", None, &Events::silent()).unwrap()
}

#[test]
fn special_tokens_stand_around_the_text_and_nothing_is_padded() {
    assert_eq!(tokens(&["w0 w1", ""], 16), [vec![1, 10, 11, 2], vec![1, 2]]);
}

#[test]
fn a_long_text_is_truncated_to_the_plan_s_length_and_keeps_its_special_tokens() {
    // Ten words: the tokenizer's own limit of 8 does not hold, the plan's of 6 and 12 do.
    let text = "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9";
    assert_eq!(tokens(&[text], 6), [[1, 10, 11, 12, 13, 2]]);
    assert_eq!(tokens(&[text], 12)[0].len(), 12);
}

#[test]
fn a_length_that_special_tokens_fill_is_refused() {
    let error =
        tokenise(&["w0"], Texts::Whole(2), &tokenizer(true), "hash", None, &Events::silent()).unwrap_err().to_string();
    assert_eq!(error, "maxSequenceLength is 2, but this tokenizer adds 2 special tokens to every text; give more");
}

/// Tokens through the cache, and whether they had to be made.
fn cached(folder: &Path, texts: &[&str], max_length: usize, tokenizer_hash: &str) -> (Vec<Vec<u32>>, bool) {
    let (events, told) = recorded();
    let tokens =
        tokenise(texts, Texts::Whole(max_length), &tokenizer(true), tokenizer_hash, Some(folder), &events).unwrap();
    (tokens, !told.lock().unwrap().is_empty())
}

#[test]
fn a_second_run_reads_the_cache_and_any_difference_makes_it_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (first, made) = cached(folder.path(), &["w0", "w1 w2"], 16, "hash");
    assert!(made);
    assert_eq!(cached(folder.path(), &["w0", "w1 w2"], 16, "hash"), (first, false));
    assert!(cached(folder.path(), &["w0", "w1 w2"], 8, "hash").1);
    assert!(cached(folder.path(), &["w0", "w1 w2"], 16, "other").1);
    assert!(cached(folder.path(), &["w0 w1", "w2"], 16, "hash").1);
}

#[test]
fn a_corrupt_cache_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (first, _) = cached(folder.path(), &["w0", "w1 w2"], 16, "hash");
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, "not tokens").unwrap();
    assert_eq!(cached(folder.path(), &["w0", "w1 w2"], 16, "hash"), (first.clone(), true));
    assert_eq!(cached(folder.path(), &["w0", "w1 w2"], 16, "hash"), (first, false));
}

#[test]
fn a_cache_that_cannot_be_written_is_a_note_and_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = crate::data::testing::write(folder.path(), "file", "in the way of a folder");
    let (events, told) = recorded();
    assert!(tokenise(&["w0"], Texts::Whole(16), &tokenizer(true), "hash", Some(&file), &events).is_ok());
    assert!(notes(&told)[0].starts_with("the tokenised texts were not cached"), "{:?}", notes(&told));
}

#[test]
fn progress_says_how_many_texts_there_are() {
    let texts: Vec<String> = (0..1500).map(|number| format!("w{number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (events, told) = recorded();
    tokenise(&texts, Texts::Whole(16), &tokenizer(true), "hash", None, &events).unwrap();
    let told = told.lock().unwrap();
    assert_eq!(told[0], Event::StageStarted { stage: "Tokenising 1,500 texts".into(), of: 1500 });
    assert_eq!(told[1], Event::StageAdvanced { at: 64 });
    assert_eq!(told.last(), Some(&Event::StageFinished));
}
