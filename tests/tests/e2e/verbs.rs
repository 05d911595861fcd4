//! What the chart grants the operator beside what the other tests have seen it do: tests run in the order of their names, and
//! this one's is last.
//! Must not be run alone: then nothing has been used yet.

use std::collections::BTreeSet;

use fedtune_tests::{
    cluster::{Cluster, rights::Right},
    experiment::note,
};

/// Granted though no request ever uses it.
const NEVER_SEEN: [(&str, &str, &str); 1] = [(
    "update",
    "federatedfinetunes.fedtune.io/finalizers",
    "asked by the admission plugin OwnerReferencesPermissionEnforcement, where a cluster has it on",
)];

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn the_operator_has_no_right_that_it_does_not_use() {
    let cluster = Cluster::with_operator().await;
    let (granted, used) = (cluster.granted_to_operator(), cluster.used_by_operator());
    let never_seen: BTreeSet<_> = NEVER_SEEN.iter().map(|(verb, resource, _)| Right::new(verb, resource)).collect();
    say(&granted, &used);
    assert!(granted.is_superset(&never_seen), "{never_seen:?} is not granted any more");
    let idle: Vec<String> =
        granted.difference(&used).filter(|right| !never_seen.contains(right)).map(Right::to_string).collect();
    assert!(idle.is_empty(), "granted and never used: {idle:#?}");
}

fn say(granted: &BTreeSet<Right>, used: &BTreeSet<Right>) {
    for right in granted {
        note(format_args!("{} {right}", if used.contains(right) { "used  " } else { "unused" }));
    }
}
