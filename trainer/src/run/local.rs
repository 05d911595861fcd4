//! One server and its clients in this process: a thread each, one copy of the base, the same wire as between machines.
//! Must not pass anything from client to server but through the wire.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{RunError, materials::Materials};
use crate::{
    client::{self, ClientError, ClientSetup, Finished},
    events::Events,
    meter::Slots,
    plan::Plan,
    server::{Inbox, Outcome, ServerError, ServerSetup, serve},
    wire::{self, Ledger, Limits, Terms, client::ConnectOptions, server::Listener},
};

/// How long a client waits for its own process's server.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a run leaves behind.
pub struct Ended {
    /// The server's part.
    pub outcome: Outcome,
    /// The clients', by ordinal; none where they are processes of their own.
    pub clients: Vec<Finished>,
    /// Whether each client is a process of its own, whose memory is measured rather than modelled.
    pub apart: bool,
}

/// What either side may send: bounds that only a broken peer meets.
pub fn terms(run_hash: &str) -> Terms {
    Terms { run: run_hash.to_owned(), limits: Limits { tensors: 10_000, payload_bytes: 8 << 30 } }
}

/// Runs server and clients until the run is over.
pub fn run(plan: &Plan, materials: &Materials, events: &Events) -> Result<Ended, RunError> {
    let runtime = wire::runtime().map_err(RunError::Runtime)?;
    let terms = terms(&materials.run_hash);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind(address, terms.clone(), runtime.handle())?;
    let url = format!("http://{}", listener.local_addr());
    let options = ConnectOptions { terms, patience: PATIENCE, runtime: runtime.handle().clone() };
    let slots = Slots::of_this_machine(plan.threads);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.rules.clients)
            .map(|ordinal| {
                let setup = client_setup(plan, materials, ordinal, &slots, events);
                let (url, options, inbox) = (&url, &options, sender.clone());
                scope.spawn(move || work(setup, url, options, &inbox))
            })
            .collect();
        let outcome = serve(server_setup(plan, materials, &slots, events), listener, (sender, receiver));
        let finished: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let outcome = outcome?;
        let finished = plan.clients.iter().zip(finished).map(|(client, ended)| {
            let panicked = |_| Err(ClientError::Panic("its thread ended without a word".to_owned()));
            ended.unwrap_or_else(panicked).map_err(|error| RunError::Client { client: client.to_string(), error })
        });
        Ok(Ended { outcome, clients: finished.collect::<Result<_, _>>()?, apart: false })
    })
}

/// A client's whole life. In one process a client that gives up does not come back: the run ends with its sentence.
fn work(
    setup: ClientSetup<'_>,
    url: &str,
    options: &ConnectOptions,
    inbox: &mpsc::Sender<Inbox>,
) -> Result<Finished, ClientError> {
    let client = setup.plan.clients[setup.ordinal].to_string();
    let worked = client::work(setup, url, options);
    if let Err(error) = &worked {
        let stop = ServerError::Client { client, reason: error.to_string() };
        // A server that is gone has ended the run itself.
        let _ = inbox.send(Inbox::Stop(stop));
    }
    worked
}

/// The server's share of the materials.
pub fn server_setup<'a>(plan: &'a Plan, materials: &Materials, slots: &Slots, events: &Events) -> ServerSetup<'a> {
    let corpus = &materials.corpus;
    ServerSetup {
        plan,
        base: materials.base.share(),
        lora: materials.lora.clone(),
        pad_id: materials.pad_id,
        public: if plan.framework.needs().public { corpus.public.clone() } else { Vec::new() },
        evaluation: corpus.evaluation.clone(),
        all_data: if plan.framework.needs().all_data { corpus.clients.clone() } else { Vec::new() },
        labels: corpus.label_order.clone(),
        slots: slots.clone(),
        events: events.clone(),
        ledger: Ledger::new(),
    }
}

/// A client's share of the materials.
pub fn client_setup<'a>(
    plan: &'a Plan,
    materials: &Materials,
    ordinal: usize,
    slots: &Slots,
    events: &Events,
) -> ClientSetup<'a> {
    let (needs, corpus) = (plan.framework.needs(), &materials.corpus);
    ClientSetup {
        plan,
        ordinal,
        base: materials.base.share(),
        lora: materials.lora.clone(),
        pad_id: materials.pad_id,
        train: corpus.clients[ordinal].clone(),
        public: if needs.public { corpus.public.clone() } else { Vec::new() },
        evaluation: if needs.client_evaluates { corpus.evaluation.clone() } else { Vec::new() },
        slots: slots.clone(),
        events: events.clone(),
    }
}
