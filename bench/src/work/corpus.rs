//! Made-up examples: random tokens, all of one length or of lengths as real texts have them.
//! Must not be random: the same arguments give the same examples each time.

use std::{fmt::Write as _, fs, io, path::Path};

use fedtune::{
    data::{Answer, Example},
    random::{Key, Site, Stream},
};

/// Classes of Banking77, which all sides tell apart.
pub(super) const LABELS: usize = 77;

/// How many of the training questions of Banking77 have 4, 5, 6 ... tokens under MiniLM's tokenizer, with its two special
/// tokens; of the last count, all that are longer.
pub(super) const BANKING77: [u32; 77] = include!("banking77.in");

/// Tokens of the first entry of [`BANKING77`].
const SHORTEST: usize = 4;

/// Words that are one token each in MiniLM's vocabulary.
const WORDS: [&str; 32] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
];

/// `count` examples of random tokens below `vocab`, each as long as `length` says. One without labels is to be said.
pub(super) fn examples(
    count: usize,
    vocab: usize,
    labels: Option<usize>,
    mut length: impl FnMut(&mut Stream) -> usize,
) -> Vec<Example> {
    let mut stream = Key::default().stream(Site::Partition);
    let mut example = || {
        let tokens: Vec<u32> = (0..length(&mut stream)).map(|_| 5 + stream.below(vocab - 5) as u32).collect();
        let answer = Answer { said: vec![true; tokens.len()], ..Answer::default() };
        match labels {
            Some(labels) => Example { tokens, label: Some(stream.below(labels) as u32), answer: None },
            None => Example { tokens, label: None, answer: Some(answer) },
        }
    };
    (0..count).map(|_| example()).collect()
}

/// A length drawn as Banking77 has them, at most `most`.
pub(super) fn banking77(stream: &mut Stream, most: usize) -> usize {
    let all: u32 = BANKING77.iter().sum();
    let mut left = stream.below(all as usize) as u32;
    let place = BANKING77.iter().position(|&count| {
        let here = left < count;
        left = left.saturating_sub(count);
        here
    });
    (SHORTEST + place.unwrap_or(0)).min(most)
}

/// Writes `rows` texts of `tokens` tokens with labels, special tokens counted, for a whole run.
pub(super) fn write_texts(path: &Path, rows: usize, tokens: usize) -> io::Result<()> {
    let mut stream = Key::default().stream(Site::Partition);
    let mut text = String::from("text,label\n");
    for row in 0..rows {
        let words: Vec<&str> = (2..tokens).map(|_| WORDS[stream.below(WORDS.len())]).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{},label-{:02}", words.join(" "), row % LABELS);
    }
    fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_short_questions() {
        let mut stream = Key::default().stream(Site::Partition);
        let mut lengths: Vec<usize> = (0..2001).map(|_| banking77(&mut stream, 64)).collect();
        lengths.sort_unstable();
        assert_eq!(lengths[1000], 13);
        assert!(lengths[0] >= SHORTEST && lengths[2000] <= 64);
    }

    #[test]
    fn examples_without_labels_are_to_be_said() {
        let examples = examples(2, 100, None, |_| 7);
        assert_eq!(examples[0].next_tokens().count(), 6);
    }
}
