//! What the operator remembers of runs between two looks at them, because caches are a moment behind.
//! Must not hold what a restarted operator could not do without: that is in the cluster.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fedtune_crds::FederatedFineTuneStatus;
use kube::ResourceExt;

use crate::controller::{
    build::Run,
    child::{Child, Kind},
    why::Answers,
};

/// How long a child that was just made is taken for granted: longer than a watch needs to bring it.
const JUST_MADE: Duration = Duration::from_secs(10);

/// How long what was looked up is not looked up again.
const LOOKED_UP: Duration = Duration::from_secs(9);

/// Pause after the first error of a run; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause after an error of a run.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What is remembered of all runs, by uid. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Memories(Arc<Mutex<HashMap<String, Memory>>>);

impl Memories {
    /// Reads or changes what is remembered of the run with this uid.
    pub fn of<T>(&self, uid: &str, with: impl FnOnce(&mut Memory) -> T) -> T {
        // A panic leaves nothing half done in here: each change is one assignment.
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match memories.get_mut(uid) {
            Some(memory) => with(memory),
            None => with(memories.entry(uid.to_owned()).or_default()),
        }
    }

    /// Forgets a run that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// What is remembered of one run.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    written: Option<Written>,
    made: HashMap<Child, Instant>,
    looked_up: Option<(Instant, Answers)>,
    failures: u32,
}

/// A status that was written.
#[derive(Debug, Clone)]
struct Written {
    /// Versions of the resource that are older than this status.
    older: HashSet<String>,
    /// The version that has it.
    version: Option<String>,
    status: FederatedFineTuneStatus,
    at: Instant,
}

impl Memory {
    /// `run` with the status that was written last, where the cache has not seen that yet.
    pub fn latest(&self, run: &Run) -> Run {
        let version = run.resource_version().unwrap_or_default();
        match self.written.as_ref().filter(|written| written.older.contains(&version)) {
            Some(written) => {
                let mut run = run.clone();
                run.status = Some(written.status.clone());
                run.metadata.resource_version.clone_from(&written.version);
                run
            }
            None => run.clone(),
        }
    }

    /// Notes that writing a status made `after` of `before`.
    pub fn wrote(&mut self, before: &Run, after: &Run, at: Instant) {
        let base = before.resource_version();
        let follows = |written: &Written| written.version == base;
        let mut older = self.written.take().filter(follows).map(|written| written.older).unwrap_or_default();
        older.extend(base);
        let status = after.status.clone().unwrap_or_default();
        self.written = Some(Written { older, version: after.resource_version(), status, at });
    }

    /// When a status was written last.
    pub fn wrote_at(&self) -> Option<Instant> {
        self.written.as_ref().map(|written| written.at)
    }

    /// Notes that a child was made.
    pub fn made(&mut self, child: Child, at: Instant) {
        self.made.retain(|_, made| at.duration_since(*made) < JUST_MADE);
        self.made.insert(child, at);
    }

    /// Notes that a child was deleted.
    pub fn deleted(&mut self, child: &Child) {
        self.made.remove(child);
    }

    /// Whether the child was made a moment ago, so that the caches may not have it yet.
    pub fn was_just_made(&self, child: &Child) -> bool {
        self.made.get(child).is_some_and(|made| made.elapsed() < JUST_MADE)
    }

    /// The `ConfigMap` that was made a moment ago.
    pub fn config_map_just_made(&self) -> Option<&Child> {
        self.made.keys().find(|child| child.kind == Kind::ConfigMap && self.was_just_made(child))
    }

    /// When to look again because a child was taken for granted.
    pub fn doubt_in(&self) -> Option<Duration> {
        self.made.values().map(|made| JUST_MADE.saturating_sub(made.elapsed())).filter(|left| !left.is_zero()).max()
    }

    /// What was looked up a moment ago.
    pub fn looked_up(&self) -> Option<&Answers> {
        self.looked_up.as_ref().filter(|(at, _)| at.elapsed() < LOOKED_UP).map(|(_, found)| found)
    }

    /// Notes what was looked up.
    pub fn found(&mut self, found: Answers, at: Instant) {
        self.looked_up = Some((at, found));
    }

    /// Notes an error, and says how long this run is left alone for it.
    pub fn failed(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Notes that all went well.
    pub fn went_well(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(version: &str, message: &str) -> Run {
        let mut run = fedtune_crds::load(include_str!("../../crds/tests/full.yaml"), &[]).unwrap();
        run.metadata.resource_version = Some(version.to_owned());
        run.status = Some(FederatedFineTuneStatus { message: Some(message.to_owned()), ..Default::default() });
        run
    }

    fn message(run: &Run) -> &str {
        run.status.as_ref().and_then(|status| status.message.as_deref()).unwrap()
    }

    #[test]
    fn a_cache_that_is_behind_is_read_with_the_status_that_was_written() {
        let mut memory = Memory::default();
        memory.wrote(&run("1", "a"), &run("2", "b"), Instant::now());
        memory.wrote(&run("2", "b"), &run("3", "c"), Instant::now());
        for behind in ["1", "2"] {
            let latest = memory.latest(&run(behind, "a"));
            assert_eq!((latest.resource_version().as_deref(), message(&latest)), (Some("3"), "c"));
        }
    }

    #[test]
    fn a_cache_that_is_ahead_is_read_as_it_is() {
        let mut memory = Memory::default();
        memory.wrote(&run("1", "a"), &run("2", "b"), Instant::now());
        assert_eq!(message(&memory.latest(&run("7", "somebody else's"))), "somebody else's");
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_a_success() {
        let mut memory = Memory::default();
        let pauses: Vec<u64> = (0..10).map(|_| memory.failed().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        memory.went_well();
        assert_eq!(memory.failed(), FIRST_PAUSE);
    }
}
