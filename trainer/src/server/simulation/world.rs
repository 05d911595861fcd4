//! Server, clients and network: what happens next, and what follows from it.
//! Must not draw anything itself: what goes wrong comes from [`Faults`], in an order that only the seed decides.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use fedtune_crds::report::Direction;

use super::{
    baton::{Answer, Connection, Process, Wish},
    faults::{Faults, Kind},
};
use crate::{
    checkpoint::{CheckpointError, InMemory, Keep, Snapshot},
    client::ClientSetup,
    data::Record,
    events::Events,
    identity::PeerIdentity,
    meter::Slots,
    plan::Plan,
    rounds::Client,
    run::materials::Materials,
    server::{
        Admission, Announcement, Door, Engine, Farewell, Inbox, JoinError, Outcome, Permit, Refusal, ServerError,
        ServerSetup, Steps, Turn, refusal_message, steps::not_open,
    },
    testing::{materials, records},
    wire::{Decoder, Ledger, Limits, Message, SharedLimits, Subject, encode},
};

/// More happenings than any run needs: one that has more is stuck.
const HAPPENINGS: u32 = 20_000;

/// How long the server waits at the end for clients that are away.
const FAREWELL: Duration = Duration::from_secs(120);

/// What each client of a plan holds: 10, 11, 12, ... examples.
pub(super) fn records_of(plan: &Plan) -> Vec<Vec<Record>> {
    (0..plan.clients.len()).map(|k| records(10 + k, k as u64)).collect()
}

/// How a run ended.
pub(super) enum Ending {
    /// All rounds are done; what each client has in the end.
    Finished { outcome: Box<Outcome>, clients: BTreeMap<Client, Snapshot> },
    /// Too few clients for too long.
    QuorumLost,
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Finished { .. } => "Finished",
            Self::QuorumLost => "QuorumLost",
        })
    }
}

/// What happens at a moment.
#[derive(Debug)]
enum Happening {
    StartServer,
    StartClient(Client),
    Dialled(Client),
    ToServer(Connection, Message),
    ToClient(Connection, Message),
    /// The other side's end of the connection is noticed.
    EndAtServer(Connection),
    EndAtClient(Connection),
    FarewellOver,
}

/// A client's place: its process if it lives, and what outlives it.
struct Place {
    process: Option<Process>,
    waits_on: Option<Connection>,
    keep: InMemory,
    ended: Option<Snapshot>,
}

/// A connection, with what has come to the client and is not read yet.
struct Wire {
    client: Client,
    open_at_client: bool,
    open_at_server: bool,
    arrived: VecDeque<Message>,
    /// The session's client and process, once it has joined.
    joined: Option<Announcement>,
    limits: SharedLimits,
    steps: Option<Steps>,
    /// When the last message of each direction arrives: none overtakes another.
    last: [Duration; 2],
}

struct Server {
    /// Until it has ended.
    engine: Option<Engine<'static>>,
    admission: Admission,
    ledger: Ledger,
    parting: Option<(Box<Outcome>, Farewell)>,
}

pub(super) struct World {
    plan: &'static Plan,
    materials: Materials,
    pub(super) faults: Faults,
    now: Duration,
    serial: u64,
    queue: BTreeMap<(Duration, u64), Happening>,
    places: Vec<Place>,
    wires: BTreeMap<Connection, Wire>,
    /// The session of each client that is connected.
    sessions: BTreeMap<Client, Connection>,
    keep: InMemory,
    death: Arc<Mutex<Option<Death>>>,
    disk: Disk,
    server: Option<Server>,
    ending: Option<Ending>,
    history: String,
}

impl World {
    pub(super) fn new(plan: &'static Plan, faults: Faults) -> Self {
        let place = |_| Place { process: None, waits_on: None, keep: InMemory::new(), ended: None };
        let places = (0..plan.clients.len()).map(place).collect();
        let mut world = Self {
            plan,
            materials: materials(plan, records_of(plan)),
            faults,
            now: Duration::ZERO,
            serial: 0,
            queue: BTreeMap::new(),
            places,
            wires: BTreeMap::new(),
            sessions: BTreeMap::new(),
            keep: InMemory::new(),
            death: Arc::default(),
            disk: Disk::default(),
            server: None,
            ending: None,
            history: String::new(),
        };
        world.after(Duration::ZERO, Happening::StartServer);
        (0..plan.clients.len()).for_each(|client| world.after(Duration::ZERO, Happening::StartClient(client)));
        world
    }

    /// With a server's disk that takes so long for each checkpoint.
    pub(super) fn with_slow_disk(self, takes: Duration) -> Self {
        Self { disk: Disk { takes, ..Disk::default() }, ..self }
    }

    /// Runs to the end and says how that was.
    pub(super) fn live(mut self) -> Ending {
        self.run();
        self.ending.take().expect("a run that has ended has an ending")
    }

    /// Runs to the end and tells all that happened.
    pub(super) fn live_and_tell(mut self) -> String {
        self.run();
        std::mem::take(&mut self.history)
    }

    pub(super) fn run(&mut self) {
        for _ in 0..HAPPENINGS {
            if self.ending.is_some() {
                (0..self.places.len()).for_each(|client| self.kill(client));
                return;
            }
            self.happen();
            assert!(self.queue.len() < 200, "the queue grows: {}", self.history);
            assert!(self.sessions.len() <= self.places.len());
            assert!(self.wires.values().all(|wire| wire.arrived.len() < 40), "unread messages grow");
        }
        panic!("stuck at {:?}:\n{}", self.now, self.history);
    }

    /// Lets the next thing happen, or the engine's deadline pass.
    fn happen(&mut self) {
        let deadline = self.server.as_ref().and_then(|server| server.engine.as_ref()?.deadline());
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        match (next, deadline) {
            (Some(next), deadline) if deadline.is_none_or(|deadline| next <= deadline) => {
                let ((at, _), happening) = self.queue.pop_first().expect("there is a next one");
                self.now = self.now.max(at);
                let _ = writeln!(self.history, "{:?} {}", self.now, words(&happening));
                self.take(happening);
            }
            (_, Some(deadline)) => {
                self.now = self.now.max(deadline);
                self.turn(None);
            }
            (_, None) => panic!("nothing happens any more:\n{}", self.history),
        }
        self.perhaps_kill();
    }

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::StartServer => self.start_server(),
            Happening::StartClient(client) => self.start_client(client),
            Happening::Dialled(client) => self.dialled(client),
            Happening::ToServer(connection, message) => self.deliver_to_server(connection, message),
            Happening::ToClient(connection, message) => {
                let Some(wire) = self.wires.get_mut(&connection).filter(|wire| wire.open_at_client) else { return };
                wire.arrived.push_back(message);
                self.wake(connection);
            }
            Happening::EndAtServer(connection) => {
                let Some(wire) = self.wires.get_mut(&connection) else { return };
                wire.open_at_server = false;
                let client = wire.client;
                if self.sessions.get(&client) == Some(&connection) {
                    self.sessions.remove(&client);
                    self.turn(Some(Inbox::Left(client)));
                }
            }
            Happening::EndAtClient(connection) => {
                if let Some(wire) = self.wires.get_mut(&connection) {
                    wire.open_at_client = false;
                    self.wake(connection);
                }
            }
            Happening::FarewellOver => self.finish(),
        }
    }

    // Faults that no message brings about.
    fn perhaps_kill(&mut self) {
        if self.faults.strikes(Kind::ServerDies, 150) {
            self.kill_server();
        }
        for client in 0..self.places.len() {
            if self.places[client].process.is_some() && self.faults.strikes(Kind::ClientDies, 300) {
                self.kill(client);
                if self.faults.strikes(Kind::ClientForgets, 2) {
                    self.places[client].keep = InMemory::new();
                }
                let outage = self.faults.outage();
                self.after(outage, Happening::StartClient(client));
            }
        }
    }

    // Clients.

    fn start_client(&mut self, client: Client) {
        self.serial += 1;
        let (needs, corpus) = (self.plan.framework.needs(), &self.materials.corpus);
        let keep = self.places[client].keep.restart();
        self.places[client].keep = keep.clone();
        let setup = ClientSetup {
            plan: self.plan,
            ordinal: client,
            incarnation: self.serial,
            base: self.materials.base.share(),
            lora: self.plan.lora_of(client, &self.materials.lora),
            initial: None,
            pad_id: self.materials.pad_id,
            train: corpus.clients[client].clone(),
            public: if needs.public { corpus.public.clone() } else { Vec::new() },
            evaluation: if needs.client_evaluates { corpus.evaluation.clone() } else { Vec::new() },
            keep: Box::new(keep),
            slots: Slots::new(1, 1),
            events: Events::silent(),
        };
        self.places[client].process = Some(Process::start(setup));
        self.drive(client);
    }

    /// Grants a client's wishes until it has to wait.
    fn drive(&mut self, client: Client) {
        while let Some(process) = self.places[client].process.take() {
            let wish = process.wish();
            self.places[client].process = Some(process);
            let answer = match wish {
                Wish::Send(connection, message) => self.take_from_client(connection, message),
                Wish::Receive(connection) => {
                    let Some(answer) = self.read(connection) else {
                        self.places[client].waits_on = Some(connection);
                        return;
                    };
                    answer
                }
                Wish::Dial { pause } => {
                    let delay = self.faults.delay();
                    return self.after(pause + delay, Happening::Dialled(client));
                }
                Wish::Ended(ended) => return self.ended(client, ended),
            };
            self.answer(client, answer);
        }
    }

    fn answer(&mut self, client: Client, answer: Answer) {
        self.places[client].waits_on = None;
        if let Some(process) = &self.places[client].process {
            process.answer(answer);
        }
    }

    /// Goes on with a client that waits on this connection.
    fn wake(&mut self, connection: Connection) {
        let client = self.wires[&connection].client;
        if self.places[client].waits_on == Some(connection)
            && let Some(answer) = self.read(connection)
        {
            self.answer(client, answer);
            self.drive(client);
        }
    }

    fn read(&mut self, connection: Connection) -> Option<Answer> {
        let wire = self.wires.get_mut(&connection)?;
        match wire.arrived.pop_front() {
            Some(message) => Some(Answer::Received(Box::new(message))),
            None => (!wire.open_at_client).then_some(Answer::Closed),
        }
    }

    /// A process that ends in success is gone; any other is started again, as a pod would be.
    fn ended(&mut self, client: Client, ended: Result<Snapshot, String>) {
        if let Some(process) = self.places[client].process.take() {
            process.bury();
        }
        self.hang_up_client(client);
        match ended {
            Ok(own) => self.places[client].ended = Some(own),
            Err(error) => {
                let _ = writeln!(self.history, "client {client} gave up: {error}");
                let outage = self.faults.outage();
                self.after(outage, Happening::StartClient(client));
            }
        }
    }

    fn kill(&mut self, client: Client) {
        if let Some(process) = self.places[client].process.take() {
            process.kill();
            self.places[client].waits_on = None;
            self.hang_up_client(client);
        }
    }

    /// Ends a client's connections, which its server notices a little later.
    fn hang_up_client(&mut self, client: Client) {
        let mine: Vec<_> =
            self.wires.iter().filter(|(_, w)| w.client == client && w.open_at_client).map(|(c, _)| *c).collect();
        for connection in mine {
            self.break_off(connection, [true, false]);
        }
    }

    fn dialled(&mut self, client: Client) {
        if self.places[client].process.is_none() {
            return;
        }
        if self.server.is_none() {
            return self.after(Duration::from_secs(1), Happening::Dialled(client));
        }
        self.serial += 1;
        let wire = Wire {
            client,
            open_at_client: true,
            open_at_server: true,
            arrived: VecDeque::new(),
            joined: None,
            limits: SharedLimits::new(Limits::FIELDS_ONLY),
            steps: None,
            last: [self.now; 2],
        };
        self.wires.retain(|_, wire| wire.open_at_client || wire.open_at_server);
        self.wires.insert(self.serial, wire);
        self.answer(client, Answer::Dialled(self.serial));
        self.drive(client);
    }

    // The network.

    fn after(&mut self, pause: Duration, happening: Happening) {
        self.serial += 1;
        self.queue.insert((self.now + pause, self.serial), happening);
    }

    fn take_from_client(&mut self, connection: Connection, message: Message) -> Answer {
        match self.wires.get(&connection) {
            Some(wire) if wire.open_at_client => {
                self.carry(connection, 0, message);
                Answer::Sent
            }
            Some(_) | None => Answer::Closed,
        }
    }

    /// Puts a message on its way, and perhaps something goes wrong with it.
    fn carry(&mut self, connection: Connection, way: usize, message: Message) {
        if self.faults.strikes(Kind::Cut, 60) {
            return self.break_off(connection, [true, true]);
        }
        let mut pause = self.faults.delay();
        if self.faults.strikes(Kind::Late, 60) {
            pause += self.faults.outage();
        }
        let overtakes = self.faults.strikes(Kind::Reordered, 80);
        let doubled = self.faults.strikes(Kind::Doubled, 60);
        let arrive = |message: Message| match way {
            0 => Happening::ToServer(connection, message),
            _ => Happening::ToClient(connection, message),
        };
        let wire = self.wires.get_mut(&connection).expect("it was just there");
        let at = if overtakes { self.now } else { (self.now + pause).max(wire.last[way]) };
        wire.last[way] = wire.last[way].max(at);
        let pause = at.saturating_sub(self.now);
        if doubled {
            self.after(pause, arrive(message.clone()));
        }
        self.after(pause, arrive(message));
    }

    /// Ends a connection; each side notices by itself, after what is on its way to it.
    fn break_off(&mut self, connection: Connection, [server, client]: [bool; 2]) {
        let delay = self.faults.delay();
        let Some(wire) = self.wires.get_mut(&connection) else { return };
        if !server {
            wire.open_at_server = false;
        }
        if !client {
            wire.open_at_client = false;
        }
        let [at_server, at_client] = wire.last.map(|last| (self.now + delay).max(last).saturating_sub(self.now));
        if server {
            self.after(at_server, Happening::EndAtServer(connection));
        }
        if client {
            self.after(at_client, Happening::EndAtClient(connection));
        }
    }

    // The server.

    fn start_server(&mut self) {
        self.keep = self.keep.restart();
        let keep = Mortal { inner: self.keep.clone(), death: Arc::clone(&self.death), disk: self.disk.clone() };
        *self.death.lock().unwrap() = None;
        let ledger = Ledger::new();
        let setup = self.server_setup(ledger.clone());
        let admission = Admission::of(self.plan, keep.epoch());
        let engine = Engine::new(setup, Box::new(keep), self.now).expect("what an engine wrote, an engine reads");
        self.server = Some(Server { engine: Some(engine), admission, ledger, parting: None });
        self.turn(None);
    }

    fn server_setup(&self, ledger: Ledger) -> ServerSetup<'static> {
        let Materials { base, lora, pad_id, corpus, .. } = &self.materials;
        ServerSetup {
            plan: self.plan,
            base: base.share(),
            lora: lora.clone(),
            initial: None,
            pad_id: *pad_id,
            public: if self.plan.framework.needs().public { corpus.public.clone() } else { Vec::new() },
            evaluation: corpus.evaluation.clone(),
            all_data: Vec::new(),
            labels: corpus.label_order.clone(),
            slots: Slots::new(1, 1),
            ledger,
            uid: "simulated".to_owned(),
            farewell: FAREWELL,
            events: Events::silent(),
        }
    }

    fn kill_server(&mut self) {
        if self.server.take().is_none() {
            return;
        }
        let _ = writeln!(self.history, "{:?} the server dies", self.now);
        self.sessions.clear();
        let open: Vec<_> = self.wires.iter().filter(|(_, wire)| wire.open_at_server).map(|(c, _)| *c).collect();
        for connection in open {
            self.break_off(connection, [false, true]);
        }
        self.queue.retain(|_, happening| !matches!(happening, Happening::FarewellOver));
        let outage = self.faults.outage();
        self.after(outage, Happening::StartServer);
    }

    fn deliver_to_server(&mut self, connection: Connection, message: Message) {
        let alive = self.server.is_some() && self.wires.get(&connection).is_some_and(|wire| wire.open_at_server);
        if !alive {
            return;
        }
        let wire = &self.wires[&connection];
        let Some(message) = through_frames(&self.materials.run_hash, &wire.limits, message) else {
            return self.break_off(connection, [true, true]);
        };
        match (&wire.joined, message.subject) {
            (None, Subject::Join) => self.join(connection, &message),
            // A real listener ends the session of one who does not begin with a join.
            (None, _) => self.break_off(connection, [true, true]),
            (Some(_), _) if self.sessions.get(&wire.client) != Some(&connection) => {}
            (Some(_), Subject::Step | Subject::StepGradient) => self.step(connection, &message),
            (Some(_), _) => {
                let inbox = Inbox::Message(wire.client, message, Permit::of_nobody());
                self.turn(Some(inbox));
            }
        }
    }

    fn join(&mut self, connection: Connection, join: &Message) {
        let server = self.server.as_ref().expect("it lives");
        let admitted = server.admission.check(join, &PeerIdentity::Plain).and_then(|(client, announcement)| {
            let before = self.sessions.get(&client).and_then(|session| self.wires[session].joined.as_ref());
            match before {
                Some(before) if before.incarnation != announcement.incarnation => {
                    Err(JoinError::Connected { client: announcement.client })
                }
                Some(_) | None => Ok((client, announcement)),
            }
        });
        match admitted {
            Ok((client, announcement)) => {
                if let Some(before) = self.sessions.insert(client, connection) {
                    self.break_off(before, [false, true]);
                }
                self.wires.get_mut(&connection).expect("it is there").joined = Some(announcement.clone());
                self.turn(Some(Inbox::Joined(client, announcement)));
            }
            Err(error) => {
                let refusal = refusal_message(&Refusal::of_join(&error), error.is_final());
                self.carry(connection, 1, refusal);
                self.break_off(connection, [true, true]);
            }
        }
    }

    fn step(&mut self, connection: Connection, message: &Message) {
        let epoch = self.keep.epoch();
        let (server, wire) = (self.server.as_ref().expect("it lives"), self.wires.get_mut(&connection).expect("open"));
        let (client, id) = (wire.client, self.plan.clients[wire.client].to_string());
        let stepped = match &mut wire.steps {
            Some(steps) if message.epoch == epoch => steps.take(message),
            Some(_) | None => Err(not_open(&id, message, None)),
        };
        match stepped {
            Ok(reply) => {
                server.ledger.count(&id, Direction::Up, message);
                server.ledger.count(&id, Direction::Down, &reply);
                self.carry(connection, 1, reply);
            }
            Err(error) => {
                server.ledger.count_refused(&id, message);
                self.turn(Some(Inbox::StepRefused(client, error, Permit::of_nobody())));
            }
        }
    }

    /// Lets the engine, or after its end the farewell, take what arrived, and does what it wants done.
    fn turn(&mut self, arrived: Option<Inbox>) {
        if self.faults.strikes(Kind::ServerDiesBeforeWriting, 100) {
            *self.death.lock().unwrap() = Some(Death::BeforeWriting);
        } else if self.faults.strikes(Kind::ServerDiesAfterWriting, 100) {
            *self.death.lock().unwrap() = Some(Death::AfterWriting);
        }
        let Some(server) = &mut self.server else { return };
        let door = Notes::default();
        if let Some((_, farewell)) = &mut server.parting {
            if let Some(arrived) = arrived {
                farewell.take(arrived, &door);
            }
        } else if let Some(mut engine) = server.engine.take() {
            let (began, disk) = (self.now, self.disk.clone());
            let turned = engine.turn(&|| began + disk.spent(), arrived, &door);
            self.now += self.disk.take_spent();
            match turned {
                Ok(Turn::On) => server.engine = Some(engine),
                Ok(Turn::Finished) => {
                    let (outcome, farewell) = engine.end().expect("a run that finished has begun");
                    farewell.begin(&door);
                    server.parting = Some((Box::new(outcome), farewell));
                    self.after(FAREWELL, Happening::FarewellOver);
                }
                Err(ServerError::Rounds(_)) => {
                    self.ending = Some(Ending::QuorumLost);
                    return;
                }
                Err(ServerError::Checkpoint(_)) => return self.kill_server(),
                Err(error) => panic!("{error}\n{}", self.history),
            }
        }
        door.0.into_inner().into_iter().for_each(|act| self.act(act));
        let over = |server: &Server| server.parting.as_ref().is_some_and(|(_, farewell)| farewell.is_over());
        if self.server.as_ref().is_some_and(over) {
            self.finish();
        }
    }

    fn act(&mut self, act: Act) {
        let (Act::Send(client, _) | Act::Widen(client, _) | Act::SetSteps(client, _) | Act::End(client)) = &act;
        let Some(connection) = self.sessions.get(client).copied() else { return };
        let wire = self.wires.get_mut(&connection).expect("a session has a connection");
        match act {
            Act::Send(client, message) => {
                let id = self.plan.clients[client].to_string();
                if let Some(server) = &self.server {
                    server.ledger.count(&id, Direction::Down, &message);
                }
                self.carry(connection, 1, message);
            }
            Act::Widen(_, limits) => wire.limits.set(limits),
            Act::SetSteps(_, steps) => wire.steps = steps,
            Act::End(_) => self.break_off(connection, [true, true]),
        }
    }

    /// The server is done, and so is every client that could be told.
    fn finish(&mut self) {
        let Some(Server { parting: Some((outcome, _)), .. }) = self.server.take() else { return };
        let clients = self.places.iter().enumerate();
        let clients = clients.filter_map(|(client, place)| Some((client, place.ended.clone()?))).collect();
        self.ending = Some(Ending::Finished { outcome, clients });
    }
}

/// A message as it comes out of its frames, if the receiver takes it.
fn through_frames(run: &str, limits: &SharedLimits, message: Message) -> Option<Message> {
    let mut decoder = Decoder::within(run, limits.clone());
    let frames = encode(message, run).expect("what the protocol sends can be sent");
    frames.map(|frame| decoder.push(frame)).last()?.ok()?
}

fn words(happening: &Happening) -> String {
    match happening {
        Happening::ToServer(connection, m) => {
            format!("{connection} to server: {} {}.{} #{}", m.subject, m.round, m.step, m.attempt)
        }
        Happening::ToClient(connection, m) => {
            format!("{connection} to client: {} {}.{} #{}", m.subject, m.round, m.step, m.attempt)
        }
        other => format!("{other:?}"),
    }
}

/// What an engine wants done, in order.
#[derive(Debug, Default)]
struct Notes(RefCell<Vec<Act>>);

#[derive(Debug)]
enum Act {
    Send(Client, Message),
    Widen(Client, Limits),
    SetSteps(Client, Option<Steps>),
    End(Client),
}

impl Door for Notes {
    fn send(&self, client: Client, message: Message) {
        self.0.borrow_mut().push(Act::Send(client, message));
    }

    fn widen(&self, client: Client, limits: Limits) {
        self.0.borrow_mut().push(Act::Widen(client, limits));
    }

    fn set_steps(&self, client: Client, steps: Option<Steps>) {
        self.0.borrow_mut().push(Act::SetSteps(client, steps));
    }

    fn end(&self, client: Client) {
        self.0.borrow_mut().push(Act::End(client));
    }
}

/// When the server dies at its next checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    BeforeWriting,
    AfterWriting,
}

/// What the server's disk takes for a write, and what the writes of the current turn took; clones are the same disk.
#[derive(Debug, Clone, Default)]
struct Disk {
    takes: Duration,
    spent: Arc<Mutex<Duration>>,
}

impl Disk {
    fn work(&self) {
        *self.spent.lock().unwrap() += self.takes;
    }

    fn spent(&self) -> Duration {
        *self.spent.lock().unwrap()
    }

    fn take_spent(&self) -> Duration {
        std::mem::take(&mut *self.spent.lock().unwrap())
    }
}

/// A store whose process may die as it writes, on a disk that may be slow.
#[derive(Debug)]
struct Mortal {
    inner: InMemory,
    death: Arc<Mutex<Option<Death>>>,
    disk: Disk,
}

impl Mortal {
    fn dead() -> CheckpointError {
        CheckpointError::Locked { folder: "a dead server's".into() }
    }
}

impl Keep for Mortal {
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
        self.disk.work();
        match self.death.lock().unwrap().take() {
            None => self.inner.write(round, snapshot),
            Some(Death::BeforeWriting) => Err(Self::dead()),
            Some(Death::AfterWriting) => {
                self.inner.write(round, snapshot)?;
                Err(Self::dead())
            }
        }
    }

    fn write_broadcast(&mut self, round: u32, snapshot: &Snapshot) -> Result<u64, CheckpointError> {
        self.disk.work();
        self.inner.write_broadcast(round, snapshot)
    }

    fn broadcast(&self, round: u32) -> Result<Option<Snapshot>, CheckpointError> {
        self.inner.broadcast(round)
    }
}
