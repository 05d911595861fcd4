//! The pods of all runs, found by run.
//! Must not be searched through: a reconcile looks at one run's pods, whatever number there is of others.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;

use super::pod::PodView;
use crate::controller::build::labels;

/// Pods by run uid and pod uid. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct PodIndex(Arc<Mutex<Index>>);

#[derive(Debug, Default)]
struct Index {
    runs: Runs,
    /// What a new list has brought so far; it takes the place of `runs` when the list is complete.
    listed: Runs,
}

type Runs = HashMap<String, BTreeMap<String, Arc<PodView>>>;

impl PodIndex {
    /// Keeps what a watch says.
    pub(super) fn take(&self, event: &Event<Pod>) {
        let mut index = self.lock();
        match event {
            Event::Init => index.listed.clear(),
            Event::InitApply(pod) => put(&mut index.listed, pod),
            Event::InitDone => index.runs = mem::take(&mut index.listed),
            Event::Apply(pod) => put(&mut index.runs, pod),
            Event::Delete(pod) => drop_pod(&mut index.runs, pod),
        }
    }

    /// The pods of the run with this uid, oldest first.
    pub fn of(&self, run_uid: &str) -> Vec<Arc<PodView>> {
        let mut pods: Vec<_> = self.lock().runs.get(run_uid).into_iter().flat_map(BTreeMap::values).cloned().collect();
        pods.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        pods
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // Nothing in here is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run_uid(pod: &Pod) -> Option<&String> {
    pod.metadata.labels.as_ref()?.get(labels::RUN_UID)
}

fn put(runs: &mut Runs, pod: &Pod) {
    if let (Some(run), Some(view)) = (run_uid(pod), PodView::read(pod)) {
        runs.entry(run.clone()).or_default().insert(view.uid.clone(), Arc::new(view));
    }
}

fn drop_pod(runs: &mut Runs, pod: &Pod) {
    let (Some(run), Some(uid)) = (run_uid(pod), &pod.metadata.uid) else { return };
    if let Some(pods) = runs.get_mut(run) {
        pods.remove(uid);
        if pods.is_empty() {
            runs.remove(run);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, run: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {
            "name": name, "uid": format!("uid-of-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {labels::RUN_UID: run},
        }}))
        .unwrap()
    }

    fn names(index: &PodIndex, run: &str) -> Vec<String> {
        index.of(run).iter().map(|pod| pod.name.clone()).collect()
    }

    #[test]
    fn pods_are_found_by_their_run_until_they_are_deleted() {
        let index = PodIndex::default();
        for (name, run) in [("a", "r1"), ("b", "r1"), ("c", "r2")] {
            index.take(&Event::Apply(pod(name, run)));
        }
        index.take(&Event::Delete(pod("a", "r1")));
        index.take(&Event::Delete(pod("c", "r2")));
        assert_eq!(names(&index, "r1"), ["b"]);
        assert!(index.lock().runs.keys().eq(["r1"]), "a run without pods costs nothing");
    }

    #[test]
    fn what_a_new_list_lacks_is_gone_once_the_list_is_complete() {
        let index = PodIndex::default();
        index.take(&Event::Apply(pod("lost", "r1")));
        index.take(&Event::Init);
        index.take(&Event::InitApply(pod("kept", "r1")));
        assert_eq!(names(&index, "r1"), ["lost"], "a list that is still coming changes nothing");
        index.take(&Event::InitDone);
        assert_eq!(names(&index, "r1"), ["kept"]);
    }
}
