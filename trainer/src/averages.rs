//! Means over clients, accumulated in F64 in client order and rounded once.
//! Must not depend on the order of arrival: whoever calls it passes tensors in client order.

use tch::{Kind, Tensor};

/// A weighted mean of equally shaped tensors in the making.
#[derive(Debug, Default)]
pub struct Mean {
    sum: Option<Tensor>,
    weight: f64,
}

impl Mean {
    /// Adds `weight` times `tensor`. K equal tensors of any weights return themselves bit for bit: an F32 value
    /// times an integer weight below 2^29 is exact in F64, and so are their sums while they stay below 2^53.
    pub fn add(&mut self, tensor: &Tensor, weight: f64) {
        let _no_graph = tch::no_grad_guard();
        let term = tensor.to_kind(Kind::Double) * weight;
        self.weight += weight;
        self.sum = Some(match self.sum.take() {
            Some(mut sum) => sum.g_add_(&term),
            None => term,
        });
    }

    /// The mean in F32; nothing where nothing was added.
    pub fn finish(self) -> Option<Tensor> {
        let _no_graph = tch::no_grad_guard();
        self.sum.map(|sum| (sum / self.weight).to_kind(Kind::Float))
    }
}

/// A weighted mean of equally long lists of F32 numbers in the making, as they travel: little-endian bytes. To the bit
/// what [`Mean`] makes of tensors that hold them.
#[derive(Debug, Default)]
pub struct BytesMean {
    sum: Vec<f64>,
    weight: f64,
}

impl BytesMean {
    /// Adds `weight` times the numbers in `bytes`.
    pub fn add(&mut self, bytes: &[u8], weight: f64) {
        let (numbers, _) = bytes.as_chunks::<4>();
        self.weight += weight;
        // Minus zero plus any number is that number, zeros of either sign too.
        self.sum.resize(numbers.len(), -0.0);
        for (sum, number) in self.sum.iter_mut().zip(numbers) {
            *sum += f64::from(f32::from_le_bytes(*number)) * weight;
        }
    }

    /// The mean in F32, of this shape.
    pub fn finish(self, shape: &[i64]) -> Tensor {
        let numbers: Vec<f32> = self.sum.iter().map(|sum| (sum / self.weight) as f32).collect();
        Tensor::from_slice(&numbers).view(shape)
    }
}

/// A mean of equally shaped matrices in the making, in which each row has a weight of its own.
#[derive(Debug, Default)]
pub struct RowMean(Option<(Tensor, Tensor)>);

impl RowMean {
    /// Adds `tensor` `[rows, columns]`, each row times its weight in `weights` `[rows, 1]`, F64.
    pub fn add(&mut self, tensor: &Tensor, weights: &Tensor) {
        let _no_graph = tch::no_grad_guard();
        let term = tensor.to_kind(Kind::Double) * weights;
        self.0 = Some(match self.0.take() {
            Some((mut sum, mut total)) => (sum.g_add_(&term), total.g_add_(weights)),
            None => (term, weights.copy()),
        });
    }

    /// The mean in F32, of rows whose weights are not all zero; nothing where nothing was added.
    pub fn finish(self) -> Option<Tensor> {
        let _no_graph = tch::no_grad_guard();
        self.0.map(|(sum, total)| (sum / total).to_kind(Kind::Float))
    }
}

/// Weighted means of lists of tensors, entry by entry: `clients` yields each client's weight and list in client order.
pub fn weighted_means<'a>(clients: impl IntoIterator<Item = (f64, &'a [Tensor])>) -> Vec<Tensor> {
    let mut means: Vec<Mean> = Vec::new();
    for (weight, tensors) in clients {
        means.resize_with(tensors.len(), Mean::default);
        for (mean, tensor) in means.iter_mut().zip(tensors) {
            mean.add(tensor, weight);
        }
    }
    means.into_iter().filter_map(Mean::finish).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Key, Site};

    fn noise(seed: u64) -> Tensor {
        let mut stream = Key { seed, ..Key::default() }.stream(Site::Init(0));
        Tensor::from_slice(&(0..1000).map(|_| stream.normal() * 0.02).collect::<Vec<f32>>())
    }

    #[test]
    fn identical_uploads_return_themselves_bit_for_bit() {
        let upload = [noise(1)];
        for clients in [1usize, 3, 7, 100] {
            let weights = (0..clients).map(|k| (37 + 11 * k) as f64);
            let mean = weighted_means(weights.map(|weight| (weight, &upload[..])));
            assert_eq!(Vec::<f32>::try_from(&mean[0]).unwrap(), Vec::<f32>::try_from(&upload[0]).unwrap());
        }
    }

    /// mean = (1 * a + 3 * b) / 4, by hand on each value in F64.
    #[test]
    fn a_mean_weighs_each_client_by_its_examples() {
        let (a, b) = ([noise(1)], [noise(2)]);
        let mean: Vec<f32> = Vec::try_from(&weighted_means([(1.0, &a[..]), (3.0, &b[..])])[0]).unwrap();
        let (a, b): (Vec<f32>, Vec<f32>) = (Vec::try_from(&a[0]).unwrap(), Vec::try_from(&b[0]).unwrap());
        for ((mean, a), b) in mean.iter().zip(a).zip(b) {
            let expected = ((f64::from(a) + 3.0 * f64::from(b)) / 4.0) as f32;
            assert_eq!(mean.to_bits(), expected.to_bits());
        }
    }

    #[test]
    fn the_mean_of_bytes_is_that_of_tensors_to_the_bit() {
        let lists = [[0.1f32, -0.0, 1e-40, 3e30], [-0.7, -0.0, 1e-39, 1.0], [0.3, -0.0, -1e-42, -3e30]];
        let (mut tensors, mut bytes) = (Mean::default(), BytesMean::default());
        for (numbers, weight) in lists.iter().zip([3.0, 250.0, 17.0]) {
            tensors.add(&Tensor::from_slice(numbers), weight);
            bytes.add(&numbers.map(f32::to_le_bytes).concat(), weight);
        }
        let bits =
            |mean: &Tensor| Vec::<f32>::try_from(mean).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(&bytes.finish(&[4])), bits(&tensors.finish().unwrap()));
    }

    #[test]
    fn the_mean_of_no_clients_is_empty() {
        assert!(weighted_means([]).is_empty());
    }
}
