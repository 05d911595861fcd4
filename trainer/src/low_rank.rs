//! Products of two narrow matrices: added up without multiplying them out, and cut by their singular values.
//! Must not know what the matrices are of: aggregation and export use it.

use tch::{Kind, TchError, Tensor};

/// The matrix `up * down`, `[outputs, inputs]`, of at most the rank of its factors.
#[derive(Debug)]
pub struct LowRank {
    /// `[outputs, rank]`.
    pub up: Tensor,
    /// `[rank, inputs]`.
    pub down: Tensor,
}

/// The singular value decomposition of a [`LowRank`], in F64: `left * diag(values) * right`.
#[derive(Debug)]
pub struct Svd {
    /// Orthonormal columns, `[outputs, count]`.
    pub left: Tensor,
    /// Descending, `[count]`.
    pub values: Tensor,
    /// Orthonormal rows, `[count, inputs]`; the largest entry of each is positive.
    pub right: Tensor,
}

impl LowRank {
    /// The sum of products: their factors side by side, in this order.
    pub fn sum(parts: &[Self]) -> Self {
        let ups: Vec<&Tensor> = parts.iter().map(|part| &part.up).collect();
        let downs: Vec<&Tensor> = parts.iter().map(|part| &part.down).collect();
        Self { up: Tensor::cat(&ups, 1), down: Tensor::cat(&downs, 0) }
    }

    /// The same tensors again, without copying.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        Self { up: self.up.shallow_clone(), down: self.down.shallow_clone() }
    }

    /// Columns of `up` and rows of `down`.
    pub fn rank(&self) -> usize {
        self.down.size()[0] as usize
    }

    /// The matrix itself, `[outputs, inputs]`.
    pub fn product(&self) -> Tensor {
        self.up.matmul(&self.down)
    }

    /// The factors in F32, cut off from any graph.
    #[must_use]
    pub fn to_f32(&self) -> Self {
        Self { up: self.up.detach().to_kind(Kind::Float), down: self.down.detach().to_kind(Kind::Float) }
    }

    /// Its singular values and vectors, in F64. The factors are made orthonormal first (QR), so that nothing larger
    /// than rank x rank is decomposed and `up * down` is never multiplied out.
    ///
    /// # Errors
    /// Where libtorch does not converge, as on values that are no numbers.
    pub fn svd(&self) -> Result<Svd, TchError> {
        let _no_graph = tch::no_grad_guard();
        let (up, down) = (self.up.to_kind(Kind::Double), self.down.to_kind(Kind::Double));
        let (q_up, r_up) = Tensor::f_linalg_qr(&up, "reduced")?; // [outputs, m], [m, rank]
        let (q_down, r_down) = Tensor::f_linalg_qr(&down.tr(), "reduced")?; // [inputs, n], [n, rank]
        let core = r_up.f_matmul(&r_down.tr())?; // [m, n]
        let (u, values, v) = core.f_svd(true, true)?; // [m, count], [count], [n, count]
        let (left, right) = (q_up.f_matmul(&u)?, q_down.f_matmul(&v)?.tr());
        // A decomposition fixes its vectors up to their sign: here the largest entry of each right one is positive.
        let largest = right.abs().argmax(1, true); // [count, 1]
        let sign = right.gather(1, &largest, false).sign(); // [count, 1]
        Ok(Svd { left: left * sign.tr(), values, right: right * sign })
    }
}

impl Svd {
    /// How many singular values there are.
    pub fn count(&self) -> usize {
        self.values.size()[0] as usize
    }

    /// The nearest matrix of at most this rank (Eckart and Young): rows of `down` are orthonormal, `up` holds the
    /// singular values. Of fewer values than `rank` there are as many rows as values.
    pub fn cut(&self, rank: usize) -> LowRank {
        let count = rank.min(self.count()) as i64;
        let up = self.left.narrow(1, 0, count) * self.values.narrow(0, 0, count);
        LowRank { up, down: self.right.narrow(0, 0, count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Key, Site};

    fn noise(seed: u64, rows: usize, columns: usize) -> Tensor {
        let mut stream = Key { seed, ..Key::default() }.stream(Site::Init(0));
        let values: Vec<f32> = (0..rows * columns).map(|_| stream.normal()).collect();
        Tensor::from_slice(&values).view([rows as i64, columns as i64])
    }

    fn low_rank(outputs: usize, rank: usize, inputs: usize) -> LowRank {
        LowRank { up: noise(1, outputs, rank), down: noise(2, rank, inputs) }
    }

    fn norm(tensor: &Tensor) -> f64 {
        tensor.square().sum(Kind::Double).double_value(&[]).sqrt()
    }

    /// Eckart and Young: the Frobenius distance is the root of the sum of squared discarded singular values.
    #[test]
    fn a_cut_is_as_far_off_as_the_discarded_singular_values_say() {
        // Also where the factors are wider than the matrix.
        for (outputs, rank, inputs) in [(9, 5, 7), (6, 8, 4), (3, 4, 9)] {
            let whole = low_rank(outputs, rank, inputs);
            let (svd, product) =
                (whole.svd().unwrap(), whole.up.to_kind(Kind::Double).matmul(&whole.down.to_kind(Kind::Double)));
            for kept in 1..=rank {
                let from = kept.min(svd.count()) as i64;
                let discarded = norm(&svd.values.narrow(0, from, svd.count() as i64 - from));
                let error = norm(&(svd.cut(kept).product() - &product));
                assert!((error - discarded).abs() < 1e-12, "{outputs} {rank} {inputs} {kept}: {error} {discarded}");
            }
            assert!(norm(&(svd.cut(rank).product() - &product)) < 1e-12);
        }
    }

    #[test]
    fn a_sum_of_products_is_the_product_of_the_stacked_factors() {
        let parts = [low_rank(4, 2, 3), LowRank { up: noise(3, 4, 1), down: noise(4, 1, 3) }];
        let sum = LowRank::sum(&parts);
        assert_eq!(sum.rank(), 3);
        assert!(norm(&(sum.product() - parts[0].product() - parts[1].product())) < 1e-5);
    }

    #[test]
    fn the_largest_entry_of_each_right_vector_is_positive() {
        let svd = LowRank { up: -noise(1, 5, 3), down: noise(2, 3, 6) }.svd().unwrap();
        assert!(svd.right.amax([1], false).allclose(&svd.right.abs().amax([1], false), 0.0, 0.0, false));
    }
}
