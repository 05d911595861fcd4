//! Gauges of the runs: how many stand where, and each one's final figures as its status has them.
//! Must not read anything but the resources: a run that is deleted takes its series along.

use std::{cell::RefCell, sync::Arc};

use fedtune_crds::{
    FederatedFineTuneStatus,
    reference::metrics::{Family, Kind},
    report::Direction,
    status::{FinalFigures, Phase},
};
use kube::ResourceExt;
use prometheus::{Error, GaugeVec, Opts, Registry, proto::MetricFamily};

use super::described;
use crate::{caches::StoredRun, controller::build::Run};

const PHASES: [Phase; 6] =
    [Phase::Pending, Phase::Starting, Phase::Running, Phase::Suspended, Phase::Succeeded, Phase::Failed];

/// Labels of each series of a run.
const RUN: [&str; 4] = ["namespace", "run", "experiment", "framework"];

/// All families with the values that they have now.
pub(super) fn gather(stored: &[Arc<StoredRun>]) -> Result<Vec<MetricFamily>, Error> {
    Ok(page(stored)?.registry.gather())
}

/// Which families there are.
pub(super) fn families() -> Result<Vec<Family>, Error> {
    Ok(page(&[])?.families.into_inner())
}

fn page(stored: &[Arc<StoredRun>]) -> Result<Page, Error> {
    let runs: Vec<&Run> = stored.iter().filter_map(|stored| stored.0.as_ref().ok()).collect();
    let page = Page::default();
    phases(&page, &runs)?;
    let ended: Vec<_> = runs.iter().filter_map(|run| Some((*run, ended(run)?))).collect();
    for Figure { name, help, value } in FIGURES {
        let series = ended.iter().filter_map(|(run, status)| Some((labels(run, None), value(status)?)));
        page.gauge(name, help, &RUN, series)?;
    }
    bytes(&page, "fedtune_run_payload_bytes", "Tensor bytes that the run exchanged.", &ended, |status| {
        (status.payload_bytes_up.as_deref(), status.payload_bytes_down.as_deref())
    })?;
    bytes(&page, "fedtune_run_wire_bytes", "Bytes that the run's sockets carried.", &ended, |status| {
        (status.wire_bytes_up.as_deref(), status.wire_bytes_down.as_deref())
    })?;
    failures(&page, &ended)?;
    Ok(page)
}

fn phases(page: &Page, runs: &[&Run]) -> Result<(), Error> {
    let phase = |run: &Run| run.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending);
    let count = |wanted: Phase| runs.iter().filter(|run| phase(run) == wanted).count() as f64;
    let series = PHASES.iter().map(|phase| (vec![format!("{phase:?}")], count(*phase)));
    page.gauge("fedtune_operator_runs", "Resources, by where their runs stand.", &["phase"], series)
}

/// The status of a run that has ended.
fn ended(run: &Run) -> Option<&FederatedFineTuneStatus> {
    run.status.as_ref().filter(|status| matches!(status.phase, Some(Phase::Succeeded | Phase::Failed)))
}

/// A figure of a run that has one series.
struct Figure {
    name: &'static str,
    help: &'static str,
    value: fn(&FederatedFineTuneStatus) -> Option<f64>,
}

const FIGURES: [Figure; 5] = [
    Figure {
        name: "fedtune_run_accuracy_ratio",
        help: "Share of the held-out examples that the final model labels rightly.",
        value: |status| exact(status, |last| &last.accuracy, status.accuracy.as_deref()),
    },
    Figure {
        name: "fedtune_run_loss",
        help: "Mean cross-entropy of the final model on the held-out examples, in nats.",
        value: |status| exact(status, |last| &last.loss, status.loss.as_deref()),
    },
    Figure {
        name: "fedtune_run_client_flops",
        help: "Floating point operations of all clients, evaluation left out.",
        value: |status| exact(status, |last| &last.client_flops, status.client_flops.as_deref()),
    },
    Figure {
        name: "fedtune_run_client_seconds",
        help: "Compute seconds of all clients.",
        value: |status| number(status.client_seconds.as_deref()),
    },
    Figure {
        name: "fedtune_run_duration_seconds",
        help: "Seconds from the first child to the end of the run.",
        value: |status| {
            let (start, end) = (status.start_time.as_ref()?, status.completion_time.as_ref()?);
            Some(end.0.duration_since(start.0).as_secs_f64())
        },
    },
];

fn bytes(
    page: &Page,
    name: &str,
    help: &str,
    ended: &[(&Run, &FederatedFineTuneStatus)],
    of: impl Fn(&FederatedFineTuneStatus) -> (Option<&str>, Option<&str>),
) -> Result<(), Error> {
    let both = ended.iter().flat_map(|(run, status)| {
        let (up, down) = of(status);
        [(Direction::Up, number(up)), (Direction::Down, number(down))]
            .into_iter()
            .filter_map(|(direction, value)| Some((labels(run, Some(direction.as_str())), value?)))
    });
    page.gauge(name, &format!("{help} Up is from the clients to the server."), &with("direction"), both)
}

fn failures(page: &Page, ended: &[(&Run, &FederatedFineTuneStatus)]) -> Result<(), Error> {
    let failed = ended.iter().filter(|(_, status)| status.phase == Some(Phase::Failed));
    let series =
        failed.map(|(run, status)| (labels(run, Some(status.stop_reason.as_deref().unwrap_or("Unknown"))), 1.0));
    page.gauge("fedtune_run_failed", "Runs that ended by an error, by its name.", &with("reason"), series)
}

fn with(label: &'static str) -> [&'static str; 5] {
    let [namespace, run, experiment, framework] = RUN;
    [namespace, run, experiment, framework, label]
}

fn labels(run: &Run, more: Option<&str>) -> Vec<String> {
    let framework = run.spec.framework.name().map_or("", |name| name.as_str());
    let (namespace, experiment) = (run.namespace().unwrap_or_default(), run.spec.experiment.clone());
    let mut labels = vec![namespace, run.name_any(), experiment, framework.to_owned()];
    labels.extend(more.map(str::to_owned));
    labels
}

fn number(text: Option<&str>) -> Option<f64> {
    text?.parse().ok()
}

/// The figure to its last digit where the run ended well, else what its column says.
fn exact(
    status: &FederatedFineTuneStatus,
    of: fn(&FinalFigures) -> &Option<String>,
    column: Option<&str>,
) -> Option<f64> {
    let last = status.final_figures.as_ref().and_then(|last| of(last).as_deref());
    number(last.or(column))
}

/// A registry to which families are added with the values that they have now.
#[derive(Default)]
struct Page {
    registry: Registry,
    families: RefCell<Vec<Family>>,
}

impl Page {
    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = (Vec<String>, f64)>,
    ) -> Result<(), Error> {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        for (values, value) in series {
            family.get_metric_with_label_values(&values)?.set(value);
        }
        self.families.borrow_mut().extend(described(Kind::Gauge, &family));
        self.registry.register(Box::new(family))
    }
}
