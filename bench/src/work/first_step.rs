//! From nothing to the end of the first local step of a federated run: what a user waits for.
//! Must not skip what a run does before: spec, base, tokenizer, data, server, session.

use std::process;

use fedtune::{
    events::{Event, Events},
    meter::peak_memory_bytes,
    plan::Plan,
    run::{
        local::{self, Kept},
        materials::Shelf,
    },
    sources::Access,
};
use fedtune_crds::load;
use serde_json::{Value, json};

use super::job::{JobArgs, prepare};
use crate::{error::BenchError, process::seconds_since_start};

/// Ends this process at the end of the first step: what comes after it is nothing that a user waits for.
pub(super) fn run() -> Result<Value, BenchError> {
    let events = Events::to(|event| {
        if let Event::StepFinished { .. } = event {
            let said = json!({"sinceStart": seconds_since_start(), "peakBytes": peak_memory_bytes()});
            println!("{said}");
            process::exit(0);
        }
    });
    let job = JobArgs { clients: 1, rounds: 1, local_steps: 1, batch: 16, seq: 64, threads: 2 };
    let prepared = prepare(&job)?;
    let yaml =
        std::fs::read_to_string(&prepared.spec).map_err(|error| BenchError::io("the spec cannot be read", error))?;
    let plan = Plan::of(&load(&yaml, &[]).map_err(BenchError::trainer)?).map_err(BenchError::trainer)?;
    let mut shelf = Shelf::new(None, Access::from_environment(), events.clone());
    let materials = shelf.take(&plan).map_err(BenchError::trainer)?;
    local::run(&plan, &materials, Kept::Nowhere, &events).map_err(BenchError::trainer)?;
    Err(BenchError::Trainer("the run ended without a step".to_owned()))
}
