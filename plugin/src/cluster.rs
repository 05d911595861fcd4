//! The cluster of the user's kubeconfig: its runs and their pods, and what it refuses, as a sentence.
//! Must not write anything.

use fedtune_crds::FederatedFineTune;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client, Config, ResourceExt,
    api::ListParams,
    config::{KubeConfigOptions, KubeconfigError},
};

/// By which the operator's pods are found.
const RUN_UID: &str = "fedtune.io/run-uid";

/// The container that trains.
pub(crate) const TRAINER: &str = "trainer";

/// Why a cluster cannot be asked, or what it refuses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    #[error("no cluster is named by KUBECONFIG or ~/.kube/config: {0}")]
    NoConfig(#[from] KubeconfigError),
    #[error("the kubeconfig cannot be used: {0}")]
    NoClient(kube::Error),
    #[error("the right to {verb} {resource} in {place} is missing: {words}")]
    Forbidden { verb: &'static str, resource: &'static str, place: String, words: String },
    #[error("the cluster does not know {resource}: install fedtune's chart first")]
    NotInstalled { resource: &'static str },
    #[error("there is no run {name} in the namespace {namespace}; `kubectl get fft --all-namespaces` lists them")]
    NoRun { name: String, namespace: String },
    #[error(
        "there is no run of the experiment {experiment} in {place}; `kubectl get fft -A -o wide` shows experiments"
    )]
    NoExperiment { experiment: String, place: String },
    #[error("the run {name} has no pods: {why}")]
    NoPods { name: String, why: String },
    #[error("the cluster cannot be asked to {verb} {resource}: {error}")]
    Failed { verb: &'static str, resource: &'static str, error: kube::Error },
}

/// A cluster and the namespace that is meant.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
}

/// The cluster of a context; nothing is asked yet.
pub(crate) async fn connect(context: Option<&str>, namespace: Option<String>) -> Result<Cluster, ClusterError> {
    // With two providers in the program rustls would not choose. One that is there already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let config = Config::from_kubeconfig(&options).await?;
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(ClusterError::NoClient)?;
    Ok(Cluster { client, namespace })
}

impl Cluster {
    /// Runs of an experiment, by name; at least one.
    pub(crate) async fn runs_of(
        &self,
        experiment: &str,
        everywhere: bool,
    ) -> Result<Vec<FederatedFineTune>, ClusterError> {
        let api = if everywhere { Api::all(self.client.clone()) } else { self.api() };
        let place = if everywhere { "the cluster".to_owned() } else { self.place() };
        let listed = api.list(&ListParams::default()).await;
        let listed = listed.map_err(|error| refused("list", "federatedfinetunes", &place, error))?;
        let mut runs: Vec<FederatedFineTune> =
            listed.items.into_iter().filter(|run| run.spec.experiment == experiment).collect();
        runs.sort_by_key(|run| (run.namespace(), run.name_any()));
        if runs.is_empty() {
            return Err(ClusterError::NoExperiment { experiment: experiment.to_owned(), place });
        }
        Ok(runs)
    }

    /// One run.
    pub(crate) async fn run(&self, name: &str) -> Result<FederatedFineTune, ClusterError> {
        let found = self.api().get_opt(name).await;
        let found = found.map_err(|error| refused("get", "federatedfinetunes", &self.place(), error))?;
        found.ok_or_else(|| ClusterError::NoRun { name: name.to_owned(), namespace: self.namespace.clone() })
    }

    /// Pods of a run, by name; at least one.
    pub(crate) async fn pods_of(&self, run: &FederatedFineTune) -> Result<Vec<Pod>, ClusterError> {
        let own = ListParams::default().labels(&format!("{RUN_UID}={}", run.uid().unwrap_or_default()));
        let listed = self.pods().list(&own).await.map_err(|error| refused("list", "pods", &self.place(), error))?;
        let mut pods = listed.items;
        pods.sort_by_key(ResourceExt::name_any);
        if pods.is_empty() {
            let message = run.status.as_ref().and_then(|status| status.message.clone());
            let why = message.unwrap_or_else(|| "the operator has not seen it yet".to_owned());
            return Err(ClusterError::NoPods { name: run.name_any(), why });
        }
        Ok(pods)
    }

    /// The image that the run's pods have: its own, else its server's.
    pub(crate) async fn image_of(&self, run: &FederatedFineTune) -> Result<Option<String>, ClusterError> {
        if run.spec.image.is_some() {
            return Ok(run.spec.image.clone());
        }
        let own = ListParams::default().labels(&format!("{RUN_UID}={}", run.uid().unwrap_or_default()));
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), &self.namespace);
        let listed = jobs.list(&own).await.map_err(|error| refused("list", "jobs", &self.place(), error))?;
        let image = |job: &Job| {
            let containers = &job.spec.as_ref()?.template.spec.as_ref()?.containers;
            containers.iter().find(|container| container.name == TRAINER)?.image.clone()
        };
        Ok(listed.iter().find_map(image))
    }

    /// Pods of the namespace.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The namespace, in words.
    pub(crate) fn place(&self) -> String {
        format!("the namespace {}", self.namespace)
    }

    fn api(&self) -> Api<FederatedFineTune> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// What the API server's refusal means for whoever asked.
pub(crate) fn refused(verb: &'static str, resource: &'static str, place: &str, error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) if status.code == 403 => {
            ClusterError::Forbidden { verb, resource, place: place.to_owned(), words: status.message.clone() }
        }
        kube::Error::Api(status) if status.code == 404 && resource == "federatedfinetunes" => {
            ClusterError::NotInstalled { resource }
        }
        error => ClusterError::Failed { verb, resource, error },
    }
}
