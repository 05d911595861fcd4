//! Sessions: a reader and a writer thread for each client, so that no slow client holds up the engine.
//! Must not decide who takes part in a round; it lets in who belongs to the run, once at a time.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::ServerError;
use crate::{
    frameworks::{FrameworkError, Stepper},
    identity::PeerIdentity,
    plan::{ClientId, Plan},
    rounds::Client,
    wire::{
        Ledger, LinkReceiver, LinkSender, Message, Subject,
        server::{Arrival, Listener},
    },
};

/// What a client says of itself when it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement {
    /// Its id, `group/index`.
    pub client: String,
    /// Training examples it holds.
    pub examples: u64,
    /// Labels it has, and how many examples of each.
    pub labels: BTreeMap<String, u64>,
}

/// What reaches the engine.
#[derive(Debug)]
pub enum Inbox {
    /// A client of this run opened a session.
    Joined(Client, Announcement),
    /// A client's message, but for steps, which its session answers itself.
    Message(Client, Message),
    /// A client's session ended.
    Left(Client),
    /// A client's step went wrong.
    StepFailed(Client, FrameworkError),
    /// The run must end.
    Stop(ServerError),
}

/// Sessions of the clients that are connected.
type Sessions = Arc<Mutex<BTreeMap<Client, Session>>>;

/// The engine's end of a session.
struct Session {
    outbox: mpsc::Sender<Message>,
    stepper: Arc<Mutex<Option<Box<dyn Stepper>>>>,
    writer: JoinHandle<()>,
}

/// Lets clients in while it is open.
pub(super) struct Door {
    sessions: Sessions,
    listener: JoinHandle<Listener>,
    closing: mpsc::Sender<()>,
}

impl Door {
    /// Accepts the clients of `plan` on a thread of its own; what they say comes to `inbox`.
    pub(super) fn open(listener: Listener, plan: &Plan, ledger: &Ledger, inbox: mpsc::Sender<Inbox>) -> Self {
        let sessions = Sessions::default();
        let (closing, closed) = mpsc::channel();
        let (run, clients) = (plan.run().to_owned(), plan.clients.clone());
        let porter = Porter { run, clients, ledger: ledger.clone(), inbox, sessions: Arc::clone(&sessions) };
        let listener = thread::spawn(move || porter.work(listener, &closed));
        Self { sessions, listener, closing }
    }

    /// Sends a message to a client, if it is connected.
    pub(super) fn send(&self, client: Client, message: Message) {
        if let Some(session) = lock(&self.sessions).get(&client) {
            // A writer that has ended has said so to the engine through its reader.
            let _ = session.outbox.send(message);
        }
    }

    /// Lets `stepper` answer the client's messages within rounds.
    pub(super) fn set_stepper(&self, client: Client, stepper: Option<Box<dyn Stepper>>) {
        if let Some(session) = lock(&self.sessions).get(&client) {
            *lock(&session.stepper) = stepper;
        }
    }

    /// Lets nobody in any more; what was sent still arrives, within `grace`.
    pub(super) fn close(self, grace: Duration) {
        let writers: Vec<_> = std::mem::take(&mut *lock(&self.sessions)).into_values().map(|s| s.writer).collect();
        // A writer ends when its client has gone and all is sent. One that hangs is left to the listener, which breaks
        // its link.
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline && !writers.iter().all(JoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(5));
        }
        drop(self.closing);
        if let Ok(listener) = self.listener.join() {
            listener.shutdown(grace);
        }
    }
}

/// The thread that lets clients in.
struct Porter {
    run: String,
    clients: Vec<ClientId>,
    ledger: Ledger,
    inbox: mpsc::Sender<Inbox>,
    sessions: Sessions,
}

impl Porter {
    fn work(self, mut listener: Listener, closed: &mpsc::Receiver<()>) -> Listener {
        // The channel carries nothing: it is empty while the door is open and disconnected afterwards.
        while closed.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
            if let Some(arrival) = listener.accept_until(Instant::now() + Duration::from_millis(100)) {
                self.receive(arrival);
            }
        }
        listener
    }

    fn receive(&self, arrival: Arrival) {
        let Arrival { join, link, peer, .. } = arrival;
        match self.check(&join, &peer) {
            Ok((client, announcement)) => {
                let mut link = link;
                link.count_into(&self.ledger, &announcement.client);
                let (sender, receiver) = link.split();
                self.begin(client, announcement, sender, receiver);
            }
            Err(reason) => {
                let (mut sender, _receiver) = link.split();
                // One who is refused and already gone needs no answer.
                let _ = sender.send(refusal(&reason));
            }
        }
    }

    /// The client's ordinal, or why it may not join.
    fn check(&self, join: &Message, peer: &PeerIdentity) -> Result<(Client, Announcement), String> {
        let announcement: Announcement =
            serde_json::from_value(join.fields.clone()).map_err(|error| format!("a join cannot be read: {error}"))?;
        let id = &announcement.client;
        let Some(client) = self.clients.iter().position(|known| known.to_string() == *id) else {
            let all: Vec<String> = self.clients.iter().map(ToString::to_string).collect();
            return Err(format!("client {id} is not of this run, whose clients are {}", all.join(", ")));
        };
        let allowed = peer.may_speak_for(&self.run, &self.clients[client].group);
        allowed.map_err(|foreign| format!("client {id} is not let in: {foreign}"))?;
        if lock(&self.sessions).contains_key(&client) {
            return Err(format!("client {id} is connected already"));
        }
        if announcement.examples == 0 {
            return Err(format!("client {id} has no examples"));
        }
        Ok((client, announcement))
    }

    fn begin(&self, client: Client, announcement: Announcement, sender: LinkSender, receiver: LinkReceiver) {
        let (outbox, messages) = mpsc::channel();
        let stepper = Arc::new(Mutex::new(None));
        let reader = Reader {
            client,
            receiver,
            replies: outbox.clone(),
            stepper: Arc::clone(&stepper),
            inbox: self.inbox.clone(),
            sessions: Arc::clone(&self.sessions),
        };
        let writer = thread::spawn(move || write(sender, &messages));
        let mut sessions = lock(&self.sessions);
        sessions.insert(client, Session { outbox, stepper, writer });
        // The engine outlives the door; if it is gone, so is the run.
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
    receiver: LinkReceiver,
    replies: mpsc::Sender<Message>,
    stepper: Arc<Mutex<Option<Box<dyn Stepper>>>>,
    inbox: mpsc::Sender<Inbox>,
    sessions: Sessions,
}

impl Reader {
    fn work(mut self) {
        while let Ok(message) = self.receiver.receive() {
            let passed_on = match message.subject {
                Subject::Step => self.step(&message),
                Subject::Join
                | Subject::Welcome
                | Subject::Begin
                | Subject::StepReply
                | Subject::Upload
                | Subject::Exchange
                | Subject::ExchangeReply
                | Subject::Finish
                | Subject::Refuse => self.inbox.send(Inbox::Message(self.client, message)).is_ok(),
            };
            if !passed_on {
                break;
            }
        }
        // Under the lock, so that a client that comes back at once is not said to have left after it joined.
        let mut sessions = lock(&self.sessions);
        sessions.remove(&self.client);
        // Without an engine there is nobody left to tell.
        let _ = self.inbox.send(Inbox::Left(self.client));
    }

    /// Answers a step; false when the session is over.
    fn step(&self, message: &Message) -> bool {
        let mut stepper = lock(&self.stepper);
        let Some(stepper) = stepper.as_mut() else {
            let who = format!("client {}", self.client);
            let error = FrameworkError::Unexpected { who, got: Subject::Step, expected: Subject::Upload };
            let _ = self.inbox.send(Inbox::StepFailed(self.client, error));
            return false;
        };
        match catch_unwind(AssertUnwindSafe(|| stepper.step(message))) {
            Ok(Ok(reply)) => self.replies.send(reply).is_ok(),
            Ok(Err(error)) => self.inbox.send(Inbox::StepFailed(self.client, error)).is_ok(),
            Err(panic) => {
                let error = ServerError::Panic(panic_sentence(panic.as_ref()));
                self.inbox.send(Inbox::Stop(error)).is_ok()
            }
        }
    }
}

/// What a panic said.
pub(crate) fn panic_sentence(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    // libtorch appends a backtrace of its own.
    text.and_then(|text| text.lines().next()).unwrap_or("a panic without words").to_owned()
}

/// Tells a client that it may not go on.
pub(super) fn refusal(reason: &str) -> Message {
    Message { fields: serde_json::json!({ "reason": reason }), ..Message::new(Subject::Refuse, 0) }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Name;

    fn porter(inbox: mpsc::Sender<Inbox>) -> Porter {
        let clients = ["silo-a", "silo-b"].map(|group| ClientId { group: group.to_owned(), index: 0 }).to_vec();
        Porter { run: "mail".to_owned(), clients, ledger: Ledger::new(), inbox, sessions: Sessions::default() }
    }

    fn join(client: &str) -> Message {
        let fields = serde_json::json!({ "client": client, "examples": 3, "labels": {} });
        Message { fields, ..Message::new(Subject::Join, 0) }
    }

    fn silo(run: &str, group: &str) -> PeerIdentity {
        PeerIdentity::Certified(Name::Group { run: run.to_owned(), group: group.to_owned() })
    }

    #[test]
    fn a_client_is_let_in_only_by_a_certificate_of_its_group_and_run() {
        let porter = porter(mpsc::channel().0);
        let check = |id: &str, peer: &PeerIdentity| porter.check(&join(id), peer).map(|(client, _)| client);
        assert_eq!(check("silo-b/0", &silo("mail", "silo-b")), Ok(1));
        assert_eq!(check("silo-b/0", &PeerIdentity::Plain), Ok(1));
        assert_eq!(
            check("silo-b/0", &silo("mail", "silo-a")).unwrap_err(),
            "client silo-b/0 is not let in: the certificate is for group silo-a, and may not speak for a client of \
             group silo-b"
        );
        assert_eq!(
            check("silo-b/0", &silo("post", "silo-b")).unwrap_err(),
            "client silo-b/0 is not let in: the certificate is for run post, and this is run mail"
        );
    }
}
