//! Long quiet: a client's model thread that stands still, or a server's disk, while the other clients wait for it by TLS.
//! Must not compute meanwhile: whoever is quiet is blocked, and the network's threads alone keep the sessions.
//!
//! `FEDTUNE_QUIET=3600 cargo test -p fedtune server::quiet -- --ignored` (`make soak-quiet`) waits so many seconds.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{Outcome, Served, ServerSetup, serve};
use crate::{
    checkpoint::{CheckpointError, InMemory, Keep, Snapshot},
    client::{self, dialer::Dialer},
    events::{Event, Events},
    identity::testing::{Office, RUN},
    meter::Slots,
    plan::Plan,
    run::local::{Kept, client_setup, server_setup, terms},
    testing::{materials, plan, records},
    wire::{
        self,
        client::ConnectOptions,
        server::{ListenOptions, Listener},
    },
};

/// How long a client may look for a session: longer than a run that computes for seconds.
const PATIENCE: Duration = Duration::from_secs(300);

/// A thread that is blocked once, for so long.
#[derive(Debug, Clone)]
struct Quiet {
    length: Duration,
    over: Arc<AtomicBool>,
}

impl Quiet {
    fn of(length: Duration) -> Self {
        Self { length, over: Arc::default() }
    }

    /// Blocks the calling thread, the first time.
    fn keep(&self) {
        if !self.over.swap(true, Ordering::SeqCst) {
            thread::sleep(self.length);
        }
    }
}

/// Who is quiet.
#[derive(Debug, Clone)]
enum Who {
    Nobody,
    /// The model thread of the first client, in the midst of its steps of the second round.
    Client(Quiet),
    /// The server's disk, as it writes the checkpoint of this round; 0: before the first.
    Disk(u32, Quiet),
}

/// Checkpoints on a disk that is quiet once.
#[derive(Debug)]
struct QuietDisk {
    inner: InMemory,
    who: Who,
}

impl Keep for QuietDisk {
    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    fn newest(&self) -> Result<Option<(u32, Snapshot)>, CheckpointError> {
        self.inner.newest()
    }

    fn read(&self, round: u32) -> Result<Option<Snapshot>, CheckpointError> {
        self.inner.read(round)
    }

    fn rounds(&self) -> Vec<u32> {
        self.inner.rounds()
    }

    fn write(&mut self, round: u32, snapshot: &Snapshot) -> Result<u64, CheckpointError> {
        if let Who::Disk(at, quiet) = &self.who
            && *at == round
        {
            quiet.keep();
        }
        self.inner.write(round, snapshot)
    }

    fn write_broadcast(&mut self, round: u32, snapshot: &Snapshot) -> Result<u64, CheckpointError> {
        self.inner.write_broadcast(round, snapshot)
    }

    fn broadcast(&self, round: u32) -> Result<Option<Snapshot>, CheckpointError> {
        self.inner.broadcast(round)
    }
}

/// How a run ended, and what the server told of it.
struct Ended {
    outcome: Outcome,
    told: Vec<Event>,
}

impl Ended {
    /// Everything that the run leaves of its global model.
    fn adapter(&self) -> Vec<u8> {
        let saved = self.outcome.half.save().unwrap();
        saved.tensors.iter().flat_map(|tensor| tensor.bytes.to_vec()).collect()
    }

    /// All three took part in all rounds, over one session each.
    fn check_nobody_was_missed(&self, what: &str) {
        for round in self.outcome.account.rounds() {
            assert_eq!((round.participants.len(), &round.absent[..]), (3, &[][..]), "{what}: round {}", round.round);
        }
        let joined = self.told.iter().filter(|event| matches!(event, Event::ClientJoined { .. })).count();
        assert_eq!(joined, 3, "{what}: {:?}", self.told);
        let refused = self.told.iter().find(|event| matches!(event, Event::UploadRefused { .. }));
        assert_eq!(refused, None, "{what}");
    }
}

/// The events of the first client: the one that ends its first step of round 2 blocks its model thread.
fn events_of(who: &Who) -> Events {
    let Who::Client(quiet) = who.clone() else { return Events::silent() };
    let steps = Mutex::new(0);
    Events::to(move |event| {
        if let Event::StepFinished { .. } = event {
            let mut steps = steps.lock().unwrap();
            *steps += 1;
            if *steps > STEPS {
                quiet.keep();
            }
        }
    })
}

/// Steps of a client in a round, as the plans here have them.
const STEPS: u32 = 2;

/// A server and three clients, by TLS over loopback.
fn run(plan: &Plan, who: &Who) -> Ended {
    let office = Office::new();
    let materials = materials(plan, (0..3).map(|k| records(10 + k, k as u64)).collect());
    let runtime = wire::runtime().unwrap();
    let terms = terms(&materials.run_hash);
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listening = ListenOptions { identity: Some(office.server()), ..terms.clone().into() };
    let listener = Listener::bind(any_port, listening, runtime.handle()).unwrap();
    let url = format!("https://{}", listener.local_addr());
    let identity = Some(office.client("silo"));
    let options = ConnectOptions { identity, ..ConnectOptions::plain(terms, runtime.handle()) };
    let told: Arc<Mutex<Vec<Event>>> = Arc::default();
    let heard = Arc::clone(&told);
    let of_server = Events::to(move |event| heard.lock().unwrap().push(event));
    let slots = Slots::of_this_machine(1);
    let server = ServerSetup { farewell: PATIENCE, ..server_setup(plan, &materials, None, &slots, &of_server) };
    let keep = QuietDisk { inner: InMemory::new(), who: who.clone() };
    let outcome = thread::scope(|scope| {
        for ordinal in 0..3 {
            let events = if ordinal == 0 { events_of(who) } else { Events::silent() };
            let setup = client_setup(plan, &materials, Kept::Nowhere, ordinal, &Slots::new(1, 1), &events).unwrap();
            let mut dialer = Dialer::new(&url, options.clone(), PATIENCE, setup.incarnation);
            scope.spawn(move || client::work(setup, &mut dialer).unwrap().confirm());
        }
        let Served { outcome, parting } = serve(server, Box::new(keep), listener, mpsc::channel()).unwrap();
        parting.tell();
        outcome
    });
    let told = told.lock().unwrap().clone();
    Ended { outcome, told }
}

fn spec(framework: &str, sets: &[&str]) -> Plan {
    let steps = format!("training.localSteps={STEPS}");
    let mut plan = plan(framework, &[&["training.rounds=3", &steps], sets].concat());
    plan.uid = Some(RUN.to_owned());
    plan
}

/// The run with somebody quiet ends with the bits of the one in which nobody is, and nobody is missed in it.
fn survives(framework: &str, sets: &[&str], who: &Who) {
    let plan = spec(framework, sets);
    let expected = run(&plan, &Who::Nobody);
    let ended = run(&plan, who);
    let what = format!("{framework}, {who:?}");
    let (Who::Client(quiet) | Who::Disk(_, quiet)) = who else { panic!("somebody should be quiet") };
    assert!(quiet.over.load(Ordering::SeqCst), "{what}: nobody was quiet");
    ended.check_nobody_was_missed(&what);
    assert!(ended.adapter() == expected.adapter(), "{what}: other bits than without quiet");
    println!("{what}: kept");
}

/// Seconds that this process has computed, on all its threads; where the system says so.
fn seconds_computed() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which may hold spaces: fields 14 and 15 of proc_pid_stat(5), in hundredths.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some((ticks(14)? + ticks(15)?) / 100.0)
}

/// Blocks a client's model thread in every framework, and a server's disk, all at once.
#[test]
#[ignore = "an hour; make soak-quiet runs it"]
fn a_session_quiet_for_an_hour_is_kept() {
    let seconds = env::var("FEDTUNE_QUIET").map_or(3600, |seconds| seconds.parse().unwrap());
    let length = Duration::from_secs(seconds);
    let patient: &[&str] = &["participation.roundTimeout=100h"];
    // Shorter than the disk takes: its time is nobody's fault.
    let hasty: &[&str] =
        &["participation.roundTimeout=20s", "participation.quorumTimeout=20s", "participation.minClients=1"];
    thread::scope(|scope| {
        for framework in [
            "fedLLM: {}",
            "kdFedLLM: {distillationSteps: 1}",
            "splitFedLLM: {variant: V1, cutLayer: 1}",
            "splitFedLLM: {variant: V2, cutLayer: 1}",
        ] {
            scope.spawn(move || survives(framework, patient, &Who::Client(Quiet::of(length))));
        }
        for round in [0, 2] {
            scope.spawn(move || survives("fedLLM: {}", hasty, &Who::Disk(round, Quiet::of(length))));
        }
    });
    println!("{seconds} s of quiet; the process computed for {:.1} s in all", seconds_computed().unwrap_or(f64::NAN));
}
