//! A whole federated run of the trainer's program: together in one process, or apart in many.
//! Must not know the trainer from inside: it starts programs and reads what they leave.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    corpus::{LABELS, write_texts},
    places,
};
use crate::{error::BenchError, process::loopback_bytes};

/// Arguments of `work job` and `work apart`.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    #[arg(long, default_value_t = 4)]
    pub(super) clients: usize,
    #[arg(long, default_value_t = 3)]
    pub(super) rounds: usize,
    #[arg(long, default_value_t = 5)]
    pub(super) local_steps: usize,
    #[arg(long, default_value_t = 16)]
    pub(super) batch: usize,
    #[arg(long, default_value_t = 64)]
    pub(super) seq: usize,
    /// Of each client.
    #[arg(long, default_value_t = 1)]
    pub(super) threads: usize,
}

/// The files of a run.
pub(super) struct Prepared {
    /// What to run.
    pub(super) spec: PathBuf,
    /// Where it writes.
    out: PathBuf,
    /// Where tokenised texts are kept: a folder of this run's, so that none are found.
    cache: PathBuf,
}

const NAME: &str = "job";

/// Writes spec and texts.
pub(super) fn prepare(arguments: &JobArgs) -> Result<Prepared, BenchError> {
    let folder = places::scratch().join(format!("{NAME}-{}-{}", arguments.clients, std::process::id()));
    let failed = |error| BenchError::io(format!("{} cannot be written", folder.display()), error);
    fs::create_dir_all(&folder).map_err(failed)?;
    let (spec, texts) = (folder.join("spec.yaml"), folder.join("texts.csv"));
    // Enough for every client to have fresh examples in each step of a round, and for the label of the one row more that
    // is held out to be trained.
    let rows = (arguments.clients * arguments.local_steps * arguments.batch).max(2 * LABELS) + 1;
    write_texts(&texts, rows, arguments.seq).map_err(failed)?;
    fs::write(&spec, spec_of(arguments, &texts)).map_err(failed)?;
    Ok(Prepared { spec, out: folder.join("out"), cache: folder.join("cache") })
}

fn spec_of(arguments: &JobArgs, texts: &Path) -> String {
    let JobArgs { clients, rounds, local_steps, batch, seq, threads } = arguments;
    let (model, texts) = (places::models().join("minilm"), texts.display());
    format!(
        "
apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {{name: {NAME}}}
spec:
  framework: {{fedLLM: {{}}}}
  model: {{source: {{path: '{}'}}, precision: F32}}
  tuning: {{lora: {{rank: 8, alpha: '16', targetModules: [query, value]}}}}
  data: {{source: {{path: '{texts}'}}, partition: {{iid: {{}}}}, evaluation: {{examples: 1}}}}
  training:
    {{rounds: {rounds}, localSteps: {local_steps}, batchSize: {batch}, maxSequenceLength: {seq}, threads: {threads},
    weightDecay: '0.01', optimizer: {{adamW: {{learningRate: '1e-4'}}}}}}
  clients: {{groups: [{{name: silo, replicas: {clients}}}]}}
",
        model.display()
    )
}

/// `fedtune run`.
pub(super) fn together(arguments: &JobArgs) -> Result<Value, BenchError> {
    let prepared = prepare(arguments)?;
    let run = start(program("run", &prepared).arg("--fresh"))?;
    wait(run, "run")?;
    finish(&prepared)
}

/// `fedtune server` and a `fedtune client` each.
pub(super) fn apart(arguments: &JobArgs) -> Result<Value, BenchError> {
    let prepared = prepare(arguments)?;
    let before = loopback_bytes();
    let address = free_address()?;
    let server = start(program("server", &prepared).args(["--fresh", "--listen", &address]))?;
    let url = format!("http://{address}");
    let clients = (0..arguments.clients)
        .map(|index| start(program("client", &prepared).args(["--client", &format!("silo/{index}"), "--server", &url])))
        .collect::<Result<Vec<_>, _>>()?;
    clients.into_iter().try_for_each(|client| wait(client, "client"))?;
    wait(server, "server")?;
    let mut said = finish(&prepared)?;
    if let (Some(before), Some(after), Some(payload)) = (before, loopback_bytes(), said["payloadBytes"].as_f64()) {
        said["loopbackBytes"] = json!(after - before);
        said["loopbackOverPayload"] = json!((after - before) as f64 / payload);
    }
    Ok(said)
}

fn program(command: &str, prepared: &Prepared) -> Command {
    let mut program = Command::new(places::program());
    program.args(["--quiet", command]).arg(&prepared.spec);
    program.arg("--out").arg(&prepared.out).arg("--cache").arg(&prepared.cache);
    program.stdin(Stdio::null()).stdout(Stdio::null());
    // As a user starts it: what this process was given for itself is not for another command.
    for settled in ["MALLOC_CONF", "OMP_WAIT_POLICY", "FEDTUNE_ENVIRONMENT_SETTLED"] {
        program.env_remove(settled);
    }
    program
}

fn start(command: &mut Command) -> Result<Child, BenchError> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.spawn().map_err(|error| BenchError::io(format!("{name} cannot be started"), error))
}

fn wait(mut child: Child, what: &str) -> Result<(), BenchError> {
    let status = child.wait().map_err(|error| BenchError::io(format!("fedtune {what} cannot be waited for"), error))?;
    if status.success() {
        return Ok(());
    }
    Err(BenchError::Failed {
        command: format!("fedtune {what}"),
        status: status.to_string(),
        complaint: "its words are above".to_owned(),
    })
}

/// A port that was free a moment ago.
fn free_address() -> Result<String, BenchError> {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address.map(|address| address.to_string()).map_err(|error| BenchError::io("there is no free port", error))
}

/// What the run says of itself; its files go, after they were looked at.
fn finish(prepared: &Prepared) -> Result<Value, BenchError> {
    let run = prepared.out.join(NAME);
    let results =
        fs::read(run.join("results.json")).map_err(|error| BenchError::io("the run left no results", error))?;
    let adapter = run.join("adapter").join("adapter_model.safetensors");
    let length = fs::metadata(&adapter).map_err(|error| BenchError::io("the run left no adapter", error))?.len();
    let results: Value = serde_json::from_slice(&results).map_err(BenchError::trainer)?;
    let both = |what: &str| ["up", "down"].iter().filter_map(|way| results["totals"][what][way].as_u64()).sum::<u64>();
    let (payload, socket) = (both("payloadBytes"), both("wireBytes"));
    if let Some(folder) = prepared.spec.parent() {
        fs::remove_dir_all(folder).map_err(|error| BenchError::io("the run's files cannot be removed", error))?;
    }
    Ok(json!({
        "payloadBytes": payload,
        "socketBytes": socket,
        "socketOverPayload": socket as f64 / payload as f64,
        "adapterBytes": length,
        "runSeconds": results["totals"]["seconds"],
    }))
}
