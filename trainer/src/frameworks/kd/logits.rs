//! Logits as they travel: written batch by batch, checked when they come, read back some rows at a time.
//! Must not hold a row of every class for the whole public set, unless all of them travel.
//!
//! Top-k: of each read state the k largest of `log_softmax(z / T)` (of equal ones those of the smaller classes), F16, in
//! rising order of their classes, and these classes. Read back, what is missing to one, `1 - sum exp`, is spread evenly
//! over the other classes. F16 rounding hides a rest below 2^-24; the rest is never taken for less, so that its logarithm
//! is a number.

use fedtune_crds::report::PayloadKind;
use tch::{Device, Kind, Tensor};
use thiserror::Error;

use super::layout::{Form, Layout};
use crate::{
    frameworks::{
        FrameworkError,
        adapter::{describe, holds_numbers, is_finite},
    },
    wire::{Element, Message, WireError, WireTensor, write_rows},
};

/// Read states that are worked on at a time: a vocabulary is wide.
pub(super) const CHUNK: usize = 128;

/// Least finite half float: nothing smaller can be sent.
const LEAST_VALUE: f64 = -65_504.0;

/// What the rest of a row's mass is taken for at least.
const LEAST_REST: f64 = 1.0 / (1 << 24) as f64;

/// `log_softmax(z / temperature)` of `[rows, classes]`, F32.
pub fn soften(z: &Tensor, temperature: f64) -> Tensor {
    (z / temperature).log_softmax(-1, Kind::Float)
}

/// Logits in the making, as the bytes that will travel.
pub(super) struct Sheet {
    layout: Layout,
    temperature: f64,
    /// Values, then classes where they travel.
    columns: Vec<Column>,
}

/// One number or one class for each logit that travels.
struct Column {
    name: &'static str,
    element: Element,
    /// In each row.
    count: usize,
    bytes: Vec<u8>,
}

impl Sheet {
    pub(super) fn blank(layout: Layout, temperature: f64) -> Self {
        let columns = expected(layout).into_iter().map(|(name, element, count)| {
            let bytes = vec![0; layout.reads * count * element.size()];
            Column { name, element, count, bytes }
        });
        Self { layout, temperature, columns: columns.collect() }
    }

    /// Writes logits `z` `[reads, classes]`, F32 and finite, as those of these read states.
    pub(super) fn write(&mut self, reads: &[usize], z: &Tensor) -> Result<(), WireError> {
        let tensors = match self.layout.form {
            Form::Dense => vec![z.shallow_clone()],
            Form::TopK(k) => {
                let log_p = soften(z, self.temperature);
                let classes = largest(&log_p, k);
                vec![log_p.gather(1, &classes, false).clamp(LEAST_VALUE, 0.0), classes]
            }
        };
        for (column, tensor) in self.columns.iter_mut().zip(&tensors) {
            write_rows(tensor, column.element, reads, &mut column.bytes)
                .map_err(|reason| WireError::libtorch(column.name, &reason))?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<WireTensor> {
        let reads = self.layout.reads as i64;
        let tensor = |Column { name, element, count, bytes }| WireTensor {
            name: String::from(name),
            kind: PayloadKind::Logits,
            element,
            shape: vec![reads, count as i64],
            bytes: bytes.into(),
        };
        self.columns.into_iter().map(tensor).collect()
    }
}

/// Name, element and count in each row of the tensors that travel.
fn expected(layout: Layout) -> Vec<(&'static str, Element, usize)> {
    match layout.form {
        Form::Dense => vec![("logits", Element::F32, layout.classes)],
        Form::TopK(k) => vec![("logits", Element::F16, k), ("classes", layout.index(), k)],
    }
}

/// The classes of the k largest of each row of `log_p` `[rows, classes]`, rising: `[rows, k]`, i64.
fn largest(log_p: &Tensor, k: usize) -> Tensor {
    let [rows, classes] = [0, 1].map(|dimension| log_p.size()[dimension]);
    let mut chosen = Vec::with_capacity(rows as usize * k);
    for row in numbers(log_p).chunks_exact(classes as usize) {
        choose(row, k, &mut chosen);
    }
    Tensor::from_slice(&chosen).view([rows, k as i64]).to_device(log_p.device())
}

/// The classes of the k largest of `row`, of equal ones the smaller, rising. Few of a vocabulary are looked at twice.
fn choose(row: &[f32], k: usize, chosen: &mut Vec<i64>) {
    let bound = bound(row, k);
    let candidates: Vec<usize> = (0..row.len()).filter(|&class| row[class] >= bound).collect();
    let mut values: Vec<f32> = candidates.iter().map(|&class| row[class]).collect();
    let place = values.len() - k;
    let (_, &mut least, more) = values.select_nth_unstable_by(place, f32::total_cmp);
    let mut missing = k - more.iter().filter(|value| **value > least).count();
    for class in candidates {
        if row[class] > least {
            chosen.push(class as i64);
        } else if row[class] >= least && missing > 0 {
            chosen.push(class as i64);
            missing -= 1;
        }
    }
}

/// No more than the k-th largest of `row`: the least of the maxima of k pieces, each of which has one that is no less.
fn bound(row: &[f32], k: usize) -> f32 {
    row.chunks(row.len() / k).take(k).map(maximum).fold(f32::INFINITY, f32::min)
}

/// In lanes, so that several numbers are compared at once.
fn maximum(numbers: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let (lanes, rest) = numbers.as_chunks::<16>();
    let mut maxima = [f32::NEG_INFINITY; 16];
    for lane in lanes {
        for (maximum, &number) in maxima.iter_mut().zip(lane) {
            *maximum = greater(number, *maximum);
        }
    }
    maxima.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, greater)
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1)).expect("a flat tensor of F32 is a list of f32")
}

/// Checked logits of one model on the public set, kept as they travelled.
#[derive(Debug, Clone)]
pub(super) struct Logits {
    layout: Layout,
    tensors: Vec<WireTensor>,
}

impl Logits {
    /// The logits in a message, which must be what `layout` says, every value of them possible.
    pub(super) fn read(message: &Message, layout: Layout, who: &str) -> Result<Self, FrameworkError> {
        let expected = expected(layout);
        if message.tensors.len() != expected.len() {
            let (got, expected) = (message.tensors.len(), expected.len());
            return Err(FrameworkError::Count { who: who.into(), subject: message.subject, got, expected });
        }
        for (tensor, (name, element, count)) in message.tensors.iter().zip(expected) {
            let shape = [layout.reads as i64, count as i64];
            if (tensor.kind, tensor.element, &tensor.shape[..]) != (PayloadKind::Logits, element, &shape[..]) {
                return Err(FrameworkError::Tensor {
                    who: who.into(),
                    got: describe(name, tensor.kind, tensor.element, &tensor.shape),
                    expected: describe(name, PayloadKind::Logits, element, &shape),
                });
            }
            tensor.check_length()?;
        }
        let logits = Self { layout, tensors: message.tensors.clone() };
        logits.check(who)?;
        Ok(logits)
    }

    fn check(&self, who: &str) -> Result<(), FrameworkError> {
        let not_finite = || FrameworkError::NotFinite { who: who.into(), name: "logits".into() };
        let k = match self.layout.form {
            Form::Dense if holds_numbers(&self.tensors[0].bytes) => return Ok(()),
            Form::Dense => return Err(not_finite()),
            Form::TopK(k) => k,
        };
        let reads: Vec<usize> = (0..self.layout.reads).collect();
        for reads in reads.chunks(CHUNK) {
            let values = self.pick(0, reads, Device::Cpu)?;
            if !is_finite(&values) {
                return Err(not_finite());
            }
            let (values, classes) = (numbers(&values.to_kind(Kind::Float)), self.classes(reads, Device::Cpu)?);
            let classes: Vec<i64> =
                Vec::try_from(classes.flatten(0, -1)).expect("a flat tensor of i64 is a list of i64");
            let rows = values.chunks_exact(k).zip(classes.chunks_exact(k)).zip(reads);
            for ((values, classes), &read) in rows {
                check_row(values, classes, self.layout.classes).map_err(|wrong| FrameworkError::Logits {
                    who: who.into(),
                    read,
                    wrong,
                })?;
            }
        }
        Ok(())
    }

    /// By what the logits of [`Logits::rows`] are still to be divided, in a run of this temperature.
    pub(super) fn temperature(&self, of_run: f64) -> f64 {
        match self.layout.form {
            Form::Dense => of_run,
            Form::TopK(_) => 1.0,
        }
    }

    /// What these read states have for every class, `[reads, classes]`, F32: the logits, or of top-k their softened
    /// log-probabilities, which are logits too.
    pub(super) fn rows(&self, reads: &[usize], device: Device) -> Result<Tensor, WireError> {
        let values = self.pick(0, reads, device)?;
        match self.layout.form {
            Form::Dense => Ok(values),
            Form::TopK(k) => Ok(spread(&values, &self.classes(reads, device)?, self.layout.classes - k)),
        }
    }

    /// `[reads, k]`, i64.
    fn classes(&self, reads: &[usize], device: Device) -> Result<Tensor, WireError> {
        Ok(self.pick(1, reads, device)?.to_kind(Kind::Int64))
    }

    /// These rows of one of the tensors, `[reads, count]`.
    fn pick(&self, tensor: usize, reads: &[usize], device: Device) -> Result<Tensor, WireError> {
        let whole = &self.tensors[tensor];
        let count = whole.shape[1];
        let width = count as usize * whole.element.size();
        let bytes = match (reads.first(), reads.is_sorted_by(|one, next| one + 1 == *next)) {
            // As they lie: nothing is copied.
            (Some(first), true) => whole.bytes.slice(first * width..(first + reads.len()) * width),
            _ => reads.iter().map(|read| &whole.bytes[read * width..][..width]).collect::<Vec<_>>().concat().into(),
        };
        WireTensor { shape: vec![reads.len() as i64, count], bytes, ..whole.clone() }.to_tensor(device)
    }
}

/// The k values and classes of each row, both `[rows, k]`, and an even share of the rest for the `others`:
/// `[rows, k + others]`, F32.
fn spread(values: &Tensor, classes: &Tensor, others: usize) -> Tensor {
    let k = values.size()[1];
    let mass = values.to_kind(Kind::Double).exp().sum_dim_intlist([-1i64].as_slice(), true, Kind::Double); // [rows, 1]
    let share = (-mass + 1.0).clamp_min(LEAST_REST) / others.max(1) as f64;
    let even = share.log().to_kind(Kind::Float).repeat([1, k + others as i64]); // [rows, classes]
    even.scatter(1, classes, &values.to_kind(Kind::Float))
}

/// What is wrong with the logits of a read state.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RowError {
    /// A class that there is not.
    #[error("names class {got}; there are {classes}, from 0")]
    Class {
        /// Which.
        got: i64,
        /// How many there are.
        classes: usize,
    },
    /// A class that stands twice, or not in its place.
    #[error("names class {second} after class {first}; classes rise and none stands twice")]
    Order {
        /// One.
        first: i64,
        /// The next.
        second: i64,
    },
    /// A probability above one.
    #[error("has a log-probability of {0}; none is above 0")]
    Positive(f32),
    /// Probabilities of more than one together.
    #[error("has probabilities that add up to {0}; they are at most 1 together")]
    Mass(f64),
}

/// `values` are finite.
fn check_row(values: &[f32], classes: &[i64], all: usize) -> Result<(), RowError> {
    if let Some(&got) = classes.iter().find(|class| !(0..all as i64).contains(*class)) {
        return Err(RowError::Class { got, classes: all });
    }
    if let Some(pair) = classes.windows(2).find(|pair| pair[0] >= pair[1]) {
        return Err(RowError::Order { first: pair[0], second: pair[1] });
    }
    if let Some(&value) = values.iter().find(|value| **value > 0.0) {
        return Err(RowError::Positive(value));
    }
    let mass: f64 = values.iter().map(|value| f64::from(*value).exp()).sum();
    if mass > 1.0 + tolerance(values.len()) { Err(RowError::Mass(mass)) } else { Ok(()) }
}

/// How far above one rounding to F16 brings the sum of k probabilities: a value v moves by at most |v| 2^-11, so the sum
/// by at most 2^-11 times the entropy, which is at most ln k; twice that, and as much again for k = 1.
fn tolerance(k: usize) -> f64 {
    (1.0 + (k as f64).ln()) / 1024.0
}

#[cfg(test)]
mod tests;
