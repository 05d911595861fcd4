//! A batch of token ids with its mask, as every model takes it.
//! Must not know tokenizers or texts: ids in, two tensors out.

use tch::{Device, Kind, Tensor};

/// A padded batch of token ids.
#[derive(Debug)]
pub struct Tokens {
    /// Token ids, `[batch, seq]`, 64-bit integers.
    pub ids: Tensor,
    /// True where a real token stands, `[batch, seq]`, booleans.
    pub mask: Tensor,
    /// Which tokens a language model's head reads, as indices into `[batch * seq]`, `[reads]`; none for all of them. A
    /// classifier reads one state of each row and asks nobody.
    pub places: Option<Tensor>,
}

impl Tokens {
    /// Pads `rows` on the right with `pad_id` to the longest of them (at least one token).
    pub fn right_padded(rows: &[&[u32]], pad_id: u32, device: Device) -> Self {
        let seq = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
        let mut ids = vec![i64::from(pad_id); rows.len() * seq];
        for (padded, row) in ids.chunks_exact_mut(seq).zip(rows) {
            for (slot, &id) in padded.iter_mut().zip(*row) {
                *slot = i64::from(id);
            }
        }
        let lengths: Vec<i32> = rows.iter().map(|row| row.len() as i32).collect();
        Self {
            ids: Tensor::from_slice(&ids).view([rows.len() as i64, seq as i64]).to_device(device),
            mask: Self::mask_from_lengths(&lengths, seq, device),
            places: None,
        }
    }

    /// Pads `rows` on the left with `pad_id` to the longest of them (at least one token).
    pub fn left_padded(rows: &[&[u32]], pad_id: u32, device: Device) -> Self {
        let seq = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
        let padding = |row: &&[u32]| std::iter::repeat_n((i64::from(pad_id), false), seq - row.len());
        let real = |row: &'_ &[u32]| row.iter().map(|&id| (i64::from(id), true)).collect::<Vec<_>>();
        let (ids, mask): (Vec<i64>, Vec<bool>) = rows.iter().flat_map(|row| padding(row).chain(real(row))).unzip();
        let size = [rows.len() as i64, seq as i64];
        Self {
            ids: Tensor::from_slice(&ids).view(size).to_device(device),
            mask: Tensor::from_slice(&mask).view(size).to_device(device),
            places: None,
        }
    }

    /// The mask of right-padded rows of these lengths, `[batch, seq]`.
    pub fn mask_from_lengths(lengths: &[i32], seq: usize, device: Device) -> Tensor {
        let lengths = Tensor::from_slice(lengths).to_device(device).unsqueeze(1); // [batch, 1]
        Tensor::arange(seq as i64, (Kind::Int, device)).unsqueeze(0).less_tensor(&lengths) // [batch, seq]
    }

    /// Rows in the batch.
    pub fn batch(&self) -> usize {
        self.ids.size()[0] as usize
    }

    /// Tokens in a row, padding included.
    pub fn seq(&self) -> usize {
        self.ids.size()[1] as usize
    }

    /// Real tokens of each row.
    pub fn lengths(&self) -> Vec<i32> {
        let counts = self.mask.sum_dim_intlist(1, false, Kind::Int64); // [batch]
        (0..self.batch() as i64).map(|row| counts.int64_value(&[row]) as i32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_on_the_right_to_the_longest() {
        let tokens = Tokens::right_padded(&[&[5, 6, 7], &[8]], 9, Device::Cpu);
        assert_eq!((tokens.batch(), tokens.seq()), (2, 3));
        assert_eq!(Vec::<Vec<i64>>::try_from(&tokens.ids).unwrap(), [[5, 6, 7], [8, 9, 9]]);
        assert_eq!(Vec::<Vec<bool>>::try_from(&tokens.mask).unwrap(), [[true; 3], [true, false, false]]);
        assert_eq!(tokens.lengths(), [3, 1]);
    }

    #[test]
    fn prompts_are_padded_on_the_left_to_the_longest() {
        let tokens = Tokens::left_padded(&[&[5, 6, 7], &[8]], 9, Device::Cpu);
        assert_eq!(Vec::<Vec<i64>>::try_from(&tokens.ids).unwrap(), [[5, 6, 7], [9, 9, 8]]);
        assert_eq!(Vec::<Vec<bool>>::try_from(&tokens.mask).unwrap(), [[true; 3], [false, false, true]]);
    }

    #[test]
    fn a_batch_without_any_token_is_one_pad_wide() {
        let tokens = Tokens::right_padded(&[&[]], 9, Device::Cpu);
        assert_eq!((tokens.seq(), tokens.lengths()), (1, vec![0]));
    }
}
