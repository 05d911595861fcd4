//! Token sequences in a file: `<cache>/tokens-<key>.bin`, whole or not at all.
//! Must not trust a file: one that is cut short or changed counts as absent and is written anew.
//!
//! All numbers are u32, little-endian: how many sequences, the length of each, the tokens of all. A SHA-256 over that
//! stands before it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::durable;

/// Where the tokens of one key are kept.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
}

impl Entry {
    pub(super) fn new(folder: &Path, key: &[u8; 32]) -> Self {
        Self { path: folder.join(format!("tokens-{}.bin", fedtune_crds::hex(key))) }
    }

    /// The sequences, if the file is there, whole, and holds `count` of them.
    pub(super) fn read(&self, count: usize) -> Option<Vec<Vec<u32>>> {
        let bytes = fs::read(&self.path).ok()?;
        let (hash, content) = bytes.split_at_checked(32)?;
        if Sha256::digest(content).as_slice() != hash {
            return None;
        }
        let tokens = parse(content)?;
        (tokens.len() == count).then_some(tokens)
    }

    /// Writes beside the place and renames, so that a reader never sees half a file.
    pub(super) fn write(&self, tokens: &[Vec<u32>]) -> io::Result<()> {
        let content = format(tokens);
        durable::write_parts(&self.path, &[Sha256::digest(&content).as_slice(), &content])
    }
}

fn format(tokens: &[Vec<u32>]) -> Vec<u8> {
    let lengths = tokens.iter().map(|sequence| sequence.len() as u32);
    let numbers = std::iter::once(tokens.len() as u32).chain(lengths).chain(tokens.iter().flatten().copied());
    numbers.flat_map(u32::to_le_bytes).collect()
}

fn parse(content: &[u8]) -> Option<Vec<Vec<u32>>> {
    let (words, rest) = content.as_chunks::<4>();
    let mut numbers = words.iter().map(|word| u32::from_le_bytes(*word));
    let count = numbers.next()? as usize;
    let lengths: Vec<usize> = numbers.by_ref().take(count).map(|length| length as usize).collect();
    let fits = rest.is_empty() && lengths.len() == count && lengths.iter().sum::<usize>() == numbers.len();
    fits.then(|| lengths.iter().map(|&length| numbers.by_ref().take(length).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Vec<Vec<u32>> {
        vec![vec![1, 2, 70_000], vec![], vec![9]]
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::new(&folder.path().join("new"), &[7; 32]);
        assert_eq!(entry.read(3), None);
        entry.write(&tokens()).unwrap();
        assert_eq!(entry.read(3), Some(tokens()));
        assert_eq!(entry.read(4), None);
    }

    #[test]
    fn a_file_cut_anywhere_or_changed_anywhere_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let entry = Entry::new(folder.path(), &[7; 32]);
        entry.write(&tokens()).unwrap();
        let whole = fs::read(&entry.path).unwrap();
        for at in 0..whole.len() {
            fs::write(&entry.path, &whole[..at]).unwrap();
            assert_eq!(entry.read(3), None, "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&entry.path, changed).unwrap();
            assert_eq!(entry.read(3), None, "changed at {at}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_also_under_a_right_hash() {
        for content in [vec![], vec![1, 0, 0, 0], vec![255; 8], format(&tokens())[..20].to_vec(), vec![0; 5]] {
            assert_eq!(parse(&content), None, "{content:?}");
        }
    }
}
