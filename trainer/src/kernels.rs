//! Has libtorch's vector mathematics choose its kernels, on one thread, before several may ask for them.
//! Must not compute anything that is used.
//!
//! MKL chooses the kernel of a function (square root, exponential, tanh, ...) when that function is first called. Where
//! two threads make that first call at once, one of them may be given a kernel of low accuracy, for that one call
//! (<https://github.com/pytorch/pytorch/issues/188792>): one of a hundred runs of two clients ended with other bits.

use std::sync::Once;

use tch::{Device, Kind, Tensor};

/// The functions of one argument that libtorch takes from there.
const FUNCTIONS: [fn(&Tensor) -> Tensor; 20] = [
    Tensor::acos,
    Tensor::asin,
    Tensor::atan,
    Tensor::cos,
    Tensor::cosh,
    Tensor::erf,
    Tensor::erfc,
    Tensor::erfinv,
    Tensor::exp,
    Tensor::expm1,
    Tensor::log,
    Tensor::log10,
    Tensor::log1p,
    Tensor::log2,
    Tensor::sin,
    Tensor::sinh,
    Tensor::sqrt,
    Tensor::tan,
    Tensor::tanh,
    Tensor::trunc,
];

/// Calls each function once in this process, in the types that it has; who comes second waits for the first. To be called
/// before models compute side by side, and before one computes on several threads.
pub(crate) fn choose() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        for kind in [Kind::Float, Kind::Double] {
            let halves = Tensor::full([8], 0.5, (kind, Device::Cpu));
            for function in FUNCTIONS {
                let _result = function(&halves);
            }
        }
    });
}
