//! Adapters as wire tensors: written in the adapter's order, read back only when names and shapes agree.
//! Must not average or train.

use fedtune_crds::report::PayloadKind;
use tch::{Device, Tensor};

use super::FrameworkError;
use crate::{
    local::Recipe,
    models::{LinearShape, LoraSettings, Model, ModelShape, Parameter, ParameterKind, Part},
    wire::{Element, Message, Subject, WireTensor, quote},
};

/// The parameters of `part`, in F32.
pub(super) fn write(model: &Model, part: Part) -> Result<Vec<WireTensor>, FrameworkError> {
    model.adapter().part(part).into_iter().map(|p| write_as(p, &p.tensor)).collect()
}

/// What goes to every client of a round, encoded once: further clients share its bytes.
#[derive(Debug, Default)]
pub(super) struct Broadcast(Option<(u32, Vec<WireTensor>)>);

impl Broadcast {
    /// The parameters of `part` as they stood when this round first asked for them.
    pub(super) fn of(&mut self, round: u32, model: &Model, part: Part) -> Result<Vec<WireTensor>, FrameworkError> {
        match &self.0 {
            Some((written, tensors)) if *written == round => Ok(tensors.clone()),
            Some(_) | None => Ok(self.0.insert((round, write(model, part)?)).1.clone()),
        }
    }
}

/// A classifier's head, in F32; nothing of a language model.
pub(super) fn write_head(model: &Model) -> Result<Vec<WireTensor>, FrameworkError> {
    model.adapter().head_parameters().iter().map(|p| write_as(p, &p.tensor)).collect()
}

/// `values` in the place of a parameter, of any rank, in F32.
pub(super) fn write_as(parameter: &Parameter, values: &Tensor) -> Result<WireTensor, FrameworkError> {
    Ok(WireTensor::from_tensor(&parameter.name, payload_kind(parameter), &values.detach(), Element::F32)?)
}

/// Gradients in the order of the whole adapter, in F32.
pub(super) fn write_gradients(model: &Model, gradients: &[Tensor]) -> Result<Vec<WireTensor>, FrameworkError> {
    let parameters = model.adapter().part(Part::Whole).into_iter().zip(gradients);
    let write =
        |(p, g): (&Parameter, &Tensor)| WireTensor::from_tensor(&p.name, PayloadKind::Gradient, g, Element::F32);
    Ok(parameters.map(write).collect::<Result<_, _>>()?)
}

/// Who sent tensors, and in which message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    who: &'a str,
    subject: Subject,
}

impl<'a> Origin<'a> {
    pub(super) fn of(message: &Message, who: &'a str) -> Self {
        Self { who, subject: message.subject }
    }
}

/// The tensors of `message`, which must be those of `part`: same names, kinds and shapes, finite.
pub(super) fn read(
    model: &Model,
    part: Part,
    message: &Message,
    who: &str,
    kind: impl Fn(&Parameter) -> PayloadKind,
) -> Result<Vec<Tensor>, FrameworkError> {
    let expected = |parameter: &Parameter| (kind(parameter), parameter.tensor.size());
    let parameters = model.adapter().part(part);
    read_all(&parameters, &message.tensors, Origin::of(message, who), model.device(), expected)
}

/// The parameters of a whole adapter as [`write()`] wrote them into a checkpoint of this run.
pub(super) fn read_saved(model: &Model, tensors: &[WireTensor]) -> Result<Vec<Tensor>, FrameworkError> {
    read_these(model, tensors, Origin { who: "the checkpoint", subject: Subject::Replay })
}

/// Reads parameters of `part` as [`write()`] wrote them.
pub(super) fn read_parameters(
    model: &Model,
    part: Part,
    message: &Message,
    who: &str,
) -> Result<Vec<Tensor>, FrameworkError> {
    read(model, part, message, who, payload_kind)
}

/// Reads a whole adapter, where it is not all of a message.
pub(super) fn read_these(
    model: &Model,
    tensors: &[WireTensor],
    origin: Origin<'_>,
) -> Result<Vec<Tensor>, FrameworkError> {
    let expected = |parameter: &Parameter| (payload_kind(parameter), parameter.tensor.size());
    read_all(&model.adapter().part(Part::Whole), tensors, origin, model.device(), expected)
}

/// Refuses what is not a whole adapter of this rank, or with `kind` its gradients, in finite numbers; the bytes stay as
/// they came.
pub(super) fn check_at_rank(
    model: &Model,
    rank: usize,
    message: &Message,
    who: &str,
    kind: impl Fn(&Parameter) -> PayloadKind,
) -> Result<(), FrameworkError> {
    let expected = |parameter: &Parameter| (kind(parameter), parameter.shape_at(rank));
    let parameters = model.adapter().part(Part::Whole);
    check_all(&parameters, &message.tensors, Origin::of(message, who), expected)
}

/// Reads a classifier's head; nothing of a language model.
pub(super) fn read_head(
    model: &Model,
    tensors: &[WireTensor],
    origin: Origin<'_>,
) -> Result<Vec<Tensor>, FrameworkError> {
    let expected = |parameter: &Parameter| (payload_kind(parameter), parameter.tensor.size());
    let parameters: Vec<&Parameter> = model.adapter().head_parameters().iter().collect();
    read_all(&parameters, tensors, origin, model.device(), expected)
}

fn read_all(
    parameters: &[&Parameter],
    tensors: &[WireTensor],
    origin: Origin<'_>,
    device: Device,
    expected: impl Fn(&Parameter) -> (PayloadKind, Vec<i64>),
) -> Result<Vec<Tensor>, FrameworkError> {
    check_all(parameters, tensors, origin, expected)?;
    tensors.iter().map(|tensor| Ok(tensor.to_tensor(device)?)).collect()
}

fn check_all(
    parameters: &[&Parameter],
    tensors: &[WireTensor],
    origin: Origin<'_>,
    expected: impl Fn(&Parameter) -> (PayloadKind, Vec<i64>),
) -> Result<(), FrameworkError> {
    let Origin { who, subject } = origin;
    if tensors.len() != parameters.len() {
        let (got, expected) = (tensors.len(), parameters.len());
        return Err(FrameworkError::Count { who: who.into(), subject, got, expected });
    }
    let mut pairs = parameters.iter().zip(tensors);
    pairs.try_for_each(|(parameter, tensor)| check_one(&parameter.name, tensor, who, expected(parameter)))
}

fn check_one(
    name: &str,
    tensor: &WireTensor,
    who: &str,
    (kind, shape): (PayloadKind, Vec<i64>),
) -> Result<(), FrameworkError> {
    if (&tensor.name[..], tensor.kind, tensor.element, &tensor.shape) != (name, kind, Element::F32, &shape) {
        return Err(FrameworkError::Tensor {
            who: who.into(),
            got: describe(&tensor.name, tensor.kind, tensor.element, &tensor.shape),
            expected: describe(name, kind, Element::F32, &shape),
        });
    }
    tensor.check_length()?;
    if holds_numbers(&tensor.bytes) {
        return Ok(());
    }
    Err(FrameworkError::NotFinite { who: who.into(), name: name.into() })
}

/// Whether every F32 in these bytes is a number. Without an early end, so that many are looked at at once.
pub(super) fn holds_numbers(bytes: &[u8]) -> bool {
    bytes.as_chunks::<4>().0.iter().fold(true, |finite, number| finite & f32::from_le_bytes(*number).is_finite())
}

/// A tensor as a sentence names it; a peer's words are cut.
pub(super) fn describe(name: &str, kind: PayloadKind, element: Element, shape: &[i64]) -> String {
    let (name, shape) = (quote(name), &shape[..shape.len().min(8)]);
    format!("{name} ({}, {element:?}, shape {shape:?})", kind.as_str())
}

/// Refuses values that are no numbers.
pub(super) fn finite(tensor: Tensor, who: &str, name: &str) -> Result<Tensor, FrameworkError> {
    if is_finite(&tensor) { Ok(tensor) } else { Err(FrameworkError::NotFinite { who: who.into(), name: name.into() }) }
}

/// Whether every value is a number.
pub(super) fn is_finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) != 0
}

/// Overwrites the parameters of `part`.
pub(super) fn assign(model: &Model, part: Part, values: &[Tensor]) {
    let _no_graph = tch::no_grad_guard();
    for (parameter, value) in model.adapter().part(part).into_iter().zip(values) {
        parameter.tensor.shallow_clone().copy_(value);
    }
}

/// Overwrites a classifier's head.
pub(super) fn assign_head(model: &Model, values: &[Tensor]) {
    let _no_graph = tch::no_grad_guard();
    for (parameter, value) in model.adapter().head_parameters().iter().zip(values) {
        parameter.tensor.shallow_clone().copy_(value);
    }
}

/// Copies of the parameters of `part`, cut off from any graph.
pub(super) fn snapshot(model: &Model, part: Part) -> Vec<Tensor> {
    model.adapter().part(part).into_iter().map(|p| p.tensor.detach().copy()).collect()
}

/// Adapter or head, as the report counts it.
pub(crate) fn payload_kind(parameter: &Parameter) -> PayloadKind {
    match parameter.kind {
        ParameterKind::Adapter => PayloadKind::Adapter,
        ParameterKind::Head => PayloadKind::Head,
    }
}

/// Bytes of an adapter over `part` by TRAINER's formula: 4 r (in + out) over its modules.
pub(super) fn adapter_bytes(shape: &ModelShape, recipe: &Recipe, part: Part) -> u64 {
    let lora = &recipe.lora;
    let linears = shape.linears();
    let targets = linears.iter().filter(|l| lora.targets(&l.name) && part.holds(l.block));
    targets.map(|l| lora_bytes(lora.rank, l.inputs, l.outputs)).sum()
}

/// Which matrices of a pair travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matrices {
    /// A and B.
    Both,
    /// B alone.
    B,
}

/// Bytes of the pairs of a whole model: 4 r (in + out) over its modules, or 4 r out.
pub(super) fn matrix_bytes(shape: &ModelShape, lora: &LoraSettings, matrices: Matrices) -> u64 {
    let linears = shape.linears();
    let targets = linears.iter().filter(|l| lora.targets(&l.name));
    let bytes = |linear: &LinearShape| match matrices {
        Matrices::Both => lora_bytes(lora.rank, linear.inputs, linear.outputs),
        Matrices::B => lora_bytes(lora.rank, 0, linear.outputs),
    };
    targets.map(bytes).sum()
}

/// Bytes of one LoRA pair, A: `[rank, inputs]` and B: `[outputs, rank]`, in F32.
pub(super) fn lora_bytes(rank: usize, inputs: usize, outputs: usize) -> u64 {
    4 * (rank * (inputs + outputs)) as u64
}

/// Bytes of a classifier's head; a language model's is not trained.
pub(super) fn head_bytes(shape: &ModelShape, recipe: &Recipe) -> u64 {
    4 * recipe.head.trained(shape) as u64
}
