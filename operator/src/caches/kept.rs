//! The children of one kind, found by namespace and name, each cut down to what the operator reads of it.
//! Must not keep objects whole: a thousand runs have ten thousand children.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{Resource, runtime::watcher::Event};

use crate::controller::child::runs_of;

/// Children of one kind as `V`. Clones share them.
#[derive(Debug)]
pub struct Kept<V>(Arc<Mutex<Lists<V>>>);

#[derive(Debug)]
struct Lists<V> {
    now: List<V>,
    /// What a new list has brought so far; it takes the place of `now` when the list is complete.
    coming: List<V>,
}

/// By namespace and name.
type List<V> = HashMap<(String, String), One<V>>;

#[derive(Debug)]
struct One<V> {
    /// Uids of the runs that it may be a child of.
    runs: Vec<String>,
    view: V,
}

/// Where a child is, and the uid of the run that it must be a child of.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The run's uid.
    pub run_uid: &'a str,
}

impl<V> Clone for Kept<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> Default for Kept<V> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Lists { now: HashMap::new(), coming: HashMap::new() })))
    }
}

impl<V: Clone> Kept<V> {
    /// Keeps what a watch says, each object as `read` sees it.
    pub(super) fn take<K: Resource>(&self, event: &Event<K>, read: fn(&K) -> V) {
        let one = |object: &K| One { runs: runs_of(object.meta()), view: read(object) };
        let mut lists = self.lock();
        match event {
            Event::Init => lists.coming = HashMap::new(),
            Event::InitApply(object) => drop(lists.coming.insert(key(object), one(object))),
            Event::InitDone => lists.now = mem::take(&mut lists.coming),
            Event::Apply(object) => drop(lists.now.insert(key(object), one(object))),
            Event::Delete(object) => drop(lists.now.remove(&key(object))),
        }
    }

    /// The child at `place`.
    pub fn get(&self, place: Place<'_>) -> Option<V> {
        let key = (place.namespace.to_owned(), place.name.to_owned());
        self.lock().now.get(&key).filter(|one| one.is_of(place.run_uid)).map(|one| one.view.clone())
    }

    /// The name of any child of the run with this uid; looks at all there are.
    pub fn name_of_one(&self, run_uid: &str) -> Option<String> {
        let lists = self.lock();
        lists.now.iter().find(|(_, one)| one.is_of(run_uid)).map(|((_, name), _)| name.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Lists<V>> {
        // Nothing in here is left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> One<V> {
    fn is_of(&self, run_uid: &str) -> bool {
        self.runs.iter().any(|run| run == run_uid)
    }
}

fn key<K: Resource>(object: &K) -> (String, String) {
    (object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::ConfigMap,
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    };

    use super::*;

    fn owned(name: &str, uid: &str) -> ConfigMap {
        let owner = OwnerReference { uid: uid.to_owned(), ..OwnerReference::default() };
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("team".to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    fn take(kept: &Kept<String>, event: &Event<ConfigMap>) {
        kept.take(event, |map| format!("view of {}", map.metadata.name.as_deref().unwrap()));
    }

    fn get(kept: &Kept<String>, name: &str, run_uid: &str) -> Option<String> {
        kept.get(Place { namespace: "team", name, run_uid })
    }

    #[test]
    fn a_child_is_found_by_its_run_alone_until_it_is_deleted_or_given_to_another() {
        let kept = Kept::default();
        take(&kept, &Event::Apply(owned("a", "r1")));
        assert_eq!(get(&kept, "a", "r1").as_deref(), Some("view of a"));
        assert_eq!(get(&kept, "a", "r2"), None);
        assert_eq!(kept.get(Place { namespace: "other", name: "a", run_uid: "r1" }), None);
        assert_eq!(kept.name_of_one("r1").as_deref(), Some("a"));
        take(&kept, &Event::Apply(owned("a", "r2")));
        assert_eq!(get(&kept, "a", "r1"), None);
        take(&kept, &Event::Delete(owned("a", "r2")));
        assert_eq!(kept.name_of_one("r2"), None);
    }

    #[test]
    fn what_a_new_list_lacks_is_gone_once_the_list_is_complete() {
        let kept = Kept::default();
        take(&kept, &Event::Apply(owned("lost", "r1")));
        take(&kept, &Event::Init);
        take(&kept, &Event::InitApply(owned("kept", "r1")));
        assert!(get(&kept, "lost", "r1").is_some(), "a list that is still coming changes nothing");
        take(&kept, &Event::InitDone);
        assert_eq!((get(&kept, "lost", "r1"), get(&kept, "kept", "r1").is_some()), (None, true));
    }
}
