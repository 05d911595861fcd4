//! Makes, suspends and deletes a run's children: the only step that writes them.
//! Must not touch an object that is not the run's own.

pub mod certificates;

use std::time::Instant;

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Service},
        networking::v1::NetworkPolicy,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    build::{Children, Run},
    child::{Child, Kind, Owner},
    hindrance::Hindrance,
    post::{FIELD_MANAGER, Mode, metadata, post},
    why::Trouble,
};
use crate::memory::Memories;

/// Writes what belongs to one run.
#[derive(Clone, Copy)]
pub struct Apply<'a> {
    client: &'a Client,
    memories: &'a Memories,
    run: &'a Run,
    now: Timestamp,
}

impl<'a> Apply<'a> {
    /// Writes what belongs to `run`.
    pub fn new(client: &'a Client, memories: &'a Memories, run: &'a Run, now: Timestamp) -> Self {
        Self { client, memories, run, now }
    }

    /// Makes those of `children` that are `missing`, pods last.
    ///
    /// # Errors
    /// At the first that cannot be made.
    pub async fn make(self, children: &Children, missing: &[Child]) -> Result<(), Hindrance> {
        let is_missing = |child: &Child| missing.contains(child);
        let (jobs, before): (Vec<_>, Vec<_>) =
            objects(children).into_iter().partition(|(child, _)| child.kind == Kind::Job);
        for (child, object) in before.iter().filter(|(child, _)| is_missing(child)) {
            self.make_one(child, object).await?;
        }
        self.make_certificates(missing).await?;
        for (child, object) in jobs.iter().filter(|(child, _)| is_missing(child)) {
            self.make_one(child, object).await?;
        }
        self.make_join_bundles(missing).await
    }

    /// Makes one object; one that is there already must be ours.
    async fn make_one(self, child: &Child, object: &Value) -> Result<(), Hindrance> {
        let namespace = self.namespace();
        match post(self.client, child.kind, &namespace, object, Mode::Make).await {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                self.must_be_ours(child).await?;
                self.bring_up_to_date(child, object).await?;
            }
            Err(error) => return Err(Hindrance::of(format!("{child} cannot be made"), error)),
        }
        self.memories.of(&self.uid(), |memory| memory.made(child.clone(), Instant::now()));
        Ok(())
    }

    /// # Errors
    /// Where the object that has the child's name is somebody else's, or goes soon.
    async fn must_be_ours(self, child: &Child) -> Result<(), Hindrance> {
        let found = metadata(self.client, &self.namespace(), child).await;
        let found = found.map_err(|error| Hindrance::of(format!("{child} cannot be looked at"), error))?;
        let goes = || Trouble::new("EarlierRun", format!("waiting until {child} of an earlier run is deleted"));
        // Gone in the meantime: the next look makes it.
        let Some(found) = found else { return Err(Hindrance::Stale) };
        match Owner::of(&found.metadata, self.run) {
            Owner::Us if found.metadata.deletion_timestamp.is_none() => Ok(()),
            Owner::Us | Owner::Earlier => Err(Hindrance::Waiting(goes())),
            Owner::Stranger(whose) => Err(Hindrance::Refused(Trouble::new(
                "NameTaken",
                format!("{child} {whose} and is left as it is; delete it, or give the run another name"),
            ))),
        }
    }

    /// Kinds of which a cluster fills in fields are merged with what is there; all others never change.
    async fn bring_up_to_date(self, child: &Child, object: &Value) -> Result<(), Hindrance> {
        let applied = match child.kind {
            Kind::Service => self.server_side_apply::<Service>(child, object).await,
            Kind::NetworkPolicy => self.server_side_apply::<NetworkPolicy>(child, object).await,
            Kind::ConfigMap | Kind::Secret | Kind::Claim | Kind::Job => Ok(()),
        };
        applied.map_err(|error| Hindrance::of(format!("{child} cannot be brought up to date"), error))
    }

    async fn server_side_apply<K>(self, child: &Child, object: &Value) -> Result<(), kube::Error>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace());
        api.patch(&child.name, &PatchParams::apply(FIELD_MANAGER), &Patch::Apply(object)).await.map(drop)
    }

    /// Lets a Job have pods, or not.
    ///
    /// # Errors
    /// Where the API server does not do it.
    pub async fn suspend(self, job: &str, suspend: bool) -> Result<(), Hindrance> {
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        let patched = self.jobs().patch(job, &PatchParams::default(), &patch).await;
        let verb = if suspend { "suspended" } else { "resumed" };
        patched.map(drop).map_err(|error| Hindrance::of(format!("Job {job} cannot be {verb}"), error))
    }

    /// Deletes a Job of the run with its pods.
    ///
    /// # Errors
    /// Where the API server does not do it; one that is gone already is no error.
    pub async fn delete_job(self, name: &str, uid: &str) -> Result<(), Hindrance> {
        let this_one = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let how = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(this_one),
            ..DeleteParams::default()
        };
        match self.jobs().delete(name, &how).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(error) => return Err(Hindrance::of(format!("Job {name} cannot be deleted"), error)),
        }
        let child = Child { kind: Kind::Job, name: name.to_owned() };
        self.memories.of(&self.uid(), |memory| memory.deleted(&child));
        Ok(())
    }

    /// Deletes the resource, and with it all that it owns.
    ///
    /// # Errors
    /// Where the API server does not do it; one that is gone already is no error.
    pub async fn delete_run(self) -> Result<(), Hindrance> {
        let api: Api<Run> = Api::namespaced(self.client.clone(), &self.namespace());
        let this_one = Preconditions { uid: self.run.uid(), resource_version: None };
        let how = DeleteParams { preconditions: Some(this_one), ..DeleteParams::background() };
        match api.delete(&self.run.name_any(), &how).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => Err(Hindrance::of("the resource, whose time has come, cannot be deleted", error)),
        }
    }

    /// The run as it was when it began: image and defaults are those in its `ConfigMap`.
    ///
    /// # Errors
    /// Where the `ConfigMap` cannot be read.
    pub async fn frozen(self, config_map: &str) -> Result<Run, Hindrance> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace());
        let found = api.get(config_map).await;
        let found = found.map_err(|error| Hindrance::of(format!("ConfigMap {config_map} cannot be read"), error))?;
        let text = found.data.as_ref().and_then(|data| data.get("run.json"));
        let frozen: Option<Run> = text.and_then(|text| serde_json::from_str(text).ok());
        let unreadable = || {
            let sentence = format!(
                "ConfigMap {config_map} holds no run that this operator can read; delete it to have it made again"
            );
            Hindrance::Refused(Trouble::new("ConfigMapUnreadable", sentence))
        };
        let mut spec = frozen.ok_or_else(unreadable)?.spec;
        let now = &self.run.spec;
        (spec.suspend, spec.attempt, spec.ttl_seconds_after_finished) =
            (now.suspend, now.attempt, now.ttl_seconds_after_finished);
        Ok(Run { spec, ..self.run.clone() })
    }

    fn jobs(self) -> Api<Job> {
        Api::namespaced(self.client.clone(), &self.namespace())
    }

    fn namespace(self) -> String {
        self.run.namespace().unwrap_or_default()
    }

    fn uid(self) -> String {
        self.run.uid().unwrap_or_default()
    }
}

/// The children as they go to the API server, in the order in which they are made.
pub fn objects(children: &Children) -> Vec<(Child, Value)> {
    let Children { config_map, claims, services, network_policies, server, clients } = children;
    let mut objects = vec![object(Kind::ConfigMap, config_map)];
    objects.extend(claims.iter().map(|claim| object(Kind::Claim, claim)));
    objects.extend(services.iter().map(|service| object(Kind::Service, service)));
    objects.extend(network_policies.iter().map(|policy| object(Kind::NetworkPolicy, policy)));
    let jobs = std::iter::once(server).chain(clients);
    objects.extend(jobs.map(|job| (Child { kind: Kind::Job, name: job.name().to_owned() }, job.as_json().clone())));
    objects
}

fn object<K: ResourceExt + Serialize>(kind: Kind, object: &K) -> (Child, Value) {
    let json = serde_json::to_value(object).expect("an object is plain data");
    (Child { kind, name: object.name_any() }, json)
}
