//! The figures as Prometheus metrics: names, types and labels are the field's contract with its dashboards.
//! Must not carry a round number, a uid or a sentence as a label, nor more series per client than the spec allows.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{SystemTime, UNIX_EPOCH},
};

use fedtune_crds::{
    reference::metrics::{Family, Kind, section},
    report::{Direction, FrameworkName, UpDown},
};
use prometheus::{CounterVec, Error, GaugeVec, Histogram, HistogramOpts, Opts, Registry, core::Collector};

use super::{
    Role, RunFacts,
    figures::{ClientFigures, LiveFigures},
    volume::Room,
};
use crate::{refusal::RefusalReason, wire::Ledger};

/// From a tiny model's round to a night.
const ROUND_BUCKETS: [f64; 13] =
    [0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0];

/// The client of all series that do not fit under the cap. No id is without a slash, so none is this word.
const OTHER: &str = "other";

/// Labels that every series of the run has.
pub(super) fn run_labels(facts: &RunFacts) -> HashMap<String, String> {
    HashMap::from([
        ("namespace".to_owned(), facts.namespace.clone()),
        ("run".to_owned(), facts.run.clone()),
        ("experiment".to_owned(), facts.experiment.clone()),
        ("framework".to_owned(), facts.framework.to_string()),
    ])
}

/// The sections on these metrics of the page on all of them, as Markdown.
///
/// # Errors
/// Never, as long as the names below are names.
pub fn reference() -> Result<String, Error> {
    let facts = RunFacts {
        namespace: String::new(),
        run: String::new(),
        experiment: String::new(),
        framework: FrameworkName::FedLlm,
        rounds: 0,
        clients: Vec::new(),
        max_client_series: 0,
    };
    let figures = LiveFigures::new(UNIX_EPOCH);
    let families = |role| register(&Registry::new(), &role, &facts, &figures, &Ledger::new(), None);
    let of_run = "Each series has the labels `namespace`, `run`, `experiment` and `framework` besides.";
    let capped = "A run of more clients than `metrics.maxClientSeries` shows the others as `client=\"other\"`.";
    let server = section("A run's server", &format!("{of_run} {capped}"), &families(Role::Server)?);
    let client = section(
        "A run's client",
        &format!("{of_run} They are of this process alone."),
        &families(Role::Client(OTHER.to_owned()))?,
    );
    Ok(server + &client)
}

/// Registers the metrics of this role with the values that they have now; says which they are.
pub(super) fn register(
    registry: &Registry,
    role: &Role,
    facts: &RunFacts,
    figures: &LiveFigures,
    ledger: &Ledger,
    volume: Option<Room>,
) -> Result<Vec<Family>, Error> {
    let page = Page { registry, families: RefCell::default() };
    match role {
        Role::Server => {
            progress(&page, facts, figures)?;
            participation(&page, facts, figures)?;
            bytes(&page, facts, ledger)?;
            checkpoint(&page, figures, volume)?;
        }
        Role::Client(id) => {
            let own = figures.clients.get(id).copied().unwrap_or_default();
            client(&page, id, own)?;
        }
    }
    certificate(&page, figures)?;
    Ok(page.families.into_inner())
}

/// Where the run is, and how good the model is.
fn progress(page: &Page<'_>, facts: &RunFacts, figures: &LiveFigures) -> Result<(), Error> {
    page.gauge("fedtune_round", "Last finished round.", &[], [(vec![], f64::from(figures.round))])?;
    page.gauge("fedtune_rounds", "Rounds of the run.", &[], [(vec![], f64::from(facts.rounds))])?;
    let accuracy = figures.accuracy.map(|accuracy| (vec![], accuracy));
    let help = "Share of held-out examples labelled rightly after the last finished round.";
    page.gauge("fedtune_evaluation_accuracy_ratio", help, &[], accuracy)?;
    let loss = figures.loss.map(|loss| (vec![], loss));
    let help = "Mean cross-entropy on held-out examples after the last finished round, in nats.";
    page.gauge("fedtune_evaluation_loss", help, &[], loss)?;
    let help = "Seconds from the begin of a round to its end, evaluation included.";
    page.histogram("fedtune_round_duration_seconds", help, &ROUND_BUCKETS, &figures.round_seconds)
}

/// Who is here, who was refused, who gave up.
fn participation(page: &Page<'_>, facts: &RunFacts, figures: &LiveFigures) -> Result<(), Error> {
    let ready = figures.present.len();
    let away = facts.clients.len().saturating_sub(ready);
    let states = [(vec!["ready"], ready as f64), (vec!["away"], away as f64)];
    page.gauge("fedtune_clients", "Clients of the run, by whether they are connected.", &["state"], states)?;
    let count = |reason: &RefusalReason| figures.refused.get(reason).copied().unwrap_or(0) as f64;
    let refused = RefusalReason::ALL.iter().map(|reason| (vec![reason.as_str()], count(reason)));
    let help = "Messages and sessions of clients that were refused.";
    page.counter("fedtune_uploads_refused_total", help, &["reason"], refused)?;
    let help = "Clients that said they cannot go on.";
    page.counter("fedtune_client_failures_total", help, &[], [(vec![], figures.client_failures as f64)])
}

/// Every byte, as the server's ledger has it.
fn bytes(page: &Page<'_>, facts: &RunFacts, ledger: &Ledger) -> Result<(), Error> {
    let named: BTreeSet<&str> = facts.clients.iter().take(facts.max_client_series).map(String::as_str).collect();
    let shown = |client: &str| named.get(client).copied().unwrap_or(OTHER);

    let mut payload: BTreeMap<_, u64> = BTreeMap::new();
    for ((client, direction, kind), bytes) in ledger.payload() {
        *payload.entry((shown(&client), direction, kind)).or_default() += bytes;
    }
    let series = payload
        .into_iter()
        .map(|((client, direction, kind), bytes)| (vec![client, direction.as_str(), kind.as_str()], bytes as f64));
    let help = "Tensor bytes handed to the wire; up is from the client to the server.";
    page.counter("fedtune_payload_bytes_total", help, &["client", "direction", "kind"], series)?;

    let help = "Bytes that the clients' sockets carried, framing and encryption included.";
    let carried = both_directions(ledger.wire(), shown);
    page.counter("fedtune_wire_bytes_total", help, &["client", "direction"], carried)?;
    let help = "Payload bytes sent again after a broken link, in neither of the other counts.";
    let again = both_directions(ledger.retransmitted(), shown);
    page.counter("fedtune_retransmitted_bytes_total", help, &["client", "direction"], again)
}

/// A series for each client shown and direction.
fn both_directions<'a>(bytes: BTreeMap<String, UpDown>, shown: impl Fn(&str) -> &'a str) -> Vec<Series<'a>> {
    let mut sums: BTreeMap<&str, UpDown> = BTreeMap::new();
    for (client, UpDown { up, down }) in bytes {
        let sum = sums.entry(shown(&client)).or_default();
        *sum = UpDown { up: sum.up + up, down: sum.down + down };
    }
    let both = |(client, sum): (_, UpDown)| {
        [(Direction::Up, sum.up), (Direction::Down, sum.down)]
            .map(|(direction, bytes)| (vec![client, direction.as_str()], bytes as f64))
    };
    sums.into_iter().flat_map(both).collect()
}

/// How old the checkpoint is, and how much room there is for the next.
fn checkpoint(page: &Page<'_>, figures: &LiveFigures, volume: Option<Room>) -> Result<(), Error> {
    let written = figures.checkpointed.map(|time| (vec![], unix_seconds(time)));
    let help = "When the last checkpoint became durable, in seconds since the Unix epoch.";
    page.gauge("fedtune_checkpoint_timestamp_seconds", help, &[], written)?;
    let room = volume.map(|room| {
        [("used", room.used), ("free", room.free), ("total", room.total)]
            .map(|(state, bytes)| (vec![state], bytes as f64))
    });
    let help = "Bytes of the volume that checkpoints are written to; free are those that this user may take.";
    page.gauge("fedtune_checkpoint_volume_bytes", help, &["state"], room.into_iter().flatten())
}

/// What a client process did itself.
fn client(page: &Page<'_>, id: &str, ClientFigures { meter, peak_memory_bytes }: ClientFigures) -> Result<(), Error> {
    let by = |series: Vec<(&'static str, f64)>| series.into_iter().map(move |(label, value)| (vec![id, label], value));
    let flops = vec![
        ("train", meter.flops.train),
        ("publicForward", meter.flops.public_forward),
        ("distill", meter.flops.distill),
        ("evaluate", meter.flops.evaluate),
    ];
    let help = "Floating point operations; a multiply and an add are two.";
    page.counter("fedtune_client_flops_total", help, &["client", "phase"], by(flops))?;
    let seconds = vec![
        ("compute", meter.seconds.compute),
        ("encode", meter.seconds.encode),
        ("network", meter.seconds.network),
        ("wait", meter.seconds.wait),
    ];
    let help = "Where the client's time went.";
    page.counter("fedtune_client_seconds_total", help, &["client", "activity"], by(seconds))?;
    let tokens = vec![("real", meter.tokens.real as f64), ("padding", meter.tokens.padding as f64)];
    let help = "Tokens that went through the client's model in training.";
    page.counter("fedtune_client_tokens_total", help, &["client", "kind"], by(tokens))?;
    let help = "Peak resident size of the client's process.";
    let peak = (peak_memory_bytes > 0).then_some((vec![id], peak_memory_bytes as f64));
    page.gauge("fedtune_client_peak_memory_bytes", help, &["client"], peak)
}

fn certificate(page: &Page<'_>, figures: &LiveFigures) -> Result<(), Error> {
    let expiry = figures.certificate_expiry.map(|time| (vec![], unix_seconds(time)));
    let help = "When the certificate in use ends, in seconds since the Unix epoch.";
    page.gauge("fedtune_certificate_expiry_timestamp_seconds", help, &[], expiry)
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Values of the labels, and the value.
type Series<'a> = (Vec<&'a str>, f64);

/// A registry to which families are added with the values that they have now.
struct Page<'a> {
    registry: &'a Registry,
    families: RefCell<Vec<Family>>,
}

impl Page<'_> {
    fn add(&self, kind: Kind, collector: impl Collector + 'static) -> Result<(), Error> {
        let families = collector.desc().into_iter().map(|desc| Family {
            name: desc.fq_name.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        });
        self.families.borrow_mut().extend(families);
        self.registry.register(Box::new(collector))
    }

    fn gauge<'b>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = Series<'b>>,
    ) -> Result<(), Error> {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        for (values, value) in series {
            family.get_metric_with_label_values(&values)?.set(value);
        }
        self.add(Kind::Gauge, family)
    }

    fn counter<'b>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = Series<'b>>,
    ) -> Result<(), Error> {
        let family = CounterVec::new(Opts::new(name, help), labels)?;
        for (values, value) in series {
            family.get_metric_with_label_values(&values)?.inc_by(value);
        }
        self.add(Kind::Counter, family)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64], observed: &[f64]) -> Result<(), Error> {
        let family = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
        for value in observed {
            family.observe(*value);
        }
        self.add(Kind::Histogram, family)
    }
}
