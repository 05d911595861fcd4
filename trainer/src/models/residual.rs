//! What earlier rounds left beside a frozen weight: y = W x + R x, R in F32 whatever the precision of W.
//! Must not be trained, and must not change the weight: rounded into a BF16 base, small updates would be lost.

use tch::{Kind, Tensor};

use crate::low_rank::LowRank;

/// A matrix `[outputs, inputs]` that grows by low-rank products, kept as factors until a dense one is smaller.
#[derive(Debug)]
pub enum Residual {
    /// The sum of products so far, stacked.
    Stacked(LowRank),
    /// The matrix itself, `[outputs, inputs]`.
    Dense(Tensor),
}

impl Residual {
    /// `earlier` and one more product, F32 both. Whoever adds the same in the same order has the same bits.
    pub fn add(earlier: Option<&Self>, more: &LowRank) -> Self {
        let _no_graph = tch::no_grad_guard();
        match earlier {
            Some(Self::Dense(matrix)) => Self::Dense(matrix + more.product()),
            Some(Self::Stacked(sum)) => Self::stacked(LowRank::sum(&[sum.shallow_clone(), more.shallow_clone()])),
            None => Self::stacked(more.shallow_clone()),
        }
    }

    fn stacked(sum: LowRank) -> Self {
        let (outputs, inputs) = (sum.up.size()[0] as usize, sum.down.size()[1] as usize);
        if Self::size_of(sum.rank(), outputs, inputs) < sum.rank() * (outputs + inputs) {
            return Self::Dense(sum.product());
        }
        Self::Stacked(sum)
    }

    /// [`Residual::size`] of products of this rank together, beside a weight `[outputs, inputs]`.
    pub fn size_of(rank: usize, outputs: usize, inputs: usize) -> usize {
        (rank * (outputs + inputs)).min(outputs * inputs)
    }

    /// The same tensors again, without copying.
    #[must_use]
    pub fn share(&self) -> Self {
        match self {
            Self::Stacked(sum) => Self::Stacked(sum.shallow_clone()),
            Self::Dense(matrix) => Self::Dense(matrix.shallow_clone()),
        }
    }

    /// Multiplications for one vector: those that a forward pass does, and the numbers that are kept.
    pub fn size(&self) -> usize {
        match self {
            Self::Stacked(sum) => sum.up.numel() + sum.down.numel(),
            Self::Dense(matrix) => matrix.numel(),
        }
    }

    /// Its factors; of a dense one the matrix and the identity.
    pub fn factors(&self) -> LowRank {
        match self {
            Self::Stacked(sum) => sum.shallow_clone(),
            Self::Dense(matrix) => {
                let inputs = matrix.size()[1];
                LowRank { up: matrix.shallow_clone(), down: Tensor::eye(inputs, (Kind::Float, matrix.device())) }
            }
        }
    }

    /// `[.., inputs]` of any type to `[.., outputs]` in F32.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float);
        match self {
            Self::Stacked(sum) => {
                let low = x.linear(&sum.down, None::<&Tensor>); // [.., rank]
                low.linear(&sum.up, None::<&Tensor>) // [.., outputs]
            }
            Self::Dense(matrix) => x.linear(matrix, None::<&Tensor>),
        }
    }
}
