//! Small reports with round figures, for the tests of every way to show them.
//! Must not be read by anything but tests.

use fedtune_crds::report::{
    Absence, ByteCount, ClientReport, Direction, Environment, FinalReport, Flops, FrameworkName, Hashes, LabelFigures,
    PayloadKind, RoundReport, RunPhase, RunReport, SCHEMA_VERSION, Seconds, ServerReport, TokenCount, Totals, UpDown,
    WorstClient,
};

const CLIENTS: [(&str, [u64; 2]); 4] =
    [("silo-a/0", [412, 96]), ("silo-a/1", [30, 371]), ("silo-b/0", [688, 12]), ("silo-b/1", [240, 205])];

/// What makes one sample differ from the next.
struct Shape {
    name: &'static str,
    framework: FrameworkName,
    accuracies: [f64; 3],
    losses: [f64; 3],
    kinds: &'static [(Direction, PayloadKind, u64)],
    /// Of one client.
    train_flops: f64,
    own_accuracies: Option<[f64; 4]>,
    round_seconds: f64,
}

use Direction::{Down, Up};

/// Parameters both ways.
pub(crate) fn fedllm() -> RunReport {
    report(&Shape {
        name: "mail-fedllm",
        framework: FrameworkName::FedLlm,
        accuracies: [0.71, 0.82, 0.864],
        losses: [0.58, 0.44, 0.36],
        kinds: &[
            (Down, PayloadKind::Adapter, 400_000),
            (Down, PayloadKind::Head, 6_152),
            (Up, PayloadKind::Adapter, 400_000),
            (Up, PayloadKind::Head, 6_152),
        ],
        train_flops: 2.1e12,
        own_accuracies: None,
        round_seconds: 41.5,
    })
}

/// Logits both ways.
pub(crate) fn kd() -> RunReport {
    report(&Shape {
        name: "mail-kd",
        framework: FrameworkName::KdFedLlm,
        accuracies: [0.69, 0.75, 0.802],
        losses: [0.61, 0.53, 0.47],
        kinds: &[(Up, PayloadKind::Logits, 3_200), (Down, PayloadKind::Logits, 3_200)],
        train_flops: 4.4e12,
        own_accuracies: Some([0.81, 0.742, 0.79, 0.83]),
        round_seconds: 88.0,
    })
}

/// Hidden states up, their gradients down.
pub(crate) fn split() -> RunReport {
    report(&Shape {
        name: "mail-split",
        framework: FrameworkName::SplitFedLlm,
        accuracies: [0.70, 0.84, 0.87],
        losses: [0.6, 0.41, 0.34],
        kinds: &[
            (Down, PayloadKind::Adapter, 26_000),
            (Up, PayloadKind::Activation, 9_437_184),
            (Down, PayloadKind::ActivationGradient, 9_437_184),
            (Up, PayloadKind::Label, 512),
            (Up, PayloadKind::Length, 512),
            (Up, PayloadKind::Adapter, 26_000),
        ],
        train_flops: 0.35e12,
        own_accuracies: None,
        round_seconds: 47.0,
    })
}

/// All data in one place: nothing is sent.
pub(crate) fn central() -> RunReport {
    let mut report = report(&Shape {
        name: "mail-central",
        framework: FrameworkName::Central,
        accuracies: [0.78, 0.86, 0.885],
        losses: [0.52, 0.37, 0.31],
        kinds: &[],
        train_flops: 0.0,
        own_accuracies: None,
        round_seconds: 40.0,
    });
    report.clients.clear();
    report.rounds.iter_mut().for_each(|round| round.participants.clear());
    report.totals.client_seconds = 0.0;
    report.server.flops.train = 8.4e12;
    report
}

/// Every client on its own.
pub(crate) fn local_only() -> RunReport {
    report(&Shape {
        name: "mail-local",
        framework: FrameworkName::LocalOnly,
        accuracies: [0.66, 0.70, 0.741],
        losses: [0.68, 0.63, 0.59],
        kinds: &[],
        train_flops: 2.1e12,
        own_accuracies: Some([0.79, 0.58, 0.77, 0.824]),
        round_seconds: 39.0,
    })
}

/// The three frameworks and both baselines.
pub(crate) fn five() -> Vec<RunReport> {
    vec![central(), fedllm(), kd(), local_only(), split()]
}

/// Failed before its first round was done.
pub(crate) fn failed() -> RunReport {
    let mut report = fedllm();
    report.name = "mail-broken".into();
    report.phase = RunPhase::Failed;
    report.stop_reason = "the loss of client silo-a/1 is not a number in round 1".into();
    report.rounds.clear();
    report.clients.clear();
    report.final_figures = FinalReport::default();
    report.totals = Totals::default();
    report
}

/// A sweep over the seed: twelve runs, four of each framework, of several lengths.
pub(crate) fn twelve() -> Vec<RunReport> {
    let kinds = [fedllm, kd, split];
    (0..12_u64)
        .map(|at| {
            let mut report = kinds[at as usize % 3]();
            report.seed = 40 + at;
            report.name = format!("{}-seed-{}", report.name, report.seed);
            let shift = (at as f64 - 6.0) * 0.004;
            report.rounds.iter_mut().for_each(|round| round.accuracy += shift);
            report.final_figures.accuracy += shift;
            report
        })
        .collect()
}

/// Figures near the end of what their types hold.
pub(crate) fn huge() -> RunReport {
    let mut report = fedllm();
    report.name = "huge".into();
    for round in &mut report.rounds {
        round.loss = 1e300;
        round.bytes.iter_mut().for_each(|count| (count.payload, count.wire) = (u64::MAX, u64::MAX));
    }
    report.totals.payload_bytes = UpDown { up: u64::MAX, down: u64::MAX };
    report.totals.wire_bytes = UpDown { up: u64::MAX, down: u64::MAX };
    report.totals.client_flops = 1e300;
    report.totals.seconds = 1e12;
    report.clients.iter_mut().for_each(|client| client.flops.train = 1e300);
    report
}

/// Every text that a person can choose tries to be markup.
pub(crate) fn hostile() -> RunReport {
    let attack = "</svg><script>alert('x')</script>&\"";
    let mut report = fedllm();
    report.name = format!("run {attack}");
    report.experiment = attack.into();
    report.phase = RunPhase::Failed;
    report.stop_reason = attack.into();
    report.spec = serde_json::json!({ "experiment": attack });
    report.hashes.spec = attack.into();
    report.environment.device = attack.into();
    report.final_figures.per_label.iter_mut().for_each(|label| label.label = attack.into());
    for client in &mut report.clients {
        client.client = attack.into();
        client.group = attack.into();
    }
    for round in &mut report.rounds {
        round.participants = vec![attack.into()];
        round.absent = vec![Absence { client: attack.into(), reason: attack.into() }];
    }
    report
}

fn report(shape: &Shape) -> RunReport {
    let rounds: Vec<RoundReport> = (1..=3).map(|number| round(shape, number)).collect();
    let clients: Vec<ClientReport> = (0..4).map(|ordinal| client(shape, ordinal)).collect();
    let totals = totals(&rounds, &clients);
    let last = &rounds[2];
    RunReport {
        schema_version: SCHEMA_VERSION,
        name: shape.name.into(),
        uid: "5f0c1d1e-0000-4000-8000-000000000001".into(),
        run_hash: "9b".repeat(32),
        experiment: "mail".into(),
        framework: shape.framework,
        seed: 42,
        attempt: 0,
        phase: RunPhase::Succeeded,
        stop_reason: "rounds".into(),
        spec: serde_json::json!({
            "experiment": "mail",
            "framework": { "fedLLM": { "upload": "Parameters" } },
            "training": { "rounds": 3, "localSteps": 8 },
            "seed": 42,
        }),
        hashes: hashes(shape.name),
        environment: Environment {
            fedtune: "0.1.0".into(),
            libtorch: "2.13.0".into(),
            isa: "AVX512".into(),
            threads: 1,
            device: "CPU (BF16)".into(),
        },
        final_figures: final_figures(shape, last),
        rounds,
        clients,
        server: ServerReport {
            flops: Flops { evaluate: 6.0e11, ..Flops::default() },
            seconds: Seconds { compute: 20.0, encode: 0.2, network: 0.1, wait: 100.0 },
            peak_memory_bytes: 1_420_000_000,
        },
        totals,
    }
}

fn round(shape: &Shape, number: u32) -> RoundReport {
    let accuracy = shape.accuracies[number as usize - 1];
    let counts = |(client, _): &(&str, [u64; 2])| {
        let client = (*client).to_owned();
        shape.kinds.iter().map(move |(direction, kind, payload)| ByteCount {
            client: client.clone(),
            direction: *direction,
            kind: *kind,
            payload: *payload,
            wire: payload + payload / 100,
            retransmitted: 0,
        })
    };
    RoundReport {
        round: number,
        seconds: shape.round_seconds,
        accuracy,
        // Two decimals: binary fractions would fill the expected tables with digits.
        macro_f1: (accuracy * 100.0 - 5.0).round() / 100.0,
        loss: shape.losses[number as usize - 1],
        train_loss: 0.4,
        client_mean_accuracy: None,
        client_flops: CLIENTS.len() as f64 * shape.train_flops / shape.losses.len() as f64,
        participants: CLIENTS.iter().map(|(client, _)| (*client).to_owned()).collect(),
        absent: Vec::new(),
        bytes: CLIENTS.iter().flat_map(counts).collect(),
        ..RoundReport::default()
    }
}

fn client(shape: &Shape, ordinal: usize) -> ClientReport {
    let (client, label_counts) = CLIENTS[ordinal];
    ClientReport {
        client: client.into(),
        group: client.split('/').next().unwrap_or_default().into(),
        examples: label_counts.iter().sum(),
        label_counts: label_counts.to_vec(),
        accuracy: shape.own_accuracies.map(|accuracies| accuracies[ordinal]),
        rank: 8,
        cut_layer: (shape.framework == FrameworkName::SplitFedLlm).then_some(2),
        steps: 24,
        tokens: TokenCount { real: 18_900 + 700 * ordinal as u64, padding: 2_100 },
        flops: Flops { train: shape.train_flops, evaluate: 0.0, ..Flops::default() },
        seconds: Seconds { compute: shape.round_seconds * 1.5, encode: 0.3, network: 0.4, wait: shape.round_seconds },
        peak_memory_bytes: 604_000_000,
        peak_memory_modelled: true,
    }
}

fn totals(rounds: &[RoundReport], clients: &[ClientReport]) -> Totals {
    let sum = |direction, figure: fn(&ByteCount) -> u64| {
        let counts = rounds.iter().flat_map(|round| &round.bytes);
        counts.filter(|count| count.direction == direction).map(figure).sum()
    };
    Totals {
        payload_bytes: UpDown { up: sum(Up, |count| count.payload), down: sum(Down, |count| count.payload) },
        wire_bytes: UpDown { up: sum(Up, |count| count.wire), down: sum(Down, |count| count.wire) },
        client_flops: clients.iter().map(|client| client.flops.headline()).sum(),
        client_seconds: clients.iter().map(|client| client.seconds.compute).sum(),
        seconds: rounds.iter().map(|round| round.seconds).sum::<f64>() + 2.0,
    }
}

fn final_figures(shape: &Shape, last: &RoundReport) -> FinalReport {
    let label =
        |label: &str, examples, f1| LabelFigures { label: label.into(), examples, precision: f1, recall: f1, f1 };
    let mean = |own: [f64; 4]| own.iter().sum::<f64>() / 4.0;
    let worst = |own: [f64; 4]| {
        let (at, accuracy) = own.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).expect("four clients");
        WorstClient { client: CLIENTS[at].0.into(), accuracy: *accuracy }
    };
    FinalReport {
        accuracy: last.accuracy,
        macro_f1: last.macro_f1,
        loss: last.loss,
        per_label: vec![label("ham", 686, last.macro_f1 + 0.06), label("spam", 314, last.macro_f1 - 0.06)],
        worst_client: shape.own_accuracies.map(worst),
        client_mean_accuracy: shape.own_accuracies.map(mean),
        majority: 0.686,
        ..FinalReport::default()
    }
}

fn hashes(name: &str) -> Hashes {
    let letter = name.chars().last().unwrap_or('0');
    Hashes {
        spec: format!("{:x}", letter as u32).repeat(32),
        base_model: "5d".repeat(32),
        tokenizer: "e1".repeat(32),
        data: "0a".repeat(32),
        partition: "7c".repeat(32),
    }
}
