//! The moments at which steps ended, told by the trainer's own events.
//! Must not count a step before the warm-up is over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use fedtune::events::{Event, Events};

/// Hears the ends of one worker's steps.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    worker: &'static str,
    moments: Arc<Mutex<Vec<Instant>>>,
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
                moments.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            }
            _ => {}
        })
    }

    /// Seconds from the end of each step to the end of the next, without the first `warmup`.
    pub(super) fn seconds(&self, warmup: usize) -> Vec<f64> {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        moments.windows(2).skip(warmup).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}
