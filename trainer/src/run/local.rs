//! One server and its clients in this process: a thread each, one copy of the base, the same wire as between machines.
//! Must not pass anything from client to server but through the wire.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{RunError, folder::CHECKPOINTS, materials::Materials, uid};
use crate::{
    checkpoint::{InMemory, Keep, Owner, Store},
    client::{self, ClientError, ClientSetup, Finished, dialer::Dialer},
    events::Events,
    meter::Slots,
    plan::Plan,
    server::{Inbox, Outcome, Served, ServerError, ServerSetup, saved_uid, serve},
    wire::{self, Ledger, Limits, Terms, client::ConnectOptions, server::Listener},
};

/// How long a client waits for its own process's server.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long clients that are away may come back after the end.
const FAREWELL: Duration = Duration::from_secs(10);

/// What a run leaves behind.
pub struct Ended {
    /// The server's part.
    pub outcome: Outcome,
    /// The clients', by ordinal; none where they are processes of their own.
    pub clients: Vec<Finished>,
    /// Whether each client is a process of its own, whose memory is measured rather than modelled.
    pub apart: bool,
}

/// Where a run keeps what must outlive its process: a folder, or memory for a run that need not.
#[derive(Debug, Clone, Copy)]
pub enum Kept<'a> {
    /// `checkpoint/` for the server, `clients/<group>/<index>/` for each client, below the run's folder.
    In(&'a Path),
    /// Nothing outlives the process.
    Nowhere,
}

impl Kept<'_> {
    /// The server's checkpoints.
    pub fn of_server(self, plan: &Plan, materials: &Materials) -> Result<Box<dyn Keep>, RunError> {
        match self {
            Self::In(folder) => Ok(Box::new(Store::open(&folder.join(CHECKPOINTS), &owner(plan, materials))?)),
            Self::Nowhere => Ok(Box::new(InMemory::new())),
        }
    }

    /// A client's round states, where its framework has any.
    pub fn of_client(self, plan: &Plan, materials: &Materials, ordinal: usize) -> Result<Box<dyn Keep>, RunError> {
        match self {
            Self::In(folder) if plan.framework.needs().clients_keep_state => {
                let client = &plan.clients[ordinal];
                let own = folder.join("clients").join(&client.group).join(client.index.to_string());
                Ok(Box::new(Store::open(&own, &owner(plan, materials))?))
            }
            Self::In(_) | Self::Nowhere => Ok(Box::new(InMemory::new())),
        }
    }
}

fn owner(plan: &Plan, materials: &Materials) -> Owner {
    Owner { run_hash: materials.run_hash.clone(), spec_hash: plan.spec_hash.clone(), base_hash: materials.base.hash() }
}

/// What a server may send: bounds that only a broken one meets. What clients may send is bounded by their work.
pub fn terms(run_hash: &str) -> Terms {
    Terms { run: run_hash.to_owned(), limits: Limits { tensors: 10_000, payload_bytes: 8 << 30 } }
}

/// Runs server and clients until the run is over.
pub fn run(plan: &Plan, materials: &Materials, kept: Kept<'_>, events: &Events) -> Result<Ended, RunError> {
    let keep = kept.of_server(plan, materials)?;
    // Read before there are clients, which would wait for a server that cannot begin.
    let uid = saved_uid(keep.as_ref())?;
    let runtime = wire::runtime().map_err(RunError::Runtime)?;
    let terms = terms(&materials.run_hash);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind(address, terms.clone(), runtime.handle())?;
    let url = format!("http://{}", listener.local_addr());
    let options = ConnectOptions::plain(terms, runtime.handle());
    let slots = Slots::of_this_machine(plan.threads);
    let setups = (0..plan.rules.clients).map(|ordinal| client_setup(plan, materials, kept, ordinal, &slots, events));
    let setups = setups.collect::<Result<Vec<_>, _>>()?;
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let clients: Vec<_> = setups
            .into_iter()
            .map(|setup| {
                let (url, options, inbox) = (&url, &options, sender.clone());
                scope.spawn(move || work(setup, url, options, &inbox))
            })
            .collect();
        let served = serve(server_setup(plan, materials, uid, &slots, events), keep, listener, (sender, receiver));
        let outcome = served.map(|Served { outcome, parting }| {
            parting.tell();
            outcome
        });
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
    let mut dialer = Dialer::new(url, options.clone(), PATIENCE, setup.incarnation);
    match client::work(setup, &mut dialer) {
        Ok(mut finished) => {
            // What is left to do is done in this process.
            finished.confirm();
            Ok(finished)
        }
        Err(error) => {
            let stop = ServerError::Client { client, reason: error.to_string() };
            // A server that is gone has ended the run itself.
            let _ = inbox.send(Inbox::Stop(stop));
            Err(error)
        }
    }
}

/// The server's share of the materials.
pub fn server_setup<'a>(
    plan: &'a Plan,
    materials: &Materials,
    uid: Option<String>,
    slots: &Slots,
    events: &Events,
) -> ServerSetup<'a> {
    let corpus = &materials.corpus;
    ServerSetup {
        plan,
        base: materials.base.share(),
        lora: materials.lora.clone(),
        initial: materials.initial.clone(),
        pad_id: materials.pad_id,
        public: if plan.framework.needs().public { corpus.public.clone() } else { Vec::new() },
        evaluation: corpus.evaluation.clone(),
        all_data: if plan.framework.needs().all_data { corpus.clients.clone() } else { Vec::new() },
        labels: corpus.label_order.clone(),
        slots: slots.clone(),
        uid: uid.unwrap_or_else(|| uid::text(plan)),
        farewell: FAREWELL,
        events: events.clone(),
        ledger: Ledger::new(),
    }
}

/// A client's share of the materials.
pub fn client_setup<'a>(
    plan: &'a Plan,
    materials: &Materials,
    kept: Kept<'_>,
    ordinal: usize,
    slots: &Slots,
    events: &Events,
) -> Result<ClientSetup<'a>, RunError> {
    let (needs, corpus) = (plan.framework.needs(), &materials.corpus);
    Ok(ClientSetup {
        plan,
        ordinal,
        incarnation: uid::incarnation(plan, ordinal),
        keep: kept.of_client(plan, materials, ordinal)?,
        base: materials.base.share(),
        lora: plan.lora_of(ordinal, &materials.lora),
        initial: materials.initial.clone(),
        pad_id: materials.pad_id,
        train: corpus.clients[ordinal].clone(),
        public: if needs.public { corpus.public.clone() } else { Vec::new() },
        evaluation: if needs.client_evaluates { corpus.evaluation.clone() } else { Vec::new() },
        slots: slots.clone(),
        events: events.clone(),
    })
}
