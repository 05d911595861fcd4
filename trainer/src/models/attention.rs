//! Attention as both architectures use it, and the biases that keep tokens from seeing padding or the future.
//! Must not choose kernels by size: the same operations in the same order give the same bits.

use tch::{Kind, Tensor};

/// Far below any score, and finite in BF16: a row that may see nothing gets equal weights instead of NaN.
const MASKED: f64 = -1e30;

/// Softmax of `q k^T / sqrt(head_dim) + bias`, times `v`.
///
/// `q` is `[batch, heads, seq, head_dim]`, `k` and `v` `[batch, kv_heads, seq, head_dim]`, `bias` broadcasts to
/// `[batch, 1, seq, seq]`. Gives `[batch, seq, heads * head_dim]`. Plain products beat the fused kernel on a CPU at
/// the sizes of fine-tuning, and are the same operations that the FLOP count names.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, bias: &Tensor) -> Tensor {
    let (batch, heads, seq, head_dim) = q.size4().expect("queries are [batch, heads, seq, head_dim]");
    let kv_heads = k.size()[1];
    let groups = heads / kv_heads;
    // Queries that share a key head stand in one matrix, so keys and values are never repeated.
    let q = q.reshape([batch * kv_heads, groups * seq, head_dim]);
    let k = k.reshape([batch * kv_heads, seq, head_dim]);
    let v = v.reshape([batch * kv_heads, seq, head_dim]);
    let bias = bias.expand([batch, heads, seq, seq], false).reshape([batch * kv_heads, groups * seq, seq]);
    let scores = bias.baddbmm(&q, &k.transpose(1, 2), 1.0, (head_dim as f64).powf(-0.5));
    let weights = scores.softmax(-1, Kind::Float).to_kind(v.kind()); // [batch * kv_heads, groups * seq, seq]
    weights.bmm(&v).view([batch, heads, seq, head_dim]).transpose(1, 2).reshape([batch, seq, heads * head_dim])
}

/// Keeps every token from seeing padding: `[batch, 1, 1, seq]` from a mask `[batch, seq]`.
pub(super) fn padding_bias(mask: &Tensor, kind: Kind) -> Tensor {
    (mask.logical_not().to_kind(kind) * MASKED).unsqueeze(1).unsqueeze(1)
}

/// Keeps every token from seeing padding and the future: `[batch, 1, seq, seq]` from a mask `[batch, seq]`.
pub(super) fn causal_bias(mask: &Tensor, kind: Kind) -> Tensor {
    let seq = mask.size()[1];
    let past = Tensor::ones([seq, seq], (Kind::Bool, mask.device())).tril(0); // [seq, seq]
    let seen = mask.unsqueeze(1).logical_and(&past); // [batch, seq, seq]
    (seen.logical_not().to_kind(kind) * MASKED).unsqueeze(1)
}

/// Index of each row's rightmost real token, `[batch]`; 0 where there is none.
pub(super) fn rightmost(mask: &Tensor) -> Tensor {
    let positions = Tensor::arange(mask.size()[1], (Kind::Int64, mask.device()));
    (mask.to_kind(Kind::Int64) * positions).argmax(-1, false)
}

/// Positions of real tokens counted from zero, `[batch, seq]`; padding on the left stands at zero.
pub(super) fn positions(mask: &Tensor) -> Tensor {
    (mask.cumsum(1, Kind::Int64) - 1).clamp_min(0)
}
