//! What the operator counts, and the final figures of each run from its status, so that a comparison outlives the pods.
//! Must not carry a uid or a sentence as a label, nor figures of runs where another operator leads.

mod runs;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fedtune_crds::reference::metrics::{Family, Kind, section};
use kube::runtime::reflector::Store;
use prometheus::{
    Encoder, Error, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder, core::Collector,
};

use crate::{caches::StoredRun, controller::hindrance::Hindrance};

/// From a look at caches to a dozen slow requests.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// What is counted. Clones share it.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    registry: Registry,
    reconciles: Histogram,
    errors: IntCounterVec,
    leader: IntGauge,
    runs: Mutex<Option<Store<StoredRun>>>,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// Never, as long as the names below are names.
    pub fn new() -> Result<Self, Error> {
        let help = "Seconds that one look at a run took.";
        let options = HistogramOpts::new("fedtune_operator_reconcile_duration_seconds", help).buckets(BUCKETS.to_vec());
        let reconciles = Histogram::with_opts(options)?;
        let help = "Looks at a run that ended with an error and are repeated.";
        let errors = IntCounterVec::new(Opts::new("fedtune_operator_reconcile_errors_total", help), &["reason"])?;
        let help = "Whether this operator leads: 1, or 0 for one that stands by.";
        let leader = IntGauge::new("fedtune_operator_leader", help)?;
        let registry = Registry::new();
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self(Arc::new(Counted { registry, reconciles, errors, leader, runs: Mutex::new(None) })))
    }

    /// Counts a look at a run.
    pub fn reconciled(&self, took: Duration) {
        self.0.reconciles.observe(took.as_secs_f64());
    }

    /// Counts an error.
    pub fn erred(&self, error: &Hindrance) {
        self.0.errors.with_label_values(&[reason(error)]).inc();
    }

    /// Shows the figures of `runs` from now on: this operator leads.
    pub fn leads(&self, runs: Store<StoredRun>) {
        self.0.leader.set(1);
        *self.0.runs.lock().unwrap_or_else(PoisonError::into_inner) = Some(runs);
    }

    /// The page for Prometheus.
    ///
    /// # Errors
    /// Where two families have one name.
    pub fn page(&self) -> Result<String, Error> {
        let mut families = self.0.registry.gather();
        let runs = self.0.runs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(runs) = runs {
            families.extend(runs::gather(&runs.state())?);
        }
        let mut page = Vec::new();
        TextEncoder::new().encode(&families, &mut page)?;
        Ok(String::from_utf8(page).expect("names, labels and numbers are text"))
    }
}

const HEADER: &str = "<!-- Generated from the code by `make generate`; change that. -->\n
# Metrics\n
What operator, servers and clients serve at `/metrics`. [Monitoring](monitoring.md) says how to scrape them.\n";

/// The page on all metrics up to those of servers and clients, which the trainer knows; as Markdown.
///
/// # Errors
/// As [`Metrics::new`].
pub fn reference() -> Result<String, Error> {
    let Counted { reconciles, errors, leader, .. } = &*Metrics::new()?.0;
    let own = [(Kind::Histogram, reconciles as &dyn Collector), (Kind::Counter, errors), (Kind::Gauge, leader)];
    let mut families: Vec<Family> = own.into_iter().flat_map(|(kind, family)| described(kind, family)).collect();
    families.extend(runs::families()?);
    let words = "Those of runs have the run's final figures, to the last digit of `results.json`, for as long as its resource is there.";
    Ok(HEADER.to_owned() + &section("The operator", words, &families))
}

/// What a collector says of its families.
fn described(kind: Kind, collector: &(impl Collector + ?Sized)) -> Vec<Family> {
    let described = collector.desc().into_iter().map(|desc| Family {
        name: desc.fq_name.clone(),
        kind,
        labels: desc.variable_labels.clone(),
        help: desc.help.clone(),
    });
    described.collect()
}

fn reason(error: &Hindrance) -> &'static str {
    match error {
        Hindrance::Waiting(_) => "waiting",
        Hindrance::Refused(_) => "refused",
        Hindrance::Stale => "conflict",
        Hindrance::Api { source, .. } => match source.as_ref() {
            kube::Error::Api(status) if status.code == 429 => "throttled",
            kube::Error::Api(status) if status.code >= 500 => "server",
            kube::Error::Api(_) => "api",
            _ => "connection",
        },
    }
}

#[cfg(test)]
mod tests {
    use fedtune_crds::{FederatedFineTuneStatus, status::Phase};
    use kube::{
        core::DeserializeGuard,
        runtime::{reflector, watcher::Event},
    };

    use super::*;
    use crate::controller::testing::run;

    fn lines(page: &str) -> Vec<&str> {
        page.lines()
            .filter(|line| line.starts_with("fedtune_run") || line.starts_with("fedtune_operator_runs"))
            .collect()
    }

    #[test]
    fn the_final_figures_of_a_run_are_shown_until_its_resource_is_deleted() {
        let (store, mut writer) = reflector::store();
        let metrics = Metrics::new().unwrap();
        assert!(lines(&metrics.page().unwrap()).is_empty(), "another operator leads");
        metrics.leads(store);

        let mut run = run(Some(Phase::Failed));
        let status = FederatedFineTuneStatus {
            accuracy: Some("0.860".to_owned()),
            payload_bytes_up: Some("412".to_owned()),
            stop_reason: Some("QuorumLost".to_owned()),
            ..run.status.clone().unwrap()
        };
        run.status = Some(status);
        writer.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(run.clone()))));
        let page = metrics.page().unwrap();
        let of_it = "experiment=\"default\",framework=\"FedLLM\",namespace=\"team\"";
        for line in [
            "fedtune_operator_runs{phase=\"Failed\"} 1".to_owned(),
            "fedtune_operator_runs{phase=\"Running\"} 0".to_owned(),
            format!("fedtune_run_accuracy_ratio{{{of_it},run=\"mail\"}} 0.86"),
            format!("fedtune_run_duration_seconds{{{of_it},run=\"mail\"}} 100"),
            format!("fedtune_run_payload_bytes{{direction=\"up\",{of_it},run=\"mail\"}} 412"),
            format!("fedtune_run_failed{{{of_it},reason=\"QuorumLost\",run=\"mail\"}} 1"),
        ] {
            assert!(lines(&page).contains(&line.as_str()), "{line}\n{page}");
        }

        writer.apply_watcher_event(&Event::Delete(DeserializeGuard(Ok(run))));
        let left = metrics.page().unwrap();
        assert!(lines(&left).iter().all(|line| line.starts_with("fedtune_operator_runs")), "{left}");
    }
}
