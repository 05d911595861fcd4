//! Bytes of a file to numbers: plain elements, and ggml's blocks of small numbers with a scale.
//! Must not round: a number is what ggml says it is, to the last bit of an F32.
//!
//! Formats: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.

use tch::{Kind, TchError, Tensor};

/// How bytes stand for numbers. A block of ggml holds 32 numbers, one of the `K` kinds 256 in parts of 16 or 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// One element after the other.
    Plain(Kind),
    /// A scale, 4 bits a number, less 8.
    Q4_0,
    /// A scale, a minimum, 4 bits a number.
    Q4_1,
    /// A scale, 5 bits a number (the fifth apart), less 16.
    Q5_0,
    /// A scale, a minimum, 5 bits a number.
    Q5_1,
    /// A scale, a signed byte a number.
    Q8_0,
    /// Scale and minimum in 4 bits for 16 numbers, 2 bits a number.
    Q2K,
    /// A scale in 6 bits for 16 numbers, 3 bits a number, less 4.
    Q3K,
    /// Scale and minimum in 6 bits for 32 numbers, 4 bits a number.
    Q4K,
    /// Scale and minimum in 6 bits for 32 numbers, 5 bits a number.
    Q5K,
    /// A signed byte of scale for 16 numbers, 6 bits a number, less 32.
    Q6K,
}

type Decoded = Result<Tensor, TchError>;

impl Encoding {
    /// By ggml's number of the element type; none where it is not supported.
    pub(super) fn of_ggml(type_id: u32) -> Option<Self> {
        Some(match type_id {
            0 => Self::Plain(Kind::Float),
            1 => Self::Plain(Kind::Half),
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Plain(Kind::BFloat16),
            _ => return None,
        })
    }

    /// Whether its bytes may be the numbers as they are.
    pub(super) fn is_plain(self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Numbers and bytes of a block.
    fn block(self) -> [usize; 2] {
        match self {
            Self::Plain(kind) => [1, kind.elt_size_in_bytes()],
            Self::Q4_0 => [32, 2 + 16],
            Self::Q4_1 => [32, 4 + 16],
            Self::Q5_0 => [32, 2 + 4 + 16],
            Self::Q5_1 => [32, 4 + 4 + 16],
            Self::Q8_0 => [32, 2 + 32],
            Self::Q2K => [256, 16 + 64 + 4],
            Self::Q3K => [256, 32 + 64 + 12 + 2],
            Self::Q4K => [256, 4 + 12 + 128],
            Self::Q5K => [256, 4 + 12 + 32 + 128],
            Self::Q6K => [256, 128 + 64 + 16 + 2],
        }
    }

    /// Bytes of a tensor of this shape; none where its rows are no whole blocks, or where it does not fit.
    pub(super) fn bytes(self, shape: &[usize]) -> Option<usize> {
        let [numbers, bytes] = self.block();
        let count = shape.iter().try_fold(1usize, |count, &n| count.checked_mul(n))?;
        let whole = numbers == 1 || shape.last().is_some_and(|row| row.is_multiple_of(numbers));
        if whole { (count / numbers).checked_mul(bytes) } else { None }
    }

    /// Numbers from bytes; quantised ones as F32, in the order of the file.
    pub(super) fn decode(self, bytes: &Tensor) -> Decoded {
        if let Self::Plain(kind) = self {
            return view_as(bytes, kind);
        }
        let [_, length] = self.block();
        let blocks = Blocks(bytes.f_view([-1, length as i64])?);
        match self {
            Self::Plain(kind) => view_as(bytes, kind),
            Self::Q4_0 => blocks.part(2, 16).and_then(|quants| nibbles(&quants)?.minus(8)?.times(&blocks.half(0)?)),
            Self::Q4_1 => nibbles(&blocks.part(4, 16)?)?.times(&blocks.half(0)?)?.f_add(&blocks.half(2)?),
            Self::Q5_0 => {
                with_fifth_bits(&blocks.part(6, 16)?, &blocks.part(2, 4)?)?.minus(16)?.times(&blocks.half(0)?)
            }
            Self::Q5_1 => with_fifth_bits(&blocks.part(8, 16)?, &blocks.part(4, 4)?)?
                .times(&blocks.half(0)?)?
                .f_add(&blocks.half(2)?),
            Self::Q8_0 => blocks.part(2, 32)?.f_view_dtype(Kind::Int8)?.times(&blocks.half(0)?),
            Self::Q2K => blocks.q2_k(),
            Self::Q3K => blocks.q3_k(),
            Self::Q4K => blocks.part(16, 128).and_then(|quants| blocks.scaled_by_six_bits(&nibbles_of_rows(&quants)?)),
            Self::Q5K => blocks.q5_k(),
            Self::Q6K => blocks.q6_k(),
        }
    }
}

/// Blocks of one kind, `[blocks, bytes]`.
struct Blocks(Tensor);

impl Blocks {
    /// So many bytes of each block from `start` on, `[blocks, length]`.
    fn part(&self, start: i64, length: i64) -> Decoded {
        self.0.f_narrow(1, start, length)
    }

    /// The F16 number at byte `start` of each block, as F32, `[blocks, 1]`.
    fn half(&self, start: i64) -> Decoded {
        let bytes = self.part(start, 2)?.f_detach_copy()?.f_contiguous()?;
        bytes.f_view_dtype(Kind::Half)?.f_to_kind(Kind::Float)
    }

    /// 16 bytes of 4 bits scale and 4 bits minimum, 64 bytes of quants, scale and minimum of those.
    fn q2_k(&self) -> Decoded {
        let steps = self.part(0, 16)?;
        let scales = steps.low(15)?.times(&self.half(80)?)?.f_unsqueeze(-1)?; // [blocks, 16, 1]
        let minima = steps.shifted(4)?.times(&self.half(82)?)?.f_unsqueeze(-1)?;
        let quants = bit_pairs(&self.part(16, 64)?)?.f_reshape([-1, 16, 16])?;
        quants.times(&scales)?.f_sub(&minima)
    }

    /// 32 bytes of third bits, 64 bytes of the two others, 12 bytes of scales, the scale of those.
    fn q3_k(&self) -> Decoded {
        let third = each_bit(&self.part(0, 32)?)?.f_reshape([-1, 256])?;
        let quants = bit_pairs(&self.part(32, 64)?)?.f_reshape([-1, 256])?;
        let quants = quants.joined(&third, 2)?.minus(4)?.f_view([-1, 16, 16])?;
        let (low, high) = (self.part(96, 8)?, self.part(104, 4)?);
        let low = Tensor::f_cat(&[low.low(15)?, low.shifted(4)?], 1)?; // [blocks, 16]
        let high = shifts(&high.f_unsqueeze(1)?, &[0, 2, 4, 6])?.low(3)?.f_reshape([-1, 16])?;
        let scales = low.joined(&high, 4)?.minus(32)?.times(&self.half(108)?)?;
        quants.times(&scales.f_unsqueeze(-1)?)
    }

    /// 32 bytes of fifth bits before the nibbles.
    fn q5_k(&self) -> Decoded {
        let fifth = each_bit(&self.part(16, 32)?)?; // [blocks, 8, 32]
        self.scaled_by_six_bits(&nibbles_of_rows(&self.part(48, 128)?)?.joined(&fifth, 4)?)
    }

    /// 128 bytes of low and 64 bytes of high bits, 16 scales, the scale of those.
    fn q6_k(&self) -> Decoded {
        let low = self.part(0, 128)?.f_reshape([-1, 2, 64])?;
        let low = Tensor::f_cat(&[low.low(15)?, low.shifted(4)?], 2)?.f_view([-1, 256])?;
        let high = bit_pairs(&self.part(128, 64)?)?.f_reshape([-1, 256])?;
        let quants = low.joined(&high, 4)?.minus(32)?.f_view([-1, 16, 16])?;
        let scales = self.part(192, 16)?.f_view_dtype(Kind::Int8)?.times(&self.half(208)?)?;
        quants.times(&scales.f_unsqueeze(-1)?)
    }

    /// Scale and minimum of each block, then of each of its eight parts in 12 bytes, 6 bits each: the first four whole,
    /// of the others the two high bits in what those leave free. `quants` are `[blocks, 8, 32]`.
    fn scaled_by_six_bits(&self, quants: &Tensor) -> Decoded {
        let (first, second, third) = (self.part(4, 4)?, self.part(8, 4)?, self.part(12, 4)?);
        let later = |low: Tensor, high: &Tensor| low.joined(&high.shifted(6)?, 4);
        let scales = Tensor::f_cat(&[first.low(63)?, later(third.low(15)?, &first)?], 1)?; // [blocks, 8]
        let minima = Tensor::f_cat(&[second.low(63)?, later(third.shifted(4)?, &second)?], 1)?;
        let scales = scales.times(&self.half(0)?)?.f_unsqueeze(-1)?;
        let minima = minima.times(&self.half(2)?)?.f_unsqueeze(-1)?;
        quants.times(&scales)?.f_sub(&minima)
    }
}

/// Bits and small numbers of bytes; each step gives a tensor or libtorch's error.
trait Bits {
    /// The bits of `mask`.
    fn low(&self, mask: i64) -> Decoded;
    /// Without the `count` lowest bits.
    fn shifted(&self, count: i64) -> Decoded;
    /// With the bits of `high`, from bit `place` on.
    fn joined(&self, high: &Tensor, place: i64) -> Decoded;
    /// Less a whole number, as F32.
    fn minus(&self, offset: i64) -> Decoded;
    /// Times an F32 that stands for all of them.
    fn times(&self, scale: &Tensor) -> Decoded;
}

impl Bits for Tensor {
    fn low(&self, mask: i64) -> Decoded {
        self.f_bitwise_and(mask)
    }

    fn shifted(&self, count: i64) -> Decoded {
        self.f_bitwise_right_shift_tensor_scalar(count)
    }

    fn joined(&self, high: &Tensor, place: i64) -> Decoded {
        self.f_bitwise_or_tensor(&high.f_bitwise_left_shift_tensor_scalar(place)?)
    }

    fn minus(&self, offset: i64) -> Decoded {
        self.f_to_kind(Kind::Float)?.f_sub_scalar(offset)
    }

    fn times(&self, scale: &Tensor) -> Decoded {
        self.f_to_kind(Kind::Float)?.f_mul(scale)
    }
}

/// `[blocks, 16]` to `[blocks, 32]`: the low four bits of all, then the high four.
fn nibbles(bytes: &Tensor) -> Decoded {
    Tensor::f_cat(&[bytes.low(15)?, bytes.shifted(4)?], 1)
}

/// [`nibbles`] with a fifth bit each, out of `[blocks, 4]`.
fn with_fifth_bits(bytes: &Tensor, fifth: &Tensor) -> Decoded {
    let bits = shifts(&fifth.f_unsqueeze(-1)?.f_transpose(1, 2)?, &[0, 1, 2, 3, 4, 5, 6, 7])?.low(1)?; // [blocks, 8, 4]
    nibbles(bytes)?.joined(&bits.f_transpose(1, 2)?.f_reshape([-1, 32])?, 4)
}

/// `[blocks, 128]` to `[blocks, 8, 32]`: of each 32 bytes the low four bits, then the high four.
fn nibbles_of_rows(bytes: &Tensor) -> Decoded {
    let rows = bytes.f_reshape([-1, 4, 32])?;
    Tensor::f_stack(&[rows.low(15)?, rows.shifted(4)?], 2)?.f_view([-1, 8, 32])
}

/// `[blocks, 64]` to `[blocks, 2, 4, 32]`: of each 32 bytes the lowest two bits, then the next two, and so on.
fn bit_pairs(bytes: &Tensor) -> Decoded {
    shifts(&bytes.f_reshape([-1, 2, 1, 32])?, &[0, 2, 4, 6])?.low(3)
}

/// `[blocks, 32]` to `[blocks, 8, 32]`: the lowest bit of all, then the next, and so on.
fn each_bit(bytes: &Tensor) -> Decoded {
    shifts(&bytes.f_unsqueeze(1)?, &[0, 1, 2, 3, 4, 5, 6, 7])?.low(1)
}

/// `[.., 1, n]` to `[.., counts, n]`: without so many of the lowest bits.
fn shifts(bytes: &Tensor, counts: &[u8]) -> Decoded {
    let counts = Tensor::f_from_slice(counts)?.f_view([-1, 1])?;
    bytes.f_bitwise_right_shift(&counts)
}

/// Bytes as elements of `kind`: a view, or a copy where the file puts them at an address that the type forbids.
pub(super) fn view_as(bytes: &Tensor, kind: Kind) -> Decoded {
    match bytes.f_view_dtype(kind) {
        Ok(view) => Ok(view),
        Err(_) => bytes.f_detach_copy()?.f_view_dtype(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::golden::tensors;

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    /// Golden: `gguf.quants.dequantize` of random blocks with scales from zero to the largest F16.
    #[test]
    fn every_element_type_gives_the_bits_that_the_gguf_package_gives() {
        let golden = tensors("gguf_types");
        let ids = [(0, "F32"), (1, "F16"), (30, "BF16"), (2, "Q4_0"), (3, "Q4_1"), (6, "Q5_0"), (7, "Q5_1")];
        let more = [(8, "Q8_0"), (10, "Q2_K"), (11, "Q3_K"), (12, "Q4_K"), (13, "Q5_K"), (14, "Q6_K")];
        for (type_id, name) in ids.into_iter().chain(more) {
            let encoding = Encoding::of_ggml(type_id).unwrap();
            let (bytes, expected) = (&golden[&format!("{name}.bytes")], &golden[&format!("{name}.values")]);
            let shape: Vec<usize> = expected.size().iter().map(|&n| n as usize).collect();
            assert_eq!(encoding.bytes(&shape), Some(bytes.numel()), "{name}");
            let found = encoding.decode(&bytes.flatten(0, -1)).unwrap().to_kind(Kind::Float);
            let bits = |tensor: &Tensor| numbers(tensor).into_iter().map(f32::to_bits).collect::<Vec<_>>();
            assert_eq!(bits(&found), bits(expected), "{name}");
            assert!(expected.abs().max().double_value(&[]) > 1.0, "{name} has numbers to be wrong about");
        }
    }

    #[test]
    fn bytes_at_an_odd_address_are_copied_and_read_right() {
        let bytes = Tensor::from_slice(&[9u8, 0, 0, 128, 63, 0, 0, 0, 64]).narrow(0, 1, 8);
        assert_eq!(numbers(&view_as(&bytes, Kind::Float).unwrap()), [1.0, 2.0]);
    }

    #[test]
    fn q8_0_is_a_scale_times_signed_bytes() {
        // ggml: x = d * q. Here d = 0.5 (F16 0x3800).
        let quants: Vec<i8> = (0..32).map(|i| (i * 7 - 100) as i8).collect();
        let block: Vec<u8> = [0x00, 0x38].into_iter().chain(quants.iter().map(|&q| q as u8)).collect();
        let expected: Vec<f32> = quants.iter().map(|&q| 0.5 * f32::from(q)).collect();
        let two = [block.clone(), block].concat();
        let decoded = Encoding::Q8_0.decode(&Tensor::from_slice(&two)).unwrap();
        assert_eq!(numbers(&decoded), [expected.clone(), expected].concat());
    }

    #[test]
    fn q4_1_is_a_scale_times_nibbles_and_a_minimum() {
        // ggml: x = d * q + m, low nibbles first. Here d = 2 (0x4000), m = -1 (0xbc00).
        let packed: Vec<u8> = (0..16).map(|i| (i | ((15 - i) << 4)) as u8).collect();
        let block: Vec<u8> = [0x00, 0x40, 0x00, 0xbc].into_iter().chain(packed).collect();
        let low = (0..16).map(|i| 2.0 * i as f32 - 1.0);
        let high = (0..16).map(|i| 2.0 * (15 - i) as f32 - 1.0);
        let decoded = Encoding::Q4_1.decode(&Tensor::from_slice(&block)).unwrap();
        assert_eq!(numbers(&decoded), low.chain(high).collect::<Vec<_>>());
    }

    #[test]
    fn rows_must_be_whole_blocks_and_fit_memory() {
        assert_eq!(Encoding::Q4_1.bytes(&[3, 64]), Some(3 * 2 * 20));
        assert_eq!(Encoding::Q8_0.bytes(&[64, 3]), None);
        assert_eq!(Encoding::Q6K.bytes(&[3, 512]), Some(3 * 2 * 210));
        assert_eq!(Encoding::Q4K.bytes(&[8, 32]), None);
        assert_eq!(Encoding::Plain(Kind::Float).bytes(&[usize::MAX, 2]), None);
        assert_eq!(Encoding::Plain(Kind::BFloat16).bytes(&[]), Some(2));
        assert_eq!(Encoding::Q8_0.bytes(&[]), None);
    }
}
