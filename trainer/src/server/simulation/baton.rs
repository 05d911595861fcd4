//! Client threads that run one at a time: each call into the world hands the baton over and waits for an answer.
//! Must not keep a thread that nobody answers: one whose world is gone ends.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    checkpoint::Snapshot,
    client::{self, ClientSetup, Dial, Finished, dialer::DialError},
    wire::{Line, LinkError, Message, client::ConnectError},
};

/// A connection in the world.
pub(super) type Connection = u64;

/// What a client's thread wants.
#[derive(Debug)]
pub(super) enum Wish {
    /// A session, after `pause`.
    Dial { pause: Duration },
    /// To send; answered at once.
    Send(Connection, Message),
    /// The next message.
    Receive(Connection),
    /// Nothing any more: what it has in the end, or why it gave up.
    Ended(Result<Snapshot, String>),
}

/// What it gets.
#[derive(Debug)]
pub(super) enum Answer {
    Dialled(Connection),
    Sent,
    Received(Box<Message>),
    /// The session is over.
    Closed,
    /// The process is dead: its code runs on until it ends, and reaches nobody.
    Dead,
}

/// A client's process, seen from the world. After each answer the next wish is waited for, so that one thread runs.
#[derive(Debug)]
pub(super) struct Process {
    wishes: Receiver<Wish>,
    answers: SyncSender<Answer>,
    thread: JoinHandle<()>,
}

impl Process {
    /// Starts a client.
    pub(super) fn start(setup: ClientSetup<'static>) -> Self {
        let (wish, wishes) = sync_channel(0);
        let (answers, answer) = sync_channel(0);
        let thread = thread::spawn(move || {
            let hand = Hand(Arc::new(Mutex::new((wish, answer))));
            let mut phone = Phone { hand: hand.clone(), pause: FIRST_PAUSE };
            let ended = client::work(setup, &mut phone).map(confirm);
            hand.say(Wish::Ended(ended.map_err(|error| error.to_string())));
        });
        Self { wishes, answers, thread }
    }

    /// What it wants next; it runs until it wants something.
    pub(super) fn wish(&self) -> Wish {
        self.wishes.recv().unwrap_or_else(|_| Wish::Ended(Err("its thread panicked".to_owned())))
    }

    pub(super) fn answer(&self, answer: Answer) {
        // A thread that has ended waits for nothing.
        let _ = self.answers.send(answer);
    }

    /// Kills a process that waits for an answer: whatever it wants, it is dead.
    pub(super) fn kill(self) {
        self.answer(Answer::Dead);
        while !matches!(self.wish(), Wish::Ended(_)) {
            self.answer(Answer::Dead);
        }
        self.bury();
    }

    /// Waits for a thread that has said that it ends.
    pub(super) fn bury(self) {
        self.thread.join().expect("a client's panics are caught and told");
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Says goodbye and gives what the client ends with.
fn confirm(mut finished: Finished) -> Snapshot {
    let own = finished.half.save().expect("a model that was trained can be saved");
    finished.confirm();
    own
}

/// The client's end of the baton.
#[derive(Debug, Clone)]
struct Hand(Arc<Mutex<(SyncSender<Wish>, Receiver<Answer>)>>);

impl Hand {
    fn say(&self, wish: Wish) -> bool {
        self.0.lock().unwrap().0.send(wish).is_ok()
    }

    fn ask(&self, wish: Wish) -> Answer {
        // A world that is gone answers nobody.
        if !self.say(wish) {
            return Answer::Dead;
        }
        self.0.lock().unwrap().1.recv().unwrap_or(Answer::Dead)
    }
}

/// How a client dials in the world.
#[derive(Debug)]
struct Phone {
    hand: Hand,
    pause: Duration,
}

impl Dial for Phone {
    fn open(&mut self, trouble: Option<&str>) -> Result<Box<dyn Line>, DialError> {
        let pause = if trouble.is_some() { self.pause } else { Duration::ZERO };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        match self.hand.ask(Wish::Dial { pause }) {
            Answer::Dialled(connection) => Ok(Box::new(Session { hand: self.hand.clone(), connection })),
            Answer::Sent | Answer::Received(_) | Answer::Closed | Answer::Dead => {
                let (url, reason) = ("the world".to_owned(), "this process is dead".to_owned());
                Err(ConnectError::Unreachable { url, reason }.into())
            }
        }
    }

    fn held(&mut self) {
        self.pause = FIRST_PAUSE;
    }
}

/// A session in the world.
#[derive(Debug)]
struct Session {
    hand: Hand,
    connection: Connection,
}

impl Session {
    fn closed() -> LinkError {
        LinkError::Closed { reason: "the world took it".to_owned() }
    }
}

impl Line for Session {
    fn send(&mut self, message: Message) -> Result<(), LinkError> {
        match self.hand.ask(Wish::Send(self.connection, message)) {
            Answer::Sent => Ok(()),
            Answer::Dialled(_) | Answer::Received(_) | Answer::Closed | Answer::Dead => Err(Self::closed()),
        }
    }

    fn receive(&mut self) -> Result<Message, LinkError> {
        match self.hand.ask(Wish::Receive(self.connection)) {
            Answer::Received(message) => Ok(*message),
            Answer::Sent | Answer::Dialled(_) | Answer::Closed | Answer::Dead => Err(Self::closed()),
        }
    }
}
