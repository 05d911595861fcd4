//! Hidden states and their gradients as wire tensors: in an element type of their own, or in INT8 with a scale a token.
//! Must not accept what it did not ask for: kind, element, shape and finiteness are checked before anything is used.

use fedtune_crds::report::PayloadKind;
use tch::{Device, Kind, Tensor};

use crate::{
    frameworks::{FrameworkError, adapter},
    random::Key,
    wire::{Element, WireTensor},
};

/// How hidden states and their gradients travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Each number in this element type.
    As(Element),
    /// Each number as a whole number of steps, -127 to 127, in one byte; the length of a step, max|x| / 127 over the
    /// hidden state of a token, as one F32 a token.
    Int8,
}

/// Whose tensor it is and in which step, for sentences.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) who: &'a str,
    pub(super) key: Key,
}

impl Codec {
    /// Bytes of a hidden state of this width: TRAINER's c.
    pub fn bytes_per_token(self, hidden: usize) -> usize {
        match self {
            Self::As(element) => hidden * element.size(),
            Self::Int8 => hidden + 4,
        }
    }

    /// Wire tensors that one tensor becomes.
    pub(super) fn tensors(self) -> usize {
        match self {
            Self::As(_) => 1,
            Self::Int8 => 2,
        }
    }

    /// Element type of the first of them.
    pub(super) fn element(self) -> Element {
        match self {
            Self::As(element) => element,
            Self::Int8 => Element::I8,
        }
    }

    /// `[batch, seq, hidden]` as wire tensors: itself, or steps `[batch, seq, hidden]` and scales `[batch, seq]`.
    ///
    /// # Errors
    /// Where INT8 meets a value that is not finite.
    pub(super) fn write(
        self,
        name: &str,
        kind: PayloadKind,
        tensor: &Tensor,
        place: Place<'_>,
    ) -> Result<Vec<WireTensor>, FrameworkError> {
        let tensor = tensor.detach();
        match self {
            Self::As(element) => Ok(vec![WireTensor::from_tensor(name, kind, &tensor, element)?]),
            Self::Int8 => {
                let (steps, scales) = quantise(&tensor).ok_or_else(|| place.not_for_int8(name))?;
                let steps = WireTensor::from_tensor(name, kind, &steps, Element::I8)?;
                Ok(vec![steps, WireTensor::from_tensor(scale_name(name), kind, &scales, Element::F32)?])
            }
        }
    }

    /// What [`Codec::write`] wrote, `[batch, seq, hidden]` of this `shape`, brought to `options`.
    ///
    /// # Errors
    /// Where number, kind, element or shape are others, or a value is not finite.
    pub(super) fn read(
        self,
        tensors: &[WireTensor],
        kind: PayloadKind,
        shape: &[i64],
        options: (Kind, Device),
        place: Place<'_>,
    ) -> Result<Tensor, FrameworkError> {
        let read = |tensor: &WireTensor, element: Element, shape: &[i64]| {
            check(tensor, (kind, element, shape), place.who)?;
            Ok::<_, FrameworkError>(tensor.to_tensor(options.1)?)
        };
        match (self, tensors) {
            (Self::As(element), [tensor]) => {
                adapter::finite(read(tensor, element, shape)?.to_kind(options.0), place.who, &tensor.name)
            }
            (Self::Int8, [steps, scales]) => {
                let of_tokens = &shape[..shape.len().saturating_sub(1)];
                let lengths = read(scales, Element::F32, of_tokens)?;
                if !adapter::is_finite(&lengths) || lengths.lt(0.0).any().int64_value(&[]) != 0 {
                    return Err(place.not_for_int8(&scales.name));
                }
                let numbers = restore(&read(steps, Element::I8, shape)?, &lengths);
                adapter::finite(numbers.to_kind(options.0), place.who, &steps.name)
            }
            (Self::As(_) | Self::Int8, _) => {
                let got = tensors.iter().map(|t| adapter::describe(&t.name, t.kind, t.element, &t.shape));
                let got = got.take(2).collect::<Vec<_>>().join(" and ");
                let expected = format!("{} tensors of kind {}", self.tensors(), kind.as_str());
                Err(FrameworkError::Tensor { who: place.who.to_owned(), got, expected })
            }
        }
    }
}

impl Place<'_> {
    fn not_for_int8(&self, name: &str) -> FrameworkError {
        let (who, name) = (self.who.to_owned(), crate::wire::quote(name));
        FrameworkError::Int8 { who, name, round: self.key.round, step: self.key.step + 1 }
    }
}

fn scale_name(name: &str) -> String {
    format!("{name}.scale")
}

fn check(
    tensor: &WireTensor,
    (kind, element, shape): (PayloadKind, Element, &[i64]),
    who: &str,
) -> Result<(), FrameworkError> {
    if (tensor.kind, tensor.element, &tensor.shape[..]) == (kind, element, shape) {
        return Ok(());
    }
    Err(FrameworkError::Tensor {
        who: who.to_owned(),
        got: adapter::describe(&tensor.name, tensor.kind, tensor.element, &tensor.shape),
        expected: format!("{}, {element:?}, shape {shape:?}", kind.as_str()),
    })
}

/// Steps `[.., hidden]` in I8 and their lengths `[..]` in F32 of `[.., hidden]`, a scale for each row of the last
/// dimension; nothing where a value is not finite.
fn quantise(tensor: &Tensor) -> Option<(Tensor, Tensor)> {
    if !adapter::is_finite(tensor) {
        return None;
    }
    // F64: which of two steps is nearer is decided exactly, since both numbers have 24 bits.
    let wide = tensor.to_kind(Kind::Double);
    let largest = wide.abs().amax([-1], true); // [.., 1]
    let scales = (&largest / 127.0).to_kind(Kind::Float);
    // Among the smallest of numbers a scale that was rounded down, to zero even, would leave 127 steps too short.
    let short = (scales.to_kind(Kind::Double) * 127.5).less_tensor(&largest);
    let scales = scales.nextafter(&scales.full_like(f64::INFINITY)).where_self(&short, &scales);
    let steps = &wide / scales.to_kind(Kind::Double); // 0 / 0 in a row of zeros
    let steps = steps.nan_to_num(0.0, None, None).round().clamp(-127.0, 127.0);
    Some((steps.to_kind(Kind::Int8), scales.squeeze_dim(-1)))
}

/// The numbers, F32, of steps `[.., hidden]` and their lengths `[..]`.
fn restore(steps: &Tensor, scales: &Tensor) -> Tensor {
    let numbers = steps.to_kind(Kind::Float) * scales.unsqueeze(-1);
    // A scale that was rounded up would carry the largest of numbers over the edge.
    numbers.clamp(f64::from(f32::MIN), f64::from(f32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Site;

    const KEY: Key = Key { seed: 42, client: 0, round: 3, step: 4 };
    const PLACE: Place<'_> = Place { who: "silo/1", key: KEY };
    const KIND: PayloadKind = PayloadKind::Activation;
    const INT8: Codec = Codec::Int8;
    const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([1, 1, values.len() as i64])
    }

    fn there_and_back(codec: Codec, tensor: &Tensor) -> Tensor {
        let written = codec.write("hidden", KIND, tensor, PLACE).unwrap();
        codec.read(&written, KIND, &tensor.size(), F32, PLACE).unwrap()
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    /// TRAINER: c = 4d, 2d, 2d, d + 4 for F32, BF16, F16, INT8.
    #[test]
    fn a_tensor_has_as_many_bytes_as_its_codec_says() {
        let tensor = Tensor::ones([2, 3, 10], F32);
        let codecs = [Element::F32, Element::BF16, Element::F16].map(Codec::As).into_iter().chain([INT8]);
        for (codec, bytes) in codecs.zip([40, 20, 20, 14]) {
            assert_eq!(codec.bytes_per_token(10), bytes);
            let written = codec.write("hidden", KIND, &tensor, PLACE).unwrap();
            assert_eq!(written.iter().map(WireTensor::payload_bytes).sum::<u64>(), 6 * bytes as u64, "{codec:?}");
            assert_eq!((written.len(), written[0].element), (codec.tensors(), codec.element()));
        }
    }

    /// By hand: max|x| = 127, so that a step is 1, and halves go to the even neighbour.
    #[test]
    fn int8_counts_steps_of_the_largest_over_127_and_rounds_half_to_even() {
        let written = INT8.write("hidden", KIND, &row(&[127.0, -127.0, 0.5, 1.5, -2.5, 3.4, 0.0]), PLACE).unwrap();
        let [steps, scales] = &written[..] else { panic!("{written:?}") };
        let signed: Vec<i8> = steps.bytes.iter().map(|byte| *byte as i8).collect();
        assert_eq!(signed, [127, -127, 0, 2, -2, 3, 0]);
        assert_eq!((steps.shape.as_slice(), scales.shape.as_slice()), (&[1, 1, 7][..], &[1, 1][..]));
        assert_eq!((scales.bytes.as_ref(), scales.kind), (&1f32.to_le_bytes()[..], KIND));
    }

    #[test]
    fn a_row_of_zeros_stays_zeros_beside_one_that_is_none() {
        let rows = Tensor::from_slice(&[0.0f32, 0.0, 3.0, -1.5]).view([1, 2, 2]);
        let back = numbers(&there_and_back(INT8, &rows));
        assert_eq!(back[..2], [0.0, 0.0]);
        assert!((back[2] - 3.0).abs() < 1e-6);
    }

    /// Rows of every magnitude that F32 has, denormal numbers and the largest included.
    fn random_rows() -> Vec<Vec<f32>> {
        let mut stream = Key { seed: 7, ..Key::default() }.stream(Site::Init(0));
        let mut rows: Vec<Vec<f32>> = (0..3000)
            .map(|_| {
                let exponent = stream.below(254 + 23) as i32 - 149;
                let scale = 2f64.powi(exponent.min(127));
                (0..=stream.below(40)).map(|_| (f64::from(2.0 * stream.unit() - 1.0) * scale) as f32).collect()
            })
            .collect();
        let tiny = f32::from_bits(1);
        rows.extend([
            vec![f32::MAX, f32::MIN, 1.0, 0.0],
            vec![f32::MAX, f32::MAX / 2.0, f32::MIN_POSITIVE],
            vec![f32::MIN_POSITIVE, f32::MIN_POSITIVE / 2.0, -tiny],
            vec![-0.0, 0.0],
        ]);
        rows.extend((1..400).map(|k| vec![f32::from_bits(k), f32::from_bits(k / 2), -tiny, 0.0]));
        rows
    }

    /// |x - x'| <= scale / 2, and half a unit in the last place of x', which is F32.
    #[test]
    fn the_way_there_and_back_in_int8_is_off_by_half_a_step_at_most() {
        for values in random_rows() {
            let written = INT8.write("hidden", KIND, &row(&values), PLACE).unwrap();
            let scale = f64::from(f32::from_le_bytes(written[1].bytes[..].try_into().unwrap()));
            let largest = values.iter().fold(0f64, |most, value| most.max(f64::from(value.abs())));
            assert!((scale - largest / 127.0).abs() <= largest * 1e-8 + f64::from(f32::from_bits(1)), "{values:?}");
            for (x, back) in values.iter().zip(numbers(&there_and_back(INT8, &row(&values)))) {
                let ulp = f64::from(back.abs()) * 2f64.powi(-24);
                let off = (f64::from(*x) - f64::from(back)).abs();
                assert!(
                    off <= scale / 2.0 + ulp,
                    "{x:e} came back as {back:e}, off by {off:e} with steps of {scale:e}"
                );
            }
        }
    }

    #[test]
    fn int8_refuses_what_is_no_number_on_the_way_out_and_names_client_and_step() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = INT8.write("hidden", KIND, &row(&[1.0, odd]), PLACE).unwrap_err().to_string();
            assert!(error.starts_with("hidden of silo/1 in round 3, step 5 holds what INT8 cannot carry"), "{error}");
        }
    }

    #[test]
    fn int8_refuses_scales_that_none_wrote() {
        let written = INT8.write("hidden", KIND, &row(&[1.0, 2.0]), PLACE).unwrap();
        for odd in [f32::NAN, f32::INFINITY, -1.0] {
            let scale = WireTensor { bytes: odd.to_le_bytes().to_vec().into(), ..written[1].clone() };
            let read = INT8.read(&[written[0].clone(), scale], KIND, &[1, 1, 2], F32, PLACE);
            let error = read.unwrap_err().to_string();
            let expected = "hidden.scale of silo/1 in round 3, step 5 holds what INT8 cannot carry";
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_tensor_of_another_form_is_refused_and_described() {
        let written = INT8.write("hidden", KIND, &row(&[1.0, 2.0]), PLACE).unwrap();
        let read = |tensors: &[WireTensor], shape: &[i64]| {
            INT8.read(tensors, KIND, shape, F32, PLACE).unwrap_err().to_string()
        };
        let alone = read(&written[..1], &[1, 1, 2]);
        assert!(alone.ends_with("expected 2 tensors of kind activation"), "{alone}");
        let wide = read(&written, &[1, 1, 3]);
        assert!(wide.ends_with("shape [1, 1, 2]), expected activation, I8, shape [1, 1, 3]"), "{wide}");
        let bare = [written[0].clone(), written[0].clone()];
        assert!(read(&bare, &[1, 1, 2]).ends_with("expected activation, F32, shape [1, 1]"));
    }
}
