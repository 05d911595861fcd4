//! The run around the hostile client, and what is asserted of it.
//! Must not know what the third client does.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::peer::{ME, Peer};
use crate::{
    client::{self, dialer::Dialer},
    events::{Event, Events},
    meter::Slots,
    plan::Plan,
    refusal::RefusalReason,
    run::local::{Kept, client_setup, server_setup, terms},
    server::{Outcome, Served, ServerSetup, serve},
    testing::{materials, plan, records},
    wire::{self, client::ConnectOptions, server::Listener},
};

pub(super) const FEDLLM: &str = "fedLLM: {}";
pub(super) const GRADIENTS: &str = "fedLLM: {upload: Gradients}";
pub(super) const KD: &str = "kdFedLLM: {distillationSteps: 1}";
pub(super) const KD_TOP_K: &str = "kdFedLLM: {distillationSteps: 1, logits: {topK: 2}}";
pub(super) const SPLIT_V1: &str = "splitFedLLM: {variant: V1, cutLayer: 1}";
pub(super) const SPLIT_V2: &str = "splitFedLLM: {variant: V2, cutLayer: 1}";
pub(super) const SPLIT_U: &str = "splitFedLLM: {variant: V2, cutLayer: 1, head: Client}";
pub(super) const SPLIT_INT8: &str = "splitFedLLM: {variant: V1, cutLayer: 1, activationCodec: INT8}";
pub(super) const LOCAL_ONLY: &str = "localOnly: {}";

/// No case waits for time: a third that is refused, or gives up, is not waited for.
const PATIENT: &[&str] = &["participation.minClients=2", "participation.roundTimeout=60s"];

/// Longer than any test.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the third client does.
type Third<'a> = Box<dyn FnOnce(&mut Peer) + Send + 'a>;

/// The bits of a framework's run, once somebody has run it; others wait for that.
type Known = Arc<Mutex<Option<Vec<u8>>>>;

/// What was told so far; clones hear the same.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<(Mutex<Vec<Event>>, Condvar)>);

impl Heard {
    fn told(&self) -> MutexGuard<'_, Vec<Event>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> Events {
        let heard = self.clone();
        Events::to(move |event| {
            heard.told().push(event);
            heard.0.1.notify_all();
        })
    }

    /// Waits until something like it was told.
    pub(super) fn wait_for(&self, like: impl Fn(&Event) -> bool) {
        let waiting = |told: &mut Vec<Event>| !told.iter().any(&like);
        let waited = self.0.1.wait_timeout_while(self.told(), PATIENCE, waiting);
        let (told, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "it was not told: {told:?}");
    }
}

/// Holds others up until it is opened.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(super) fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
    }

    /// Events that are held up from the first one like it on.
    fn holds(&self, like: fn(&Event) -> bool) -> Events {
        let gate = self.clone();
        Events::to(move |event| {
            if like(&event) {
                gate.pass();
            }
        })
    }
}

/// Opens a gate in the end, also where a test has failed.
struct Opens(Gate);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Whom the gate holds up, until the third opens it or is done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Nobody.
    Nobody,
    /// The two honest clients, before they do anything but join.
    Clients,
    /// The two honest clients, when each has answered once.
    ClientsAfterAnAnswer,
    /// The server's engine, when it has begun a round.
    Engine,
}

/// How a run ended, and what was told in it.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) told: Vec<Event>,
}

impl Ended {
    /// Everything that the run leaves of its global model.
    pub(super) fn adapter(&self) -> Vec<u8> {
        let saved = self.outcome.half.save().unwrap();
        saved.tensors.iter().flat_map(|tensor| tensor.bytes.to_vec()).collect()
    }

    /// Who was refused, and under which reason, in the order in which it was told.
    pub(super) fn refused(&self) -> Vec<(&str, RefusalReason)> {
        let refused = |event| {
            if let &Event::UploadRefused { ref client, reason, .. } = event {
                Some((client.as_str(), reason))
            } else {
                None
            }
        };
        self.told.iter().filter_map(refused).collect()
    }

    /// All rounds are there, and the two honest clients took part in each.
    fn check_rounds(&self) {
        let rounds = self.outcome.account.rounds();
        assert_eq!(rounds.len(), 2);
        for round in rounds {
            let took_part = |honest: &str| round.participants.iter().any(|client| client == honest);
            assert!(took_part("silo/0") && took_part("silo/1"), "{round:?}");
        }
    }
}

/// Runs two honest clients, and what `third` does beside them, to the end.
pub(super) fn play(framework: &str, third: impl FnOnce(&mut Peer) + Send) -> Ended {
    play_with(&plan(framework, PATIENT), Held::Nobody, Some(Box::new(third)))
}

/// As [`play`], with more settings of the spec and somebody held up.
pub(super) fn play_set(framework: &str, sets: &[&str], held: Held, third: impl FnOnce(&mut Peer) + Send) -> Ended {
    play_with(&plan(framework, &[PATIENT, sets].concat()), held, Some(Box::new(third)))
}

/// The bits of the two honest clients alone: the third never comes.
pub(super) fn alone(framework: &'static str) -> Vec<u8> {
    static KNOWN: Mutex<BTreeMap<&str, Known>> = Mutex::new(BTreeMap::new());
    let slot = Arc::clone(KNOWN.lock().unwrap_or_else(PoisonError::into_inner).entry(framework).or_default());
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    let adapter = || {
        // Turns have a time of their own: here it must be long enough for an honest one.
        let seconds = if [SPLIT_V2, SPLIT_U].contains(&framework) { 5 } else { 1 };
        let timeout = format!("participation.roundTimeout={seconds}s");
        play_with(&plan(framework, &["participation.minClients=2", &timeout]), Held::Nobody, None).adapter()
    };
    slot.get_or_insert_with(adapter).clone()
}

fn play_with(plan: &Plan, held: Held, third: Option<Third<'_>>) -> Ended {
    // Clients of 10, 11 and 12 examples.
    let materials = materials(plan, (0..3).map(|k| records(10 + k, k as u64)).collect());
    let (heard, gate) = (Heard::default(), Gate::default());
    let (of_server, of_clients) = match held {
        Held::Nobody => (heard.events(), Events::silent()),
        Held::Clients => (heard.events(), gate.holds(|event| matches!(event, Event::Connected))),
        Held::ClientsAfterAnAnswer => {
            (heard.events(), gate.holds(|event| matches!(event, Event::ClientFigures { .. })))
        }
        Held::Engine => {
            let begins = gate.holds(|event| matches!(event, Event::RoundStarted { .. }));
            (heard.events().and(begins), Events::silent())
        }
    };
    let runtime = wire::runtime().unwrap();
    let terms = terms(&materials.run_hash);
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind(any_port, terms.clone(), runtime.handle()).unwrap();
    let (address, handle) = (listener.local_addr(), runtime.handle());
    let options = ConnectOptions::plain(terms, handle);
    let slots = Slots::of_this_machine(1);
    let server = server_setup(plan, &materials, None, &slots, &of_server);
    let server = ServerSetup { farewell: PATIENCE, ..server };
    let keep = Kept::Nowhere.of_server(plan, &materials).unwrap();
    let (honest, slots, materials, options) = (&of_clients, &slots, &materials, &options);
    let outcome = thread::scope(|scope| {
        for ordinal in 0..2 {
            let setup = client_setup(plan, materials, Kept::Nowhere, ordinal, slots, honest).unwrap();
            scope.spawn(move || {
                let mut dialer =
                    Dialer::new(&format!("http://{address}"), options.clone(), PATIENCE, setup.incarnation);
                client::work(setup, &mut dialer).unwrap().confirm();
            });
        }
        let (opens, heard) = (Opens(gate), heard.clone());
        // Its session outlives what it does, unless it ends it: the server is not helped.
        let third = third.map(|third| {
            scope.spawn(move || {
                let mut peer = Peer::open(address, handle, heard, opens.0.clone());
                let _opens = opens;
                third(&mut peer);
                peer
            })
        });
        let Served { outcome, parting } = serve(server, keep, listener, mpsc::channel()).unwrap();
        let third = third.map(thread::ScopedJoinHandle::join);
        let failed = third.and_then(|third| third.map(|peer| scope.spawn(|| peer.take_leave())).err());
        parting.tell();
        if let Some(panic) = failed {
            std::panic::resume_unwind(panic);
        }
        outcome
    });
    let told = heard.told().clone();
    let ended = Ended { outcome, told };
    ended.check_rounds();
    ended
}

/// Asserts that the third alone was refused, so often and for these reasons.
pub(super) fn assert_refused(ended: &Ended, reasons: &[RefusalReason]) {
    let expected: Vec<_> = reasons.iter().map(|reason| (ME, *reason)).collect();
    assert_eq!(ended.refused(), expected);
}

/// Asserts that a sentence names all of these.
pub(super) fn assert_says(told: &str, says: &[&str]) {
    for part in says {
        assert!(told.contains(part), "{told:?} does not say {part:?}");
    }
}
