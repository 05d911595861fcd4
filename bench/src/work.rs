//! What our side does in a process of its own: one piece of work, one line of JSON.
//! Must not compare: the other side is another process.
//!
//! | file | one thing |
//! |---|---|
//! | `steps.rs` | local training steps of one model |
//! | `split.rs` | steps of a split run over loopback |
//! | `first_step.rs` | from nothing to the first step |
//! | `job.rs` | a whole federated run, as one program or as five |
//! | `logits.rs` | logits written, sent, checked and read |
//! | `aggregation.rs` | many clients' adapters into one |
//! | `clock.rs` | the moments at which steps ended |
//! | `corpus.rs` | made-up examples, with lengths as real texts have them |
//! | `gpt2.rs` | a GPT-2 small of random weights |

use clap::Subcommand;
use serde_json::Value;

use crate::error::BenchError;

pub(crate) mod aggregation;
mod clock;
mod corpus;
mod first_step;
pub(crate) mod gpt2;
mod job;
mod logits;
mod places;
mod split;
pub(crate) mod steps;

/// A piece of work.
#[derive(Debug, Subcommand)]
pub(crate) enum Work {
    /// Local training steps.
    Step(steps::StepArgs),
    /// Steps of a split run.
    SplitStep(split::SplitArgs),
    /// From the start of the process to the end of the first step of a federated run.
    FirstStep,
    /// A federated run in one process.
    Job(job::JobArgs),
    /// The same run as a server and clients of their own.
    Apart(job::JobArgs),
    /// Logits from one model thread to another.
    Logits(logits::LogitsArgs),
    /// The server's mean of many adapters.
    Aggregation(aggregation::AggregationArgs),
}

/// Does it, and says what it took.
pub(crate) fn run(work: &Work) -> Result<Value, BenchError> {
    match work {
        Work::Step(arguments) => steps::run(arguments),
        Work::SplitStep(arguments) => split::run(arguments),
        Work::FirstStep => first_step::run(),
        Work::Job(arguments) => job::together(arguments),
        Work::Apart(arguments) => job::apart(arguments),
        Work::Logits(arguments) => logits::run(arguments),
        Work::Aggregation(arguments) => aggregation::run(arguments),
    }
}
