//! Sessions: a reader and a writer thread for each client, so that no slow client holds up the engine.
//! Must not decide who takes part in a round; it lets in who belongs to the run, once at a time.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Announcement, Door, Inbox, Permit, Refusal, ServerError,
    admission::{Admission, JoinError},
    refusal_message,
    steps::{Steps, not_open},
};
use crate::{
    events::{Event, Events},
    frameworks::FrameworkError,
    rounds::Client,
    wire::{
        HangUp, Ledger, Limits, LinkError, LinkReceiver, LinkSender, Message, SharedLimits, Subject,
        server::{Arrival, Listener},
    },
};

/// Messages on their way to one client, at most: a round has few, and a client that reads none of them is gone.
const MESSAGES_AHEAD: usize = 16;

/// Sessions of the clients that are connected.
type Sessions = Arc<Mutex<BTreeMap<Client, Session>>>;

/// The engine's end of a session.
struct Session {
    /// Tells it from an earlier session of the same client.
    number: u64,
    /// The client's process.
    incarnation: u64,
    outbox: mpsc::SyncSender<Message>,
    steps: Arc<Mutex<Option<Steps>>>,
    limits: SharedLimits,
    hang_up: HangUp,
    writer: JoinHandle<()>,
}

/// Where clients come in, and their sessions.
pub(super) struct Sluice {
    sessions: Sessions,
    listener: JoinHandle<Listener>,
    /// Dropped to close the door.
    closing: mpsc::Sender<()>,
}

impl Sluice {
    /// Lets clients in on a thread of its own; what they say comes to `inbox`.
    pub(super) fn open(
        listener: Listener,
        admission: Admission,
        ledger: &Ledger,
        inbox: mpsc::Sender<Inbox>,
        events: Events,
    ) -> Self {
        listener.tell_refusals(events.clone());
        let sessions = Sessions::default();
        let (closing, closed) = mpsc::channel();
        let (sessions_of_porter, ledger) = (Arc::clone(&sessions), ledger.clone());
        let mut porter = Porter { admission, ledger, inbox, sessions: sessions_of_porter, events, sessions_so_far: 0 };
        let listener = thread::spawn(move || porter.work(listener, &closed));
        Self { sessions, listener, closing }
    }

    /// Lets nobody in any more; what was sent still arrives, within `grace`.
    pub(super) fn close(self, grace: Duration) {
        // The porter first: a session that it began later would never be ended, and its client wait for ever.
        drop(self.closing);
        let listener = self.listener.join();
        let sessions = std::mem::take(&mut *lock(&self.sessions));
        let (hang_ups, writers): (Vec<_>, Vec<_>) =
            sessions.into_values().map(|session| (session.hang_up, session.writer)).unzip();
        // A writer ends when its client has gone and all is sent.
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline && !writers.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(5));
        }
        hang_ups.iter().for_each(HangUp::now);
        if let Ok(listener) = listener {
            listener.shutdown(grace);
        }
    }
}

impl Door for Sluice {
    fn send(&self, client: Client, message: Message) {
        let mut sessions = lock(&self.sessions);
        let Some(session) = sessions.get(&client) else { return };
        // A writer that has ended has said so to the engine through its reader.
        if let Err(mpsc::TrySendError::Full(_)) = session.outbox.try_send(message) {
            tracing::warn!(client, "the client does not read what it is sent; its session is ended");
            session.hang_up.now();
            sessions.remove(&client);
        }
    }

    fn widen(&self, client: Client, limits: Limits) {
        if let Some(session) = lock(&self.sessions).get(&client) {
            session.limits.set(limits);
        }
    }

    fn set_steps(&self, client: Client, steps: Option<Steps>) {
        let slot = lock(&self.sessions).get(&client).map(|session| Arc::clone(&session.steps));
        // Without the lock on the sessions: a step that runs is waited for.
        if let Some(slot) = slot {
            *lock(&slot) = steps;
        }
    }

    fn end(&self, client: Client) {
        if let Some(session) = lock(&self.sessions).get(&client) {
            session.hang_up.now();
        }
    }
}

/// The thread that lets clients in.
struct Porter {
    admission: Admission,
    ledger: Ledger,
    inbox: mpsc::Sender<Inbox>,
    sessions: Sessions,
    events: Events,
    sessions_so_far: u64,
}

impl Porter {
    fn work(&mut self, mut listener: Listener, closed: &mpsc::Receiver<()>) -> Listener {
        // The channel carries nothing: it is empty while the door is open and disconnected afterwards.
        while closed.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
            if let Some(arrival) = listener.accept_until(Instant::now() + Duration::from_millis(100)) {
                self.receive(arrival);
            }
        }
        listener
    }

    fn receive(&mut self, arrival: Arrival) {
        let admitted = self.admission.check(&arrival.join, &arrival.peer);
        let admitted = admitted.and_then(|(client, announcement)| self.make_room(client, announcement));
        match admitted {
            Ok((client, announcement)) => self.begin(client, announcement, arrival),
            Err(error) => {
                let (client, refusal) = (error.who(arrival.address), Refusal::of_join(&error));
                let (mut sender, _receiver) = arrival.link.split();
                // One who is refused and already gone needs no answer.
                let _ = sender.send(refusal_message(&refusal, error.is_final()));
                let Refusal { reason, sentence } = refusal;
                self.events.tell(Event::UploadRefused { client, reason, sentence });
            }
        }
    }

    /// Ends the session that the same process had before; one of another process stays, and this one is refused.
    fn make_room(&self, client: Client, announcement: Announcement) -> Result<(Client, Announcement), JoinError> {
        let mut sessions = lock(&self.sessions);
        match sessions.get(&client) {
            None => Ok((client, announcement)),
            Some(before) if before.incarnation == announcement.incarnation => {
                let before = sessions.remove(&client);
                drop(sessions);
                if let Some(before) = before {
                    before.hang_up.now();
                    // A step that runs is waited for, so that none of the old session's comes after this.
                    *lock(&before.steps) = None;
                }
                Ok((client, announcement))
            }
            Some(_) => Err(JoinError::Connected { client: announcement.client }),
        }
    }

    fn begin(&mut self, client: Client, announcement: Announcement, arrival: Arrival) {
        let mut link = arrival.link;
        link.count_into(&self.ledger, &announcement.client);
        self.sessions_so_far += 1;
        let (number, limits, hang_up) = (self.sessions_so_far, link.limits(), link.hang_up());
        let (sender, receiver) = link.split();
        let (outbox, messages) = mpsc::sync_channel(MESSAGES_AHEAD);
        let steps = Arc::new(Mutex::new(None));
        let reader = Reader {
            client,
            id: announcement.client.clone(),
            number,
            receiver,
            replies: outbox.clone(),
            steps: Arc::clone(&steps),
            inbox: self.inbox.clone(),
            sessions: Arc::clone(&self.sessions),
            ledger: self.ledger.clone(),
            epoch: self.admission.epoch,
        };
        let writer = thread::spawn(move || write(sender, &messages));
        let session = Session { number, incarnation: announcement.incarnation, outbox, steps, limits, hang_up, writer };
        let mut sessions = lock(&self.sessions);
        sessions.insert(client, session);
        // Under the lock, so that the session's end is not told before its beginning. The engine outlives the door; if
        // it is gone, so is the run.
        let _ = self.inbox.send(Inbox::Joined(client, announcement));
        drop(sessions);
        thread::spawn(move || reader.work());
    }
}

/// Sends what comes until nobody can write any more or the link is broken.
fn write(mut sender: LinkSender, messages: &mpsc::Receiver<Message>) {
    for message in messages {
        if sender.send(message).is_err() {
            return;
        }
    }
}

/// The thread that receives a client's messages, and answers its steps.
struct Reader {
    client: Client,
    id: String,
    number: u64,
    receiver: LinkReceiver,
    replies: mpsc::SyncSender<Message>,
    steps: Arc<Mutex<Option<Steps>>>,
    inbox: mpsc::Sender<Inbox>,
    sessions: Sessions,
    ledger: Ledger,
    epoch: u64,
}

impl Reader {
    fn work(mut self) {
        loop {
            match self.receiver.receive() {
                Ok(message) => {
                    if !self.pass_on(message) {
                        break;
                    }
                }
                Err(LinkError::Refused(error)) => {
                    let _ = self.inbox.send(Inbox::Refused(self.client, FrameworkError::Wire(error)));
                    break;
                }
                Err(LinkError::Closed { .. } | LinkError::Rejected { .. } | LinkError::Unsendable(_)) => break,
            }
        }
        // Under the lock, so that a client that comes back at once is not said to have left after it joined.
        let mut sessions = lock(&self.sessions);
        if sessions.get(&self.client).is_none_or(|session| session.number == self.number) {
            sessions.remove(&self.client);
            // Without an engine there is nobody left to tell.
            let _ = self.inbox.send(Inbox::Left(self.client));
        }
    }

    /// Answers a step, or hands the message to the engine; false when the session is over.
    fn pass_on(&self, message: Message) -> bool {
        match message.subject {
            Subject::Step | Subject::StepGradient => self.step(&message),
            Subject::Join
            | Subject::Welcome
            | Subject::Begin
            | Subject::StepReply
            | Subject::StepGradientReply
            | Subject::Upload
            | Subject::Exchange
            | Subject::ExchangeReply
            | Subject::Finish
            | Subject::Refuse
            | Subject::Recall
            | Subject::Replay => self.hand_over(|permit| Inbox::Message(self.client, message, permit)),
        }
    }

    /// Hands something to the engine; false when there is none any more. The client's next message is read when the
    /// engine is done with this one: a client cannot fill the server's memory.
    fn hand_over(&self, what: impl FnOnce(Permit) -> Inbox) -> bool {
        let (permit, done) = Permit::new();
        let sent = self.inbox.send(what(permit)).is_ok();
        let _ = done.recv();
        sent
    }

    /// Answers a step; false when the session is over.
    fn step(&self, message: &Message) -> bool {
        match catch_unwind(AssertUnwindSafe(|| self.take_step(message))) {
            Ok(Ok(reply)) => {
                self.ledger.count(&self.id, fedtune_crds::report::Direction::Up, message);
                self.replies.send(reply).is_ok()
            }
            Ok(Err(error)) => {
                self.ledger.count_refused(&self.id, message);
                self.hand_over(|permit| Inbox::StepRefused(self.client, error, permit))
            }
            Err(panic) => {
                let error = ServerError::Panic(panic_sentence(panic.as_ref()));
                self.inbox.send(Inbox::Stop(error)).is_ok()
            }
        }
    }

    fn take_step(&self, message: &Message) -> Result<Message, FrameworkError> {
        if message.epoch != self.epoch {
            let (who, got, expected) = (self.id.clone(), message.epoch, self.epoch);
            return Err(FrameworkError::StaleEpoch { who, got, expected });
        }
        match lock(&self.steps).as_mut() {
            Some(steps) => steps.take(message),
            None => Err(not_open(&self.id, message, None)),
        }
    }
}

/// What a panic said.
pub(crate) fn panic_sentence(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    // libtorch appends a backtrace of its own.
    text.and_then(|text| text.lines().next()).unwrap_or("a panic without words").to_owned()
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::{
        run::local::terms,
        testing::plan,
        wire::{
            self, Line,
            client::{ConnectOptions, connect},
        },
    };

    #[test]
    fn a_client_that_waits_for_its_welcome_when_the_server_closes_is_let_go() {
        let (plan, runtime) = (plan("fedLLM: {}", &[]), wire::runtime().unwrap());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Listener::bind(address, terms("run"), runtime.handle()).unwrap();
        let url = format!("http://{}", listener.local_addr());
        let patience = Duration::from_secs(60);
        let options = ConnectOptions::plain(terms("run"), runtime.handle());
        let (sender, inbox) = mpsc::channel();
        let sluice = Sluice::open(listener, Admission::of(&plan, 1), &Ledger::new(), sender, Events::silent());

        let client = plan.clients[0].to_string();
        let join = Announcement { client, examples: 1, labels: BTreeMap::new(), incarnation: 1 };
        let fields = serde_json::to_value(join).unwrap();
        let mut link = connect(&url, &options).unwrap();
        Line::send(&mut link, Message { fields, ..Message::new(Subject::Join, 0) }).unwrap();
        assert!(matches!(inbox.recv_timeout(patience), Ok(Inbox::Joined(0, _))));
        drop(inbox);
        sluice.close(Duration::ZERO);

        let (sender, heard) = mpsc::channel();
        thread::spawn(move || sender.send(Line::receive(&mut link).is_err()));
        assert_eq!(heard.recv_timeout(patience), Ok(true), "it still waits");
    }
}
