//! Batches of like length: real texts are short and unlike, so most of a random batch would be padding.
//! Must not look inside an example: its length and its place are all that counts.

use crate::random::{Key, Site, Stream};

/// Batches whose examples are sorted by length together. Larger pools pad less; smaller ones are more random.
const POOL: usize = 50;

/// How much a client trains in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalWork {
    /// So many batches, over as many epochs as that takes.
    Steps(usize),
    /// So many times each example.
    Epochs(usize),
}

/// Batches of a client in one round, as indices into `lengths` (token counts of its examples).
///
/// Each epoch holds each example once, in the order of `key.stream(site)`, and ends with a smaller batch where the
/// examples do not divide. No batch spans two epochs, so none holds an example twice. There is no batch where there
/// is no example or `batch_size` is zero.
pub fn local_batches(lengths: &[usize], batch_size: usize, work: LocalWork, key: Key, site: Site) -> Vec<Vec<usize>> {
    if lengths.is_empty() || batch_size == 0 {
        return Vec::new();
    }
    let mut stream = key.stream(site);
    let epochs = std::iter::repeat_with(move || epoch(lengths, batch_size, &mut stream));
    match work {
        LocalWork::Steps(steps) => epochs.flatten().take(steps).collect(),
        LocalWork::Epochs(count) => epochs.take(count).flatten().collect(),
    }
}

fn epoch(lengths: &[usize], batch_size: usize, stream: &mut Stream) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    stream.shuffle(&mut order);
    for pool in order.chunks_mut(POOL.saturating_mul(batch_size)) {
        pool.sort_by_key(|&example| lengths[example]);
    }
    let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[usize]>::to_vec).collect();
    stream.shuffle(&mut batches);
    batches
}

/// Batches that hold each example once, by length and then by place: the same for everyone.
pub fn evaluation_batches(lengths: &[usize], batch_size: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&example| lengths[example]);
    order.chunks(batch_size.max(1)).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { seed: 42, client: 1, round: 3, step: 0 };

    fn batches(lengths: &[usize], batch_size: usize, work: LocalWork) -> Vec<Vec<usize>> {
        local_batches(lengths, batch_size, work, KEY, Site::Batches)
    }

    /// Lengths as mail has them: most are short, a few fill the window.
    fn skewed_lengths(count: usize) -> Vec<usize> {
        let mut stream = Key::default().stream(Site::Partition);
        (0..count).map(|_| 4 + (252.0 * stream.unit().powi(6)) as usize).collect()
    }

    fn padding(lengths: &[usize], batches: &[Vec<usize>]) -> usize {
        let of_batch = |batch: &Vec<usize>| {
            let longest = batch.iter().map(|&example| lengths[example]).max().unwrap();
            batch.iter().map(|&example| longest - lengths[example]).sum::<usize>()
        };
        batches.iter().map(of_batch).sum()
    }

    #[test]
    fn an_epoch_holds_each_example_once_and_keeps_the_last_partial_batch() {
        let lengths = skewed_lengths(1003);
        let batches = batches(&lengths, 8, LocalWork::Epochs(1));
        assert_eq!(batches.len(), 126);
        assert_eq!(batches.iter().filter(|batch| batch.len() == 3).count(), 1);
        let mut seen = batches.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..1003).collect::<Vec<_>>());
    }

    #[test]
    fn steps_are_the_first_batches_of_consecutive_epochs() {
        let lengths = skewed_lengths(20);
        let epochs = batches(&lengths, 8, LocalWork::Epochs(3));
        assert_eq!(epochs.len(), 9);
        assert_eq!(batches(&lengths, 8, LocalWork::Steps(7)), epochs[..7]);
        assert_ne!(epochs[..3].concat(), epochs[3..6].concat());
    }

    #[test]
    fn no_batch_holds_an_example_twice() {
        for mut batch in batches(&skewed_lengths(5), 8, LocalWork::Steps(10)) {
            batch.sort_unstable();
            assert_eq!(batch, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn batches_of_like_length_pad_less_than_half_of_random_ones() {
        let lengths = skewed_lengths(2000);
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        KEY.stream(Site::Batches).shuffle(&mut order);
        let random: Vec<Vec<usize>> = order.chunks(16).map(<[usize]>::to_vec).collect();
        let (bucketed, random) =
            (padding(&lengths, &batches(&lengths, 16, LocalWork::Epochs(1))), padding(&lengths, &random));
        assert!(bucketed * 2 < random, "{bucketed} of {random}");
    }

    #[test]
    fn the_same_key_gives_the_same_batches_and_each_round_and_client_others() {
        let lengths = skewed_lengths(200);
        let with = |key| local_batches(&lengths, 16, LocalWork::Epochs(1), key, Site::Batches);
        assert_eq!(with(KEY), with(KEY));
        for other in [Key { round: 4, ..KEY }, Key { client: 2, ..KEY }, Key { seed: 43, ..KEY }] {
            assert_ne!(with(KEY), with(other));
        }
    }

    #[test]
    fn there_is_no_batch_without_examples_or_size() {
        assert!(batches(&[], 8, LocalWork::Steps(3)).is_empty());
        assert!(batches(&[4, 5], 0, LocalWork::Epochs(3)).is_empty());
    }

    #[test]
    fn evaluation_goes_by_length_and_then_by_place() {
        assert_eq!(evaluation_batches(&[5, 3, 5, 4], 2), [[1, 3], [0, 2]]);
        assert_eq!(evaluation_batches(&[7, 7, 7], 2), [vec![0, 1], vec![2]]);
    }
}
