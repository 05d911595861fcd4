//! Keys and values of the tokens that have passed through a block, so that the next token meets them as they were.
//! Must not be used in training: what is kept has no gradient, and a mask of dropout would not be drawn again.

use tch::Tensor;

/// What one block keeps of a batch.
#[derive(Debug, Default)]
pub(super) struct KeyValues(Option<(Tensor, Tensor)>); // each [batch, kv_heads, seen, head_dim]

impl KeyValues {
    /// Puts those of the new tokens, `[batch, kv_heads, new, head_dim]`, behind the others; gives all of them.
    pub(super) fn extend(&mut self, keys: Tensor, values: Tensor) -> (Tensor, Tensor) {
        let (keys, values) = match self.0.take() {
            None => (keys, values),
            Some((seen_keys, seen_values)) => {
                (Tensor::cat(&[seen_keys, keys], 2), Tensor::cat(&[seen_values, values], 2))
            }
        };
        self.0 = Some((keys.shallow_clone(), values.shallow_clone()));
        (keys, values)
    }
}
