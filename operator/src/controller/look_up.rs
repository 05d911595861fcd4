//! Asks the API server what caches do not hold: warnings about an object, whether a namespace ends, whether what a
//! spec refers to exists.
//! Must not be asked on each look at a run, and never writes.

use std::{collections::BTreeMap, fmt::Debug, time::Instant};

use futures::{FutureExt, future::try_join_all};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Event, Namespace},
    jiff::Timestamp,
};
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;

use super::why::{Answers, Questions, Subject, Warning};
use crate::memory::Memories;

/// Events of one object that are read, at most.
const EVENTS: u32 = 50;

/// A warning that keeps no pod from starting: several pods share a volume of the node, and its group is not theirs.
const HARMLESS: &str = "AlreadyMountedVolume";

/// Answers to `questions` about the run with this uid; asks at most once in a while.
pub async fn look_up(
    client: &Client,
    memories: &Memories,
    uid: &str,
    namespace: &str,
    questions: &Questions,
) -> Result<Answers, kube::Error> {
    if *questions == Questions::default() {
        return Ok(Answers::default());
    }
    if let Some(known) = memories.of(uid, |memory| memory.looked_up().cloned()) {
        return Ok(known);
    }
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let asked = questions.events_of.iter().map(|subject| warning(&events, subject).boxed());
    let warnings = try_join_all(asked.collect::<Vec<_>>()).await?;
    let warnings: BTreeMap<_, _> = warnings.into_iter().flatten().collect();
    let namespace_ends = questions.namespace && namespace_ends(client, namespace).await?;
    let answers = Answers { warnings, namespace_ends };
    memories.of(uid, |memory| memory.found(answers.clone(), Instant::now()));
    Ok(answers)
}

/// The latest warning about `subject`, by its uid.
async fn warning(events: &Api<Event>, subject: &Subject) -> Result<Option<(String, Warning)>, kube::Error> {
    let of_it = format!("involvedObject.uid={},type=Warning", subject.uid);
    let list = events.list(&ListParams::default().fields(&of_it).limit(EVENTS)).await?;
    let serious = list.items.into_iter().filter(|event| event.reason.as_deref() != Some(HARMLESS));
    let latest = serious.max_by_key(seen_last);
    Ok(latest.map(|event| {
        let (reason, note) = (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        (subject.uid.clone(), Warning { reason, note })
    }))
}

fn seen_last(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.or(last).or(first)
}

async fn namespace_ends(client: &Client, name: &str) -> Result<bool, kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match namespaces.get_metadata_opt(name).await {
        Ok(found) => Ok(found.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some())),
        // An operator of one namespace need not have this right: it goes with the namespace itself.
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an object of this kind and name exists.
pub async fn exists<K>(client: &Client, namespace: &str, name: &str) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    Ok(api.get_metadata_opt(name).await?.is_some())
}
