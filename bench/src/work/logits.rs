//! Logits of a language model from one model thread to another: encoded, sent over loopback, checked, read back.
//! Must not hold two of the dense logits: a batch of them is made, encoded and forgotten, as a client does.

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Instant,
};

use clap::{Args, ValueEnum};
use fedtune::{
    frameworks::kd::{Form, Layout, read_logits, write_logits},
    wire::{
        self, Limits, Line, Message, Subject, Terms,
        client::{ConnectOptions, connect},
        server::Listener,
    },
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::{error::BenchError, process::own_cpu_seconds};

const CLASSES: usize = 50_257;
const TEMPERATURE: f64 = 2.0;
const RUN: &str = "bench";
/// The first one's memory is new to the process, as in a run; those after it are like the second.
const ROUNDS: [u32; 2] = [1, 2];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormName {
    /// All, F32.
    Dense,
    /// The 128 largest of each state.
    #[value(name = "top-128")]
    Top128,
}

/// Arguments of `work logits`.
#[derive(Debug, Args)]
pub(crate) struct LogitsArgs {
    #[arg(long, value_enum, default_value_t = FormName::Dense)]
    form: FormName,
    /// States that are read.
    #[arg(long, default_value_t = 1024)]
    reads: usize,
}

/// Sends the logits of all states twice, as in two rounds, and measures the second.
pub(super) fn run(arguments: &LogitsArgs) -> Result<Value, BenchError> {
    tch::set_num_threads(1);
    let form = match arguments.form {
        FormName::Dense => Form::Dense,
        FormName::Top128 => Form::TopK(128),
    };
    let layout = Layout { reads: arguments.reads, classes: CLASSES, form };
    // A batch of a client's model; the same for all, as making them is not what is measured.
    tch::manual_seed(0);
    let batch = Tensor::randn([64.min(arguments.reads as i64), CLASSES as i64], (Kind::Float, Device::Cpu)) * 3.0;
    let Sent { bytes: sent, seconds, cpu } = send(layout, batch)?;
    let dense = (arguments.reads * CLASSES * 4) as f64;
    Ok(json!({
        "bytesPerCpuSecond": dense / cpu,
        "bytesPerSecond": dense / seconds,
        "cpuSeconds": cpu,
        "seconds": seconds,
        "denseBytes": dense,
        "sentBytes": sent,
    }))
}

/// What the second sending took.
struct Sent {
    bytes: u64,
    seconds: f64,
    cpu: f64,
}

fn send(layout: Layout, batch: Tensor) -> Result<Sent, BenchError> {
    let runtime = wire::runtime().map_err(|error| BenchError::io("no network threads", error))?;
    let limits = Limits { tensors: 4, payload_bytes: 8 << 30 };
    let terms = Terms { run: RUN.to_owned(), limits };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut listener = Listener::bind(address, terms.clone(), runtime.handle()).map_err(BenchError::trainer)?;
    let url = format!("http://{}", listener.local_addr());
    let options = ConnectOptions::plain(terms, runtime.handle());
    thread::scope(|scope| {
        let (url, options) = (&url, &options);
        let client = scope.spawn(move || {
            let mut link = connect(url, options).map_err(BenchError::trainer)?;
            link.send(Message::new(Subject::Join, 0)).map_err(BenchError::trainer)?;
            link.receive().map_err(BenchError::trainer)?;
            for round in ROUNDS {
                let tensors = write_logits(layout, TEMPERATURE, &batch).map_err(BenchError::trainer)?;
                link.send(Message { tensors, ..Message::new(Subject::Upload, round) }).map_err(BenchError::trainer)?;
                // Not before it was read: dropping the link ends the session.
                link.receive().map_err(BenchError::trainer)?;
            }
            Ok(())
        });
        let mut link = listener.accept().ok_or_else(|| BenchError::Trainer("nobody came".to_owned()))?.link;
        link.limits().set(limits);
        link.send(Message::new(Subject::Welcome, 0)).map_err(BenchError::trainer)?;
        let mut last = None;
        for round in ROUNDS {
            let (started, cpu) = (Instant::now(), own_cpu_seconds());
            let message = link.receive().map_err(BenchError::trainer)?;
            let read = read_logits(&message, layout, "the client").map_err(BenchError::trainer)?;
            let (seconds, cpu) = (started.elapsed().as_secs_f64(), own_cpu_seconds() - cpu);
            if read != layout.reads {
                return Err(BenchError::Trainer(format!("{read} states were read")));
            }
            last = Some(Sent { bytes: message.payload_bytes(), seconds, cpu });
            link.send(Message::new(Subject::Finish, round)).map_err(BenchError::trainer)?;
        }
        client.join().map_err(|_| BenchError::Trainer("the client's thread ended without a word".to_owned()))??;
        Ok(last.expect("there is more than one round"))
    })
}
