//! Products that everyone adds beside the base, and what has grown there, as wire tensors.
//! Must not add them up: the model does.

use fedtune_crds::report::PayloadKind;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::{
    checkpoint::Snapshot,
    frameworks::{
        FrameworkError,
        adapter::{describe, finite},
    },
    low_rank::LowRank,
    models::{Model, Residual},
    wire::{Element, Subject, WireTensor},
};

/// The factors of each target's product, A before B, in the adapter's order.
pub(super) fn write(model: &Model, products: &[LowRank]) -> Result<Vec<WireTensor>, FrameworkError> {
    let pairs = model.adapter().targets().iter().zip(products);
    let tensors =
        pairs.flat_map(|(target, product)| [tensor(target, "A", &product.down), tensor(target, "B", &product.up)]);
    tensors.collect()
}

fn tensor(target: &str, part: &str, values: &Tensor) -> Result<WireTensor, FrameworkError> {
    let name = format!("{target}.residual_{part}");
    Ok(WireTensor::from_tensor(name, PayloadKind::Adapter, values, Element::F32)?)
}

/// The products as [`write()`] wrote them, or none: one for each target, of any rank.
pub(super) fn read(model: &Model, tensors: &[WireTensor], who: &str) -> Result<Vec<LowRank>, FrameworkError> {
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let shapes = shapes(model);
    if tensors.len() != 2 * shapes.len() {
        let (got, expected) = (tensors.len(), 2 * shapes.len());
        return Err(FrameworkError::Count { who: who.into(), subject: Subject::Begin, got, expected });
    }
    let pairs = shapes.iter().zip(tensors.chunks_exact(2));
    pairs.map(|(shape, pair)| shape.read_pair(&pair[0], &pair[1], who, model.device())).collect()
}

/// Where a product belongs: module, inputs, outputs.
struct Place<'a> {
    target: &'a str,
    inputs: i64,
    outputs: i64,
}

fn shapes(model: &Model) -> Vec<Place<'_>> {
    let targets = model.adapter().targets().iter().zip(model.adapter().pairs());
    let places =
        targets.map(|(target, [a, b])| Place { target, inputs: a.tensor.size()[1], outputs: b.tensor.size()[0] });
    places.collect()
}

impl Place<'_> {
    fn read_pair(&self, a: &WireTensor, b: &WireTensor, who: &str, device: Device) -> Result<LowRank, FrameworkError> {
        // At least one row; as many rows as B has columns.
        let rank = a.shape.first().copied().unwrap_or(0).max(1);
        let down = self.read(a, "A", &[rank, self.inputs], who, device)?;
        Ok(LowRank { up: self.read(b, "B", &[self.outputs, rank], who, device)?, down })
    }

    fn read(
        &self,
        tensor: &WireTensor,
        part: &str,
        shape: &[i64],
        who: &str,
        device: Device,
    ) -> Result<Tensor, FrameworkError> {
        let name = format!("{}.residual_{part}", self.target);
        let expected = (&name[..], PayloadKind::Adapter, Element::F32, shape);
        if (&tensor.name[..], tensor.kind, tensor.element, &tensor.shape[..]) != expected {
            return Err(FrameworkError::Tensor {
                who: who.into(),
                got: describe(&tensor.name, tensor.kind, tensor.element, &tensor.shape),
                expected: describe(&name, PayloadKind::Adapter, Element::F32, shape),
            });
        }
        finite(tensor.to_tensor(device)?, who, &name)
    }
}

/// Words of a snapshot for the forms that a residual has.
const NONE: &str = "none";
const STACKED: &str = "stacked";
const DENSE: &str = "dense";

/// What is beside the base, to be kept.
pub(super) fn save(model: &Model) -> Result<Snapshot, FrameworkError> {
    let (mut forms, mut tensors) = (Vec::new(), Vec::new());
    for (target, residual) in model.adapter().targets().iter().zip(model.residuals()) {
        forms.push(match residual {
            None => NONE,
            Some(Residual::Stacked(sum)) => {
                tensors.extend([tensor(target, "A", &sum.down)?, tensor(target, "B", &sum.up)?]);
                STACKED
            }
            Some(Residual::Dense(matrix)) => {
                tensors.push(tensor(target, "dense", matrix)?);
                DENSE
            }
        });
    }
    Ok(Snapshot { fields: json!({ "residuals": forms }), tensors })
}

/// What [`save`] kept.
pub(super) fn restore(model: &Model, saved: &Snapshot) -> Result<Vec<Option<Residual>>, FrameworkError> {
    const WHO: &str = "the checkpoint";
    let mut tensors = saved.tensors.iter();
    let mut next = || {
        let (got, expected) = (saved.tensors.len(), saved.tensors.len() + 1);
        tensors.next().ok_or(FrameworkError::Count { who: WHO.into(), subject: Subject::Replay, got, expected })
    };
    let forms = saved.fields["residuals"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut residuals = Vec::new();
    for (index, place) in shapes(model).iter().enumerate() {
        residuals.push(match forms.get(index).and_then(Value::as_str).unwrap_or(NONE) {
            STACKED => Some(Residual::Stacked(place.read_pair(next()?, next()?, WHO, model.device())?)),
            DENSE => {
                let shape = [place.outputs, place.inputs];
                Some(Residual::Dense(place.read(next()?, "dense", &shape, WHO, model.device())?))
            }
            _none => None,
        });
    }
    Ok(residuals)
}
