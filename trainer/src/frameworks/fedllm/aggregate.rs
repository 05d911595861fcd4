//! What the server makes of the clients' pairs: the mean product, and what the means of A and B lack of it.
//! Must not round: factors are in F64 until whoever sends or keeps them says otherwise.

use tch::{Kind, Tensor};

use crate::low_rank::LowRank;

/// One client's pair of a module: A `[r_k, inputs]`, B `[outputs, r_k]`.
pub(super) struct Share<'a> {
    /// `p_k`, its share of the examples; all together are 1.
    pub(super) weight: f64,
    /// `s_k`, what its B A is multiplied with.
    pub(super) scale: f64,
    pub(super) a: &'a Tensor,
    pub(super) b: &'a Tensor,
}

/// `sum p_k s_k B_k A_k`, of rank `sum r_k`: all A below one another, all B side by side (`FLoRA`, arXiv 2409.05976).
pub(super) fn mean_product(shares: &[Share<'_>]) -> LowRank {
    let _no_graph = tch::no_grad_guard();
    let part =
        |share: &Share<'_>| LowRank { up: double(share.b) * (share.weight * share.scale), down: double(share.a) };
    LowRank::sum(&shares.iter().map(part).collect::<Vec<_>>())
}

/// `sum p_k s B_k A_k - s (sum p_k B_k) (sum p_k A_k)` of clients with one rank (FedEx-LoRA, arXiv 2410.09432); none
/// of one client.
///
/// It is the covariance `s sum p_k (B_k - mean B) (A_k - mean A)`. The second factors add up to zero with the weights
/// `p_k`, so any constant may be taken from the first ones: with the last client's B the last term is gone, and K - 1
/// pairs of rank r are left.
pub(super) fn residual(shares: &[Share<'_>]) -> Option<LowRank> {
    let _no_graph = tch::no_grad_guard();
    let [others @ .., last] = shares else { return None };
    if others.is_empty() {
        return None;
    }
    let weighted = |share: &Share<'_>| double(share.a) * share.weight;
    let mean_a = others.iter().fold(weighted(last), |sum, share| sum + weighted(share));
    let part = |share: &Share<'_>| LowRank {
        up: (double(share.b) - double(last.b)) * (share.weight * share.scale),
        down: double(share.a) - &mean_a,
    };
    Some(LowRank::sum(&others.iter().map(part).collect::<Vec<_>>()))
}

fn double(tensor: &Tensor) -> Tensor {
    tensor.to_kind(Kind::Double)
}
