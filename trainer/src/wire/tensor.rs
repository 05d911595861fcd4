//! A tensor as it travels: name, kind, element, shape and little-endian bytes.
//! Must not trust a length: bytes become a libtorch tensor only after they are counted against the shape.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use fedtune_crds::report::PayloadKind;
use tch::{Device, Kind, Tensor};

use super::{DIMENSIONS, NAME_BYTES, WireError, error::quote};

/// Type of a tensor's elements on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// Upper half of a 32-bit float.
    BF16,
    /// 16-bit IEEE float.
    F16,
    /// 32-bit signed integer.
    I32,
    /// Byte.
    U8,
    /// 16-bit unsigned integer.
    U16,
    /// 32-bit unsigned integer.
    U32,
    /// 8-bit signed integer.
    I8,
}

impl Element {
    /// Every element type.
    pub const ALL: [Self; 8] = [Self::F32, Self::BF16, Self::F16, Self::I32, Self::U8, Self::U16, Self::U32, Self::I8];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::BF16 | Self::F16 | Self::U16 => 2,
            Self::U8 | Self::I8 => 1,
        }
    }

    /// libtorch's word for it; where it has none, that of the next wider integers, which hold the same numbers.
    pub fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::BF16 => Kind::BFloat16,
            Self::F16 => Kind::Half,
            Self::I32 | Self::U16 => Kind::Int,
            Self::U8 => Kind::Uint8,
            Self::U32 => Kind::Int64,
            Self::I8 => Kind::Int8,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "F32",
            Self::BF16 => "BF16",
            Self::F16 => "F16",
            Self::I32 => "I32",
            Self::U8 => "U8",
            Self::U16 => "U16",
            Self::U32 => "U32",
            Self::I8 => "I8",
        })
    }
}

/// One tensor of a message.
#[derive(Clone, PartialEq)]
pub struct WireTensor {
    /// What the sender calls it.
    pub name: String,
    /// What its bytes are counted as.
    pub kind: PayloadKind,
    /// Type of its elements.
    pub element: Element,
    /// Length of each dimension; empty for one number.
    pub shape: Vec<i64>,
    /// Elements row by row, little-endian.
    pub bytes: Bytes,
}

impl WireTensor {
    /// `tensor` of any device, layout and type, converted to `element`; its memory is copied once, out of libtorch.
    pub fn from_tensor(
        name: impl Into<String>,
        kind: PayloadKind,
        tensor: &Tensor,
        element: Element,
    ) -> Result<Self, WireError> {
        let name = name.into();
        let bytes = read_elements(tensor, element).map_err(|reason| WireError::libtorch(&name, &reason))?;
        Ok(Self { name, kind, element, shape: tensor.size(), bytes })
    }

    /// The libtorch tensor on `device`, of `shape` and the kind of `element`.
    pub fn to_tensor(&self, device: Device) -> Result<Tensor, WireError> {
        self.check_length()?;
        let kind = self.element.kind();
        let bytes = widen(&self.bytes, self.element.size(), kind.elt_size_in_bytes());
        Tensor::f_from_data_size(&bytes, &self.shape, kind)
            .and_then(|tensor| tensor.f_to_device(device))
            .map_err(|reason| WireError::libtorch(&self.name, &reason))
    }

    /// `numbers` as a tensor `[numbers.len()]` of I32.
    pub fn from_i32s(name: impl Into<String>, kind: PayloadKind, numbers: &[i32]) -> Self {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self { name: name.into(), kind, element: Element::I32, shape: vec![numbers.len() as i64], bytes }
    }

    /// The numbers of a tensor of I32, row by row whatever its shape.
    pub fn to_i32s(&self) -> Result<Vec<i32>, WireError> {
        if self.element != Element::I32 {
            let (name, element) = (self.name.clone(), self.element);
            return Err(WireError::WrongElement { name, element, expected: Element::I32 });
        }
        self.check_length()?;
        let (words, _) = self.bytes.as_chunks::<4>();
        Ok(words.iter().map(|word| i32::from_le_bytes(*word)).collect())
    }

    /// Bytes it adds to the payload.
    pub fn payload_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Refuses bytes that are not as many as shape and element say; libtorch would read past their end.
    pub(crate) fn check_length(&self) -> Result<(), WireError> {
        let expected = byte_length(&self.name, &self.shape, self.element)?;
        let length = self.payload_bytes();
        if length == expected {
            return Ok(());
        }
        let (name, shape, element) = (self.name.clone(), self.shape.clone(), self.element);
        Err(WireError::Length { name, shape, element, length, expected })
    }
}

impl fmt::Debug for WireTensor {
    // Without the bytes: there may be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireTensor({:?} {:?} {}{:?})", self.name, self.kind, self.element, self.shape)
    }
}

/// Bytes that a tensor of this shape has, or why there is none of this shape.
pub(super) fn byte_length(name: &str, shape: &[i64], element: Element) -> Result<u64, WireError> {
    if name.len() > NAME_BYTES || shape.len() > DIMENSIONS {
        return Err(WireError::TensorHeader { name: quote(name), length: name.len(), dimensions: shape.len() });
    }
    // A dimension of zero hides no other: libtorch multiplies them all, in i64.
    let length = shape.iter().try_fold(element.size() as u64, |length, dimension| {
        u64::try_from(*dimension).ok().and_then(|dimension| length.checked_mul(dimension.max(1)))
    });
    let length = length.filter(|length| i64::try_from(*length).is_ok()).ok_or_else(|| WireError::shape(name, shape))?;
    Ok(if shape.contains(&0) { 0 } else { length })
}

/// The tensor's elements, converted where it is and then brought to the CPU.
fn read_elements(tensor: &Tensor, element: Element) -> Result<Bytes, tch::TchError> {
    let tensor = converted(tensor, element)?;
    let width = element.kind().elt_size_in_bytes();
    let mut bytes = vec![0; tensor.numel() * width];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(narrow(bytes, width, element.size()).into())
}

/// As `element`, contiguous and on the CPU.
fn converted(tensor: &Tensor, element: Element) -> Result<Tensor, tch::TchError> {
    tensor.f_detach()?.f_to_kind(element.kind())?.f_to_device(Device::Cpu)?.f_contiguous()
}

/// Writes the rows of `tensor` `[rows, count]` as `element` into those rows of `into` that `rows` names, one by one, so that
/// nothing between the two holds a second copy.
pub(crate) fn write_rows(
    tensor: &Tensor,
    element: Element,
    rows: &[usize],
    into: &mut [u8],
) -> Result<(), tch::TchError> {
    let count = tensor.size()[1] as usize;
    let width = count * element.size();
    if element.kind().elt_size_in_bytes() == element.size() {
        let tensor = converted(tensor, element)?;
        for (i, row) in rows.iter().enumerate() {
            tensor.f_get(i as i64)?.f_copy_data_u8(&mut into[row * width..][..width], count)?;
        }
    } else {
        let bytes = read_elements(tensor, element)?;
        for (row, elements) in rows.iter().zip(bytes.chunks_exact(width)) {
            into[row * width..][..width].copy_from_slice(elements);
        }
    }
    Ok(())
}

/// Unsigned little-endian numbers of `size` bytes each in `width` bytes each.
fn widen(bytes: &[u8], size: usize, width: usize) -> Cow<'_, [u8]> {
    if size == width {
        return Cow::Borrowed(bytes);
    }
    let mut wide = vec![0; bytes.len() / size * width];
    for (wide, number) in wide.chunks_exact_mut(width).zip(bytes.chunks_exact(size)) {
        wide[..size].copy_from_slice(number);
    }
    Cow::Owned(wide)
}

/// The lower `size` bytes of little-endian numbers of `width` bytes each.
fn narrow(bytes: Vec<u8>, width: usize, size: usize) -> Vec<u8> {
    if size == width {
        return bytes;
    }
    bytes.chunks_exact(width).flat_map(|number| &number[..size]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(values: &[f32], shape: &[i64]) -> Tensor {
        Tensor::from_slice(values).reshape(shape)
    }

    #[test]
    fn every_element_type_comes_back_as_it_was() {
        for element in Element::ALL {
            let tensor = cpu(&[0.0, 1.0, 2.0, 3.0, 40.0, 127.0], &[2, 3]).to_kind(element.kind());
            let sent = WireTensor::from_tensor("t", PayloadKind::Adapter, &tensor, element).unwrap();
            assert_eq!(sent.bytes.len(), 6 * element.size());
            let back = sent.to_tensor(Device::Cpu).unwrap();
            assert_eq!((back.kind(), back.size()), (element.kind(), vec![2, 3]));
            assert!(back.equal(&tensor), "{element}");
        }
    }

    #[test]
    fn unsigned_numbers_keep_their_highest_bit() {
        for (element, most) in [(Element::U8, 255), (Element::U16, 65_535), (Element::U32, 4_294_967_295i64)] {
            let tensor = Tensor::from_slice(&[0, 1, most / 2 + 1, most]);
            let sent = WireTensor::from_tensor("t", PayloadKind::Logits, &tensor, element).unwrap();
            assert_eq!(sent.bytes.len(), 4 * element.size());
            let back: Vec<i64> = Vec::try_from(sent.to_tensor(Device::Cpu).unwrap().to_kind(Kind::Int64)).unwrap();
            assert_eq!(back, [0, 1, most / 2 + 1, most], "{element}");
        }
    }

    #[test]
    fn a_tensor_is_converted_and_laid_out_row_by_row() {
        let transposed = cpu(&[1.0, 2.0, 3.0, 4.0], &[2, 2]).transpose(0, 1).set_requires_grad(true);
        let sent = WireTensor::from_tensor("t", PayloadKind::Activation, &transposed, Element::BF16).unwrap();
        // 1, 3, 2, 4 as the upper halves of IEEE 754 single precision.
        assert_eq!(sent.bytes.as_ref(), [0x80, 0x3f, 0x40, 0x40, 0x00, 0x40, 0x80, 0x40]);
    }

    #[test]
    fn no_elements_and_no_dimensions_are_tensors_too() {
        for shape in [&[0][..], &[3, 0, 2]] {
            let empty = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
            let sent = WireTensor::from_tensor("t", PayloadKind::Logits, &empty, Element::F32).unwrap();
            assert!(sent.bytes.is_empty());
            assert_eq!(sent.to_tensor(Device::Cpu).unwrap().size(), shape);
        }
        let number = Tensor::from(2.5f32);
        let sent = WireTensor::from_tensor("t", PayloadKind::Logits, &number, Element::F32).unwrap();
        assert_eq!((sent.shape.len(), sent.bytes.len()), (0, 4));
        assert_eq!(f32::try_from(sent.to_tensor(Device::Cpu).unwrap()).unwrap().to_bits(), 2.5f32.to_bits());
    }

    #[test]
    fn numbers_come_back_as_they_were() {
        let numbers = [0, -1, i32::MAX, i32::MIN];
        let sent = WireTensor::from_i32s("labels", PayloadKind::Label, &numbers);
        assert_eq!(sent.to_i32s().unwrap(), numbers);
        let floats = WireTensor { element: Element::F32, ..sent };
        assert_eq!(floats.to_i32s().unwrap_err().to_string(), "tensor \"labels\" has elements of F32, expected I32");
    }

    #[test]
    fn bytes_that_the_shape_does_not_ask_for_never_reach_libtorch() {
        let whole = WireTensor::from_i32s("t", PayloadKind::Label, &[1, 2, 3, 4]);
        let short = WireTensor { bytes: whole.bytes.slice(..15), ..whole.clone() };
        assert_eq!(
            short.to_tensor(Device::Cpu).unwrap_err().to_string(),
            "tensor \"t\" of shape [4] and element I32 has 15 bytes, expected 16"
        );
        assert!(matches!(short.to_i32s(), Err(WireError::Length { .. })));
        for shape in [vec![-4], vec![1 << 40, 1 << 40], vec![i64::MAX, 2], vec![0, 1 << 40, 1 << 40]] {
            let odd = WireTensor { shape, ..whole.clone() };
            assert!(matches!(odd.to_tensor(Device::Cpu), Err(WireError::Shape { .. })), "{odd:?}");
        }
    }
}
