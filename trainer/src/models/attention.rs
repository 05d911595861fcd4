//! Attention as every architecture uses it, and the biases that keep tokens from seeing padding or the future.
//! Must not choose kernels by size: by purpose, element type and device alone, so that equal inputs give equal bits.

use tch::{Device, Kind, Tensor};

use super::base::{Context, Purpose};

/// Far below any score, and finite in BF16: a row that may see nothing gets equal weights instead of NaN.
const MASKED: f64 = -1e30;

/// Softmax of `q k^T / sqrt(head_dim) + bias`, times `v`.
///
/// `q` is `[batch, heads, seq, head_dim]`, `k` and `v` `[batch, kv_heads, seen, head_dim]`, the context's bias broadcasts
/// to `[batch, 1, seq, seen]`; `seen` is `seq` but where earlier tokens come from a cache. Gives
/// `[batch, seq, heads * head_dim]`.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, context: &Context) -> Tensor {
    let (batch, heads, seq, head_dim) = q.size4().expect("queries are [batch, heads, seq, head_dim]");
    let attended = match context.purpose {
        // It spares copies and keeps no weights for backward. In BF16 plain products take a quarter of its time.
        Purpose::Training if q.kind() == Kind::Float && q.device() == Device::Cpu => fused(q, k, v, &context.bias),
        // Its exponentials are good to 20 bits only: answers would differ from the text read whole by more than 1e-5.
        Purpose::Training | Purpose::Inference => by_products(q, k, v, &context.bias),
    };
    attended.transpose(1, 2).reshape([batch, seq, heads * head_dim])
}

/// [`attend`] by libtorch's fused kernel, giving `[batch, heads, seq, head_dim]`.
fn fused(q: &Tensor, k: &Tensor, v: &Tensor, bias: &Tensor) -> Tensor {
    let share_keys = q.size()[1] != k.size()[1];
    Tensor::scaled_dot_product_attention(q, k, v, Some(bias), 0.0, false, None, share_keys)
}

/// [`attend`] by one product after the other, giving `[batch, heads, seq, head_dim]`.
fn by_products(q: &Tensor, k: &Tensor, v: &Tensor, bias: &Tensor) -> Tensor {
    let (batch, heads, seq, head_dim) = q.size4().expect("queries are [batch, heads, seq, head_dim]");
    let (kv_heads, seen) = (k.size()[1], k.size()[2]);
    let groups = heads / kv_heads;
    // Queries that share a key head stand in one matrix, so keys and values are never repeated.
    let q = q.reshape([batch * kv_heads, groups * seq, head_dim]);
    let k = k.reshape([batch * kv_heads, seen, head_dim]);
    let v = v.reshape([batch * kv_heads, seen, head_dim]);
    let bias = bias.expand([batch, heads, seq, seen], false).reshape([batch * kv_heads, groups * seq, seen]);
    let scores = bias.baddbmm(&q, &k.transpose(1, 2), 1.0, (head_dim as f64).powf(-0.5));
    let weights = scores.softmax(-1, Kind::Float).to_kind(v.kind()); // [batch * kv_heads, groups * seq, seen]
    weights.bmm(&v).view([batch, heads, seq, head_dim])
}

/// Keeps every token from seeing padding: `[batch, 1, 1, seq]` from a mask `[batch, seq]`.
pub(super) fn padding_bias(mask: &Tensor, kind: Kind) -> Tensor {
    (mask.logical_not().to_kind(kind) * MASKED).unsqueeze(1).unsqueeze(1)
}

/// Keeps the last `new` tokens from seeing padding, the future, and what lies a `window` or more behind them:
/// `[batch, 1, new, seen]` from a mask `[batch, seen]`.
pub(super) fn causal_bias(mask: &Tensor, new: i64, window: Option<i64>, kind: Kind) -> Tensor {
    let seen = mask.size()[1];
    let past = Tensor::ones([seen, seen], (Kind::Bool, mask.device())).tril(0); // [seen, seen]
    let past = window.filter(|window| *window < seen).map_or(past.shallow_clone(), |window| past.triu(1 - window));
    let past = past.narrow(0, seen - new, new); // [new, seen]
    let visible = mask.unsqueeze(1).logical_and(&past); // [batch, new, seen]
    (visible.logical_not().to_kind(kind) * MASKED).unsqueeze(1)
}

/// The state of each row's rightmost real token: `[batch, hidden]` of `[batch, seq, hidden]`; of the first where there
/// is none.
pub(super) fn take_rightmost(hidden: &Tensor, mask: &Tensor) -> Tensor {
    let (batch, seq, width) = hidden.size3().expect("a hidden state is [batch, seq, hidden]");
    let places = Tensor::arange(seq, (Kind::Int64, mask.device()));
    let rightmost = (mask.to_kind(Kind::Int64) * places).argmax(-1, false); // [batch]
    let index = rightmost.view([batch, 1, 1]).expand([batch, 1, width], false);
    hidden.gather(1, &index, false).squeeze_dim(1)
}

/// Positions of the last `new` tokens of a mask `[batch, seen]`, real tokens counted from zero, `[batch, new]`; padding
/// on the left stands at zero.
pub(super) fn positions(mask: &Tensor, new: i64) -> Tensor {
    (mask.cumsum(1, Kind::Int64) - 1).clamp_min(0).narrow(1, mask.size()[1] - new, new)
}
