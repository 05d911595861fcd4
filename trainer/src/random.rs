//! Counter-based random streams: the same key gives the same numbers on any thread, in any order, at any time.
//! Must not touch libtorch's global generator: two client threads on it would give other results each time.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// What a stream is for; part of its key, so that no two uses share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// Initial values of the parameter with this ordinal.
    Init(u32),
    /// Order of a client's examples.
    Batches,
    /// Order of the public examples in distillation.
    Distillation,
    /// Dropout masks of the LoRA layer with this ordinal.
    Dropout(u32),
    /// Who holds which example.
    Partition,
    /// Which examples are held out.
    HoldOut,
    /// Which clients take part in a round.
    Sampling,
    /// In which order clients take their turns.
    Turns,
    /// How long a client waits before it dials again.
    Backoff,
    /// Which tokens a model says in answer to the prompt with this index.
    Generation(u32),
}

impl Site {
    fn code(self) -> [u32; 2] {
        match self {
            Self::Init(parameter) => [0, parameter],
            Self::Batches => [1, 0],
            Self::Distillation => [2, 0],
            Self::Dropout(layer) => [3, layer],
            Self::Partition => [4, 0],
            Self::HoldOut => [5, 0],
            Self::Sampling => [6, 0],
            Self::Turns => [7, 0],
            Self::Backoff => [8, 0],
            Self::Generation(prompt) => [20, prompt],
        }
    }
}

/// Where in a run a stream is used. Everything that may not differ between clients leaves `client` at zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Key {
    /// `spec.seed`.
    pub seed: u64,
    /// Ordinal of the client.
    pub client: u32,
    /// Round, from 1; 0 before the first.
    pub round: u32,
    /// Local step in the round, from 0.
    pub step: u32,
}

impl Key {
    /// The stream of this key at `site`.
    pub fn stream(self, site: Site) -> Stream {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        for word in [self.client, self.round, self.step].into_iter().chain(site.code()) {
            hash.update(word.to_le_bytes());
        }
        Stream(ChaCha8Rng::from_seed(hash.finalize().into()))
    }
}

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// A number in [0, 1), with 24 random bits.
    pub fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / (1u32 << 24) as f32
    }

    /// A whole number below `bound`; `bound` must not be zero.
    pub fn below(&mut self, bound: usize) -> usize {
        // 64 random bits: the bias is below 2^-32 for any bound that fits memory.
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Puts `items` in a random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A standard normal number (Box-Muller).
    pub fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - f64::from(self.unit())).ln()).sqrt();
        (radius * (std::f64::consts::TAU * f64::from(self.unit())).cos()) as f32
    }

    /// The generator itself, for distributions of other crates.
    pub fn generator(&mut self) -> &mut ChaCha8Rng {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_gives_the_same_numbers_and_another_key_others() {
        let key = Key { seed: 42, client: 1, round: 2, step: 3 };
        let draw =
            |key: Key, site| (0..8).map(|_| 0).scan(key.stream(site), |s, _: i32| Some(s.unit())).collect::<Vec<_>>();
        assert_eq!(draw(key, Site::Batches), draw(key, Site::Batches));
        assert_ne!(draw(key, Site::Batches), draw(key, Site::Partition));
        assert_ne!(draw(key, Site::Dropout(0)), draw(key, Site::Dropout(1)));
        for other in
            [Key { seed: 43, ..key }, Key { client: 0, ..key }, Key { round: 1, ..key }, Key { step: 0, ..key }]
        {
            assert_ne!(draw(key, Site::Batches), draw(other, Site::Batches));
        }
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..100).collect();
        Key::default().stream(Site::Batches).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let mut stream = Key::default().stream(Site::Init(0));
        let draws: Vec<f64> = (0..20_000).map(|_| f64::from(stream.normal())).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        // Standard errors: 0.007 of the mean, 0.010 of the variance.
        assert!(mean.abs() < 0.035 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
    }
}
