//! Logits from one model thread to another as a whole: what a client writes and whoever gets them reads.
//! Must not have a way of its own: it is the two halves' code, for whoever measures it.

use tch::{Device, Tensor};

use super::{
    layout::Layout,
    logits::{CHUNK, Logits, Sheet},
};
use crate::{
    frameworks::FrameworkError,
    wire::{Message, WireError, WireTensor},
};

/// Tensors as they travel of `layout.reads` states, whose logits are those of `batch` `[rows, classes]`, F32 and finite,
/// again and again.
pub fn write_logits(layout: Layout, temperature: f64, batch: &Tensor) -> Result<Vec<WireTensor>, WireError> {
    let mut sheet = Sheet::blank(layout, temperature);
    let reads: Vec<usize> = (0..layout.reads).collect();
    for reads in reads.chunks(batch.size()[0] as usize) {
        sheet.write(reads, &batch.narrow(0, 0, reads.len() as i64))?;
    }
    Ok(sheet.finish())
}

/// Checks the logits in `message` and reads back what every state has for every class, some states at a time; gives how
/// many were read.
pub fn read_logits(message: &Message, layout: Layout, who: &str) -> Result<usize, FrameworkError> {
    let logits = Logits::read(message, layout, who)?;
    let reads: Vec<usize> = (0..layout.reads).collect();
    let rows = reads.chunks(CHUNK).map(|reads| Ok(logits.rows(reads, Device::Cpu)?.size()[0] as usize));
    rows.sum()
}
