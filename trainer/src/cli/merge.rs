//! `fedtune merge`.
//! Must not overwrite a model.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{CONFIGURATION, SUCCESS, base::BaseArgs, complain};
use crate::{
    events::Events,
    merge::{Merge, SHARD_BYTES},
    models::Precision,
    report::units,
};

/// Arguments of `fedtune merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Folder of the adapter, as `out/<run>/adapter`, or one that PEFT wrote.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    #[command(flatten)]
    base: BaseArgs,
    /// Folder that the merged model is written to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Type of the merged weights; by default that of the base's, and BF16 where those are quantised.
    #[arg(long, value_enum, value_name = "TYPE")]
    precision: Option<Element>,
}

/// The types that a model is written in.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Element {
    /// 32-bit floats: the merged model computes what base and adapter compute.
    F32,
    /// 16-bit brain floats: half the size, and weights are rounded to 8 bits.
    Bf16,
}

/// Merges, and says what lies where.
pub(super) fn merge(arguments: &MergeArgs, events: &Events) -> u8 {
    let MergeArgs { adapter, base, out, precision } = arguments;
    let precision = precision.map(|element| match element {
        Element::F32 => Precision::F32,
        Element::Bf16 => Precision::BF16,
    });
    let base = match base.bring(adapter, events) {
        Ok(base) => base,
        Err(error) => return complain(&error, error.code()),
    };
    let merge = Merge { adapter, base: base.as_deref(), out, precision, shard_bytes: SHARD_BYTES };
    match merge.run() {
        Ok(merged) => {
            let (changed, tensors, bytes) = (merged.changed, merged.tensors, units::bytes(merged.bytes as f64));
            println!("{}: {tensors} tensors, {bytes}, {changed} of them with the adapter in them", out.display());
            SUCCESS
        }
        Err(error) => complain(error, CONFIGURATION),
    }
}
