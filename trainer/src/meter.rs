//! What one worker (a client, or the server) did: operations, seconds, steps, tokens; and its share of the cores.
//! Must not decide anything that a bit depends on: how many workers run at once changes seconds, never results.

use std::{
    cell::Cell,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Instant,
};

use fedtune_crds::report::{Flops, Seconds, TokenCount};
use serde::{Deserialize, Serialize};

use crate::{
    events::{Event, Events},
    kernels,
};

/// Figures of one worker since the start of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Meter {
    /// Floating point operations by phase.
    pub flops: Flops,
    /// Seconds by activity.
    pub seconds: Seconds,
    /// Optimizer steps.
    pub steps: u64,
    /// Tokens that went through the model in training.
    pub tokens: TokenCount,
}

impl Meter {
    /// Whether a peer that says this of itself may be right: no figure is negative or out of any machine's reach, so
    /// that sums of many stay numbers.
    pub fn could_be(&self) -> bool {
        let Self { flops, seconds, steps, tokens } = self;
        let flops = [flops.train, flops.public_forward, flops.distill, flops.evaluate];
        let seconds = [seconds.compute, seconds.encode, seconds.network, seconds.wait];
        flops.iter().all(|flops| (0.0..1e30).contains(flops))
            && seconds.iter().all(|seconds| (0.0..1e12).contains(seconds))
            && [*steps, tokens.real, tokens.padding].iter().all(|count| *count < 1 << 50)
    }

    /// The figures of two workers together.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        self.flops.train += other.flops.train;
        self.flops.public_forward += other.flops.public_forward;
        self.flops.distill += other.flops.distill;
        self.flops.evaluate += other.flops.evaluate;
        self.seconds.compute += other.seconds.compute;
        self.seconds.encode += other.seconds.encode;
        self.seconds.network += other.seconds.network;
        self.seconds.wait += other.seconds.wait;
        self.steps += other.steps;
        self.tokens.real += other.tokens.real;
        self.tokens.padding += other.tokens.padding;
        self
    }
}

/// The cores that model threads share: a worker computes only while it holds one of the slots.
#[derive(Debug, Clone)]
pub struct Slots {
    free: Arc<(Mutex<usize>, Condvar)>,
    /// Threads of each worker. libtorch's matrix kernels ask the calling thread, so each is told before it computes.
    threads: usize,
}

impl Slots {
    /// `count` workers of `threads` threads may compute at once; at least one of each.
    pub fn new(count: usize, threads: usize) -> Self {
        kernels::choose();
        Self { free: Arc::new((Mutex::new(count.max(1)), Condvar::new())), threads: threads.max(1) }
    }

    /// As many slots as this machine has room for workers of `threads` threads.
    pub fn of_this_machine(threads: usize) -> Self {
        Self::new(num_cpus::get() / threads.max(1), threads)
    }

    fn take(&self) -> Slot<'_> {
        let (free, freed) = &*self.free;
        let free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        drop(free);
        self.set_threads();
        Slot(self)
    }

    /// Tells libtorch the calling thread's number of threads; it is never derived from the cores, as it changes bits.
    fn set_threads(&self) {
        thread_local!(static TOLD: Cell<usize> = const { Cell::new(0) });
        if TOLD.replace(self.threads) != self.threads {
            tch::set_num_threads(self.threads as i32);
        }
    }
}

/// A slot in use, free again when dropped, also by a panic.
struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let (free, freed) = &*self.0.free;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        freed.notify_one();
    }
}

/// One who computes: its name in sentences and events, its figures, its share of the cores.
#[derive(Debug)]
pub struct Worker {
    /// A client's id, or `server`.
    pub name: String,
    /// Its figures.
    pub meter: Meter,
    slots: Slots,
    events: Events,
}

impl Worker {
    /// A worker that has done nothing yet.
    pub fn new(name: impl Into<String>, slots: Slots, events: Events) -> Self {
        Self { name: name.into(), meter: Meter::default(), slots, events }
    }

    /// Another worker of the same name on the same slots, with figures of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(self.name.clone(), self.slots.clone(), self.events.clone())
    }

    /// Runs `work` on a slot, and counts the wait for it and the work.
    pub fn compute<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let asked = Instant::now();
        let slots = self.slots.clone();
        let slot = slots.take();
        let started = Instant::now();
        let result = work();
        drop(slot);
        self.meter.seconds.wait += (started - asked).as_secs_f64();
        self.meter.seconds.compute += started.elapsed().as_secs_f64();
        result
    }

    /// Runs `work`, which turns tensors into bytes or back.
    pub fn encode<T>(&mut self, work: impl FnOnce() -> T) -> T {
        timed(&mut self.meter.seconds.encode, work)
    }

    /// Runs `work`, which sends.
    pub fn network<T>(&mut self, work: impl FnOnce() -> T) -> T {
        timed(&mut self.meter.seconds.network, work)
    }

    /// Runs `work`, which waits for the other side.
    pub fn wait<T>(&mut self, work: impl FnOnce() -> T) -> T {
        timed(&mut self.meter.seconds.wait, work)
    }

    /// Counts the tokens of a batch, `real` of them padded to `total`, and says that it is done.
    pub fn count_batch(&mut self, real: usize, total: usize) {
        self.meter.tokens.real += real as u64;
        self.meter.tokens.padding += (total - real) as u64;
        self.say_step();
    }

    /// Says that a unit of work of the round is done.
    pub fn say_step(&self) {
        self.events.tell(Event::StepFinished { worker: self.name.clone() });
    }
}

fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *seconds += started.elapsed().as_secs_f64();
    result
}

/// Peak resident size of this process in bytes (`VmHWM`); zero where the system does not tell.
pub fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_workers_compute_at_once_than_there_are_slots() {
        let (slots, busy, most) = (Slots::new(2, 1), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut worker = Worker::new("silo/0", slots.clone(), Events::silent());
                    for _ in 0..50 {
                        worker.compute(|| {
                            most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::yield_now();
                            busy.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.into_inner()));
    }

    #[test]
    fn a_panic_frees_its_slot() {
        let slots = Slots::new(1, 1);
        let panicked = std::thread::scope(|scope| {
            let mut worker = Worker::new("silo/0", slots.clone(), Events::silent());
            scope.spawn(move || worker.compute(|| panic!("on purpose"))).join()
        });
        assert!(panicked.is_err());
        assert_eq!(Worker::new("silo/1", slots, Events::silent()).compute(|| 7), 7);
    }

    #[test]
    fn peak_memory_is_read_from_the_system() {
        assert!(peak_memory_bytes() > 1 << 20);
    }
}
