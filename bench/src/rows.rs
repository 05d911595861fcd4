//! The table: what is measured, on which side by which program, and what the goal is.
//! Must not run anything.

use crate::work::steps::ModelName;

/// Sides that do the same work, and what is claimed of ours.
#[derive(Debug)]
pub(crate) struct Contest {
    /// What `--only` looks for, and the key of its line of JSON.
    pub name: String,
    /// The work in words: shapes, threads, precision.
    pub work: String,
    /// Ours first; each repeat runs all of them in this order.
    pub sides: Vec<Side>,
    /// What is to be shown.
    pub claims: Vec<Claim>,
    /// Whether its processes run in a network namespace of their own, so that loopback carries nothing else.
    pub own_network: bool,
}

/// One side of a contest.
#[derive(Debug)]
pub(crate) struct Side {
    /// As the table calls it.
    pub name: String,
    /// What does the work.
    pub program: Program,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// What does a side's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `fedtune-bench work`.
    Work,
    /// A script of `bench/peers`, left out where there is no environment for it.
    Peer(&'static str),
}

/// A figure of our side, held against a goal.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Which figure.
    pub figure: Figure,
    /// Which other side it is compared with, as an index into [`Contest::sides`]; none for the figure alone.
    pub against: Option<usize>,
    /// What is to be reached; none where the row only informs.
    pub goal: Option<Goal>,
}

/// What is read of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// From the start of the process to its end.
    Wall,
    /// CPU seconds of all processes.
    Cpu,
    /// Peak memory of all processes, shared pages once.
    Memory,
    /// A number in what the run said, and its unit.
    Said(&'static str, Unit),
}

/// How a figure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes, shown as MiB.
    Bytes,
    /// Bytes a second, shown as MB/s.
    BytesPerSecond,
    /// Examples a second.
    ExamplesPerSecond,
    /// A plain number.
    Times,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// Ours divided by theirs.
    RatioAtMost(f64),
    /// Ours divided by theirs.
    RatioAtLeast(f64),
    /// Ours minus theirs, divided by this count.
    GrowthBelow(f64, f64),
    /// Our figure.
    Below(f64),
    /// Our figure.
    Above(f64),
}

/// Seconds of a step.
const STEP: Figure = Figure::Said("seconds", Unit::Seconds);
/// CPU seconds of a step, of all threads.
const STEP_CPU: Figure = Figure::Said("cpuSeconds", Unit::Seconds);
/// Peak resident size of a process, as the system counts it.
const PEAK: Figure = Figure::Said("peakBytes", Unit::Bytes);
const MB: f64 = 1e6;

/// Every contest; with `smoke` of a size that takes seconds.
pub(crate) fn contests(smoke: bool) -> Vec<Contest> {
    let steps = ModelName::ALL.into_iter().flat_map(|model| {
        ["F32", "BF16"].into_iter().map(move |precision| step(model, precision, smoke)).collect::<Vec<_>>()
    });
    let mut all: Vec<Contest> = steps.collect();
    if smoke {
        all.retain(|contest| contest.name.contains("minilm"));
    }
    all.extend([real_lengths(smoke), first_step(), split_step(smoke)]);
    all.extend([whole_job(smoke), five_processes(smoke), many_clients(smoke)]);
    all.extend([logits("dense", smoke), logits("top-128", smoke)]);
    all.extend([aggregation(1000, 8, smoke), aggregation(100, 456, smoke)]);
    all
}

fn side(name: &str, program: Program, arguments: &str) -> Side {
    let arguments = arguments.split_whitespace().map(str::to_owned).collect();
    Side { name: name.to_owned(), program, arguments }
}

fn claim(figure: Figure, against: usize, goal: Goal) -> Claim {
    Claim { figure, against: Some(against), goal: Some(goal) }
}

fn step(model: ModelName, precision: &str, smoke: bool) -> Contest {
    let (batch, seq) = model.batch();
    let (steps, warmup) = if smoke { (1, 1) } else { model.steps() };
    let arguments = format!(
        "--model {model} --precision {precision} --threads 2 --batch {batch} --seq {seq} --steps {steps} --warmup {warmup}"
    );
    let goal = match (model, precision) {
        (ModelName::Gpt2, _) | (ModelName::Minilm, "BF16") => 0.90,
        (ModelName::Minilm | ModelName::Smollm2, _) => 0.97,
    };
    let mut sides = vec![
        side("fedtune", Program::Work, &format!("step {arguments}")),
        side("PEFT", Program::Peer("step.py"), &arguments),
    ];
    let mut claims = vec![
        claim(STEP, 1, Goal::RatioAtMost(goal)),
        Claim { figure: STEP_CPU, against: Some(1), goal: None },
        claim(PEAK, 1, Goal::RatioAtMost(0.6)),
    ];
    if model == ModelName::Gpt2 || model == ModelName::Minilm {
        sides.push(side("bare PyTorch", Program::Peer("bare_step.py"), &arguments));
        claims.push(Claim { figure: STEP, against: Some(2), goal: None });
    }
    Contest {
        name: format!("step-{model}-{}", precision.to_lowercase()),
        work: format!("LoRA step {} r=8, B{batch} S{seq}, {precision}, 2 threads", model.words()),
        sides,
        claims,
        own_network: false,
    }
}

fn real_lengths(smoke: bool) -> Contest {
    let steps = if smoke { 2 } else { 50 };
    let arguments = format!(
        "--model minilm --precision F32 --threads 2 --batch 16 --seq 64 --steps {steps} --warmup 3 --lengths banking77"
    );
    Contest {
        name: "lengths-banking77".into(),
        work: "LoRA steps MiniLM r=8, B16, lengths of Banking77 (median 13 tokens), F32, 2 threads".into(),
        sides: vec![
            side("fedtune", Program::Work, &format!("step {arguments}")),
            side("PEFT, dynamic padding", Program::Peer("step.py"), &arguments),
        ],
        claims: vec![claim(Figure::Said("examplesPerSecond", Unit::ExamplesPerSecond), 1, Goal::RatioAtLeast(1.4))],
        own_network: false,
    }
}

fn first_step() -> Contest {
    let arguments = "--model minilm --precision F32 --threads 2 --batch 16 --seq 64 --steps 1 --warmup 0";
    Contest {
        name: "first-step".into(),
        work: "start of the process to the end of the first step, MiniLM B16 S64, F32".into(),
        sides: vec![side("fedtune", Program::Work, "first-step"), side("PEFT", Program::Peer("step.py"), arguments)],
        claims: vec![claim(Figure::Said("sinceStart", Unit::Seconds), 1, Goal::Below(1.0))],
        own_network: false,
    }
}

fn split_step(smoke: bool) -> Contest {
    let (steps, warmup) = if smoke { (2, 1) } else { (12, 3) };
    let arguments = format!("--batch 16 --seq 64 --cut 2 --threads 2 --steps {steps} --warmup {warmup}");
    Contest {
        name: "split-step".into(),
        work: "split step MiniLM r=8 cut after block 2 of 6, B16 S64, F32, 2 threads; ours over loopback".into(),
        sides: vec![
            side("fedtune", Program::Work, &format!("split-step {arguments}")),
            side("PyTorch in one process", Program::Peer("split_step.py"), &arguments),
        ],
        claims: vec![claim(STEP, 1, Goal::RatioAtMost(1.05)), Claim { figure: STEP_CPU, against: Some(1), goal: None }],
        own_network: false,
    }
}

/// Arguments of a federated job, the same on every side.
fn job(smoke: bool) -> &'static str {
    if smoke {
        "--clients 2 --rounds 1 --local-steps 1 --batch 2 --seq 16"
    } else {
        "--clients 4 --rounds 3 --local-steps 5 --batch 16 --seq 64"
    }
}

fn whole_job(smoke: bool) -> Contest {
    let arguments = job(smoke);
    Contest {
        name: "job".into(),
        work: "4 clients x 3 rounds x 5 steps of 16x64, MiniLM r=8, F32; process start to adapter on disk".into(),
        sides: vec![
            side("fedtune run", Program::Work, &format!("job {arguments}")),
            side("bare PyTorch loop", Program::Peer("bare_job.py"), &format!("{arguments} --threads 2")),
            side("Flower simulation", Program::Peer("flower_simulation.py"), &format!("{arguments} --threads 1")),
        ],
        claims: vec![
            claim(Figure::Wall, 1, Goal::RatioAtMost(0.8)),
            claim(Figure::Wall, 2, Goal::RatioAtMost(0.5)),
            claim(Figure::Memory, 2, Goal::Below(700.0 * MB)),
            Claim { figure: Figure::Cpu, against: Some(2), goal: None },
        ],
        own_network: false,
    }
}

fn five_processes(smoke: bool) -> Contest {
    let arguments = job(smoke);
    Contest {
        name: "five-processes".into(),
        work: "the same job, a server and 4 clients as processes of their own, one thread each".into(),
        sides: vec![
            side("fedtune", Program::Work, &format!("apart {arguments}")),
            side("Flower deployment", Program::Peer("flower_deployment.py"), &format!("{arguments} --threads 1")),
        ],
        claims: vec![
            claim(Figure::Wall, 1, Goal::RatioAtMost(1.0 / 3.0)),
            claim(Figure::Memory, 1, Goal::RatioAtMost(0.25)),
            claim(Figure::Said("loopbackOverPayload", Unit::Times), 1, Goal::Below(1.02)),
            Claim {
                figure: Figure::Said("socketOverPayload", Unit::Times),
                against: None,
                goal: Some(Goal::Below(1.02)),
            },
        ],
        own_network: true,
    }
}

fn many_clients(smoke: bool) -> Contest {
    let counts = if smoke { [1, 2, 3, 4] } else { [8, 16, 32, 64] };
    let most = counts[3];
    let sides = counts.into_iter().rev().map(|clients| {
        let local_steps = (most / clients).max(1);
        let arguments = format!("job --clients {clients} --rounds 2 --local-steps {local_steps} --batch 16 --seq 32");
        side(&format!("fedtune run, {clients} clients"), Program::Work, &arguments)
    });
    let growth = f64::from(most - counts[0]);
    Contest {
        name: "many-clients".into(),
        work: format!("{} to {most} simulated clients, {} steps of 16x32 in all, MiniLM r=8, F32", counts[0], 2 * most),
        sides: sides.collect(),
        claims: vec![
            claim(Figure::Wall, 3, Goal::RatioAtMost(1.1)),
            Claim { figure: Figure::Wall, against: Some(1), goal: None },
            claim(Figure::Memory, 3, Goal::GrowthBelow(growth, 15.0 * MB)),
        ],
        own_network: false,
    }
}

fn logits(form: &str, smoke: bool) -> Contest {
    let reads = if smoke { 16 } else { 1024 };
    Contest {
        name: format!("logits-{form}"),
        work: format!("{form} logits, {reads} states over 50,257 classes: encode, send over loopback, check, decode"),
        sides: vec![side("fedtune", Program::Work, &format!("logits --form {form} --reads {reads}"))],
        claims: vec![Claim {
            figure: Figure::Said("bytesPerCpuSecond", Unit::BytesPerSecond),
            against: None,
            goal: Some(Goal::Above(500.0 * MB)),
        }],
        own_network: false,
    }
}

fn aggregation(clients: u32, rank: u32, smoke: bool) -> Contest {
    let (clients, size) = (if smoke { 4 } else { clients }, if rank == 8 { "413 kB" } else { "16.8 MB" });
    Contest {
        name: format!("aggregation-{}", size.replace(' ', "").to_lowercase()),
        work: format!(
            "mean of {clients} adapters of {size} in F64, in client order, as they come from clients; 1 thread"
        ),
        sides: vec![side("fedtune", Program::Work, &format!("aggregation --clients {clients} --rank {rank}"))],
        claims: vec![
            Claim {
                figure: Figure::Said("bytesPerSecond", Unit::BytesPerSecond),
                against: None,
                goal: Some(Goal::Above(1000.0 * MB)),
            },
            Claim {
                figure: Figure::Said("grownAdapters", Unit::Times),
                against: None,
                goal: (rank != 8).then_some(Goal::Below(4.0)),
            },
            Claim {
                figure: Figure::Said("grownBytes", Unit::Bytes),
                against: None,
                goal: (rank == 8).then_some(Goal::Below(64.0 * MB)),
            },
        ],
        own_network: false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_contest_has_a_name_of_its_own_and_our_side_first() {
        for smoke in [false, true] {
            let all = contests(smoke);
            let names: BTreeSet<&str> = all.iter().map(|contest| contest.name.as_str()).collect();
            assert_eq!(names.len(), all.len());
            assert!(all.iter().all(|contest| contest.sides[0].program == Program::Work));
        }
    }

    #[test]
    fn every_claim_is_against_a_side_that_there_is() {
        for contest in contests(false).iter().chain(&contests(true)) {
            for claim in &contest.claims {
                assert!(claim.against.is_none_or(|side| (1..contest.sides.len()).contains(&side)), "{}", contest.name);
            }
        }
    }
}
