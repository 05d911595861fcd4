//! The moments at which steps ended, told by the trainer's own events.
//! Must not count a step before the warm-up is over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use fedtune::events::{Event, Events};

use crate::process::own_cpu_seconds;

/// When a step ended, and the CPU seconds of this process until then.
type Moment = (Instant, f64);

/// Hears the ends of one worker's steps.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    worker: &'static str,
    moments: Arc<Mutex<Vec<Moment>>>,
}

impl Clock {
    /// Listens to this worker.
    pub(super) fn of(worker: &'static str) -> Self {
        Self { worker, moments: Arc::default() }
    }

    /// To be told to.
    pub(super) fn events(&self) -> Events {
        let Self { worker, moments } = self.clone();
        Events::to(move |event| match event {
            Event::StepFinished { worker: who } if who == worker => {
                moments.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), own_cpu_seconds()));
            }
            _ => {}
        })
    }

    /// Seconds from the end of each step to the end of the next, without the first `warmup`.
    pub(super) fn seconds(&self, warmup: usize) -> Vec<f64> {
        self.between(warmup, |(from, _), (to, _)| (to - from).as_secs_f64())
    }

    /// The mean of the same in CPU seconds of all threads, which other programs of the machine hardly change.
    pub(super) fn mean_cpu_seconds(&self, warmup: usize) -> f64 {
        let each = self.between(warmup, |(_, from), (_, to)| to - from);
        each.iter().sum::<f64>() / each.len().max(1) as f64
    }

    fn between(&self, warmup: usize, taken: impl Fn(Moment, Moment) -> f64) -> Vec<f64> {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.windows(2).skip(warmup).map(|pair| taken(pair[0], pair[1])).collect()
    }
}
