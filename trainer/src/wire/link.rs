//! One side of a session as a model thread sees it: send a message, receive a message, and wait meanwhile.
//! Must not be used on the async runtime: every call here blocks its thread.

use std::{sync::Arc, time::Duration};

use fedtune_crds::report::Direction;
use tokio::{
    runtime::Handle,
    sync::{
        mpsc::{self, Receiver, Sender, WeakSender},
        watch,
    },
    time::{sleep, timeout},
};
use tonic::{Code, Status};

use super::{
    Decoder, Ledger, Limits, Message, SharedLimits, WireError, connection::Peer, encode, guard::Guard, traffic::Traffic,
};
use crate::protocol::Frame;

/// Frames on their way between a model thread and the network, each way; a sender that is ahead waits.
pub(super) const FRAMES_AHEAD: usize = 4;

/// How long a sender whose frames are no longer taken waits for the reason.
const REASON_WITHIN: Duration = Duration::from_secs(1);

/// How long a message may stay unread by the other side once the session is to end.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// What both sides of a session must agree on, and what this side accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Hash of all that decides the run's result.
    pub run: String,
    /// What the other side may send.
    pub limits: Limits,
}

/// Why a message could not be sent or received. The session is lost with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum LinkError {
    /// Worth another attempt: the network, or a peer that stopped.
    #[error("the session is closed: {reason}")]
    Closed { reason: String },
    /// The other side's own and final word.
    #[error("the other side ended the session: {reason}")]
    Rejected { reason: String },
    #[error("the message cannot be sent: {0}")]
    Unsendable(#[source] WireError),
    #[error("the other side broke the protocol: {0}")]
    Refused(#[source] WireError),
}

/// A session's frames, or how it ended; a client only ever sends frames.
pub(super) type FrameOrEnd = Result<Frame, Status>;

/// A session as the code that trains sees it.
pub trait Line: Send {
    /// Sends a message; returns when the last of it is handed over, which may be before it has arrived.
    fn send(&mut self, message: Message) -> Result<(), LinkError>;

    /// Waits for the next message.
    fn receive(&mut self) -> Result<Message, LinkError>;
}

/// One side of a session. Dropping it ends the session once what was sent is on its way.
#[derive(Debug)]
pub struct Link {
    sender: LinkSender,
    receiver: LinkReceiver,
    /// A server's: what lets the connection stay.
    guard: Option<Arc<Guard>>,
}

/// The half of a [`Link`] that sends, for a thread of its own.
#[derive(Debug)]
pub struct LinkSender {
    run: String,
    outgoing: Sender<FrameOrEnd>,
    meter: Option<Meter>,
    runtime: Handle,
    hung_up: HangUp,
}

/// The half of a [`Link`] that receives, for a thread of its own.
#[derive(Debug)]
pub struct LinkReceiver {
    /// Kept to tell the other side what it did wrong; weak, so that the session ends when the sender is dropped.
    outgoing: WeakSender<FrameOrEnd>,
    incoming: Receiver<FrameOrEnd>,
    decoder: Decoder,
    runtime: Handle,
    traffic: Arc<Traffic>,
    hung_up: HangUp,
}

/// Ends a session from outside: whoever waits on its receiver is woken, and soon whoever waits on its sender.
#[derive(Debug, Clone, Default)]
pub struct HangUp(Arc<watch::Sender<bool>>);

impl HangUp {
    /// Ends the session.
    pub fn now(&self) {
        self.0.send_replace(true);
    }

    /// Waits for it.
    async fn wait(&self) {
        // Its sender lives as long as this handle.
        let _ = self.0.subscribe().wait_for(|ended| *ended).await;
    }
}

/// Where a server's link counts its payload, and as whose.
#[derive(Debug, Clone)]
struct Meter {
    ledger: Ledger,
    client: String,
}

impl Link {
    pub(super) fn new(
        terms: &Terms,
        outgoing: Sender<FrameOrEnd>,
        incoming: Receiver<FrameOrEnd>,
        runtime: Handle,
    ) -> Self {
        let decoder = Decoder::new(terms.run.clone(), terms.limits);
        let weak = outgoing.downgrade();
        let hung_up = HangUp::default();
        let sender = LinkSender {
            run: terms.run.clone(),
            outgoing,
            meter: None,
            runtime: runtime.clone(),
            hung_up: hung_up.clone(),
        };
        let receiver = LinkReceiver { outgoing: weak, incoming, decoder, runtime, traffic: Arc::default(), hung_up };
        Self { sender, receiver, guard: None }
    }

    /// Two links that are each other's other side, without a network between them.
    pub fn pair(terms: &Terms, runtime: &Handle) -> (Self, Self) {
        let (to_second, from_first) = mpsc::channel(FRAMES_AHEAD);
        let (to_first, from_second) = mpsc::channel(FRAMES_AHEAD);
        let first = Self::new(terms, to_second, from_second, runtime.clone());
        (first, Self::new(terms, to_first, from_first, runtime.clone()))
    }

    /// The link of a session on a connection with this peer.
    pub(super) fn with_peer(mut self, peer: &Peer) -> Self {
        self.receiver.traffic = Arc::clone(&peer.traffic);
        self.guard = Some(Arc::clone(&peer.guard));
        self
    }

    /// What the other side may send, to be changed once it is known who that is.
    pub fn limits(&self) -> SharedLimits {
        self.receiver.decoder.limits()
    }

    /// What ends the session from another thread.
    pub fn hang_up(&self) -> HangUp {
        self.receiver.hung_up.clone()
    }

    /// Server: takes the session for that of `client` (`group/index`). From here on what its socket carries and the
    /// payload that is sent count in `ledger` (received payload is counted by whoever accepts it), and its connection
    /// is no longer one of those that may be turned away.
    pub fn count_into(&mut self, ledger: &Ledger, client: &str) {
        if let Some(guard) = &self.guard {
            guard.admit();
        }
        ledger.add_connection(client, Arc::clone(&self.receiver.traffic));
        self.sender.meter = Some(Meter { ledger: ledger.clone(), client: client.to_owned() });
    }

    /// The two halves, for two threads.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        (self.sender, self.receiver)
    }

    /// Waits for the next message, but not longer than `patience`; a message that came in part is kept.
    pub fn receive_within(&mut self, patience: Duration) -> Result<Option<Message>, LinkError> {
        let runtime = self.receiver.runtime.clone();
        runtime.block_on(async { timeout(patience, self.next()).await }).ok().transpose()
    }

    /// The next message. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<Message, LinkError> {
        self.receiver.next().await
    }
}

impl Line for Link {
    fn send(&mut self, message: Message) -> Result<(), LinkError> {
        match self.sender.send(message) {
            Err(LinkError::Closed { .. }) => Err(self.receiver.why_closed()),
            sent => sent,
        }
    }

    fn receive(&mut self) -> Result<Message, LinkError> {
        self.receiver.receive()
    }
}

impl LinkSender {
    /// Sends a message; returns when the last of it is handed to the network, which may be before it has arrived.
    pub fn send(&mut self, message: Message) -> Result<(), LinkError> {
        // Counted before it goes: the answer to it may close the round before this thread runs again.
        if let Some(Meter { ledger, client }) = &self.meter {
            ledger.count(client, Direction::Down, &message);
        }
        let frames = encode(message, &self.run).map_err(LinkError::Unsendable)?;
        for frame in frames {
            self.runtime.block_on(self.hand_over(frame))?;
        }
        Ok(())
    }

    /// Waits until the network takes the frame. A session that is to end still tells its peer why, if that reads.
    async fn hand_over(&self, frame: Frame) -> Result<(), LinkError> {
        let hung_up = async {
            self.hung_up.wait().await;
            sleep(READ_WITHIN).await;
        };
        tokio::select! {
            biased;
            sent = self.outgoing.send(Ok(frame)) => sent.map_err(|_| ended()),
            () = hung_up => Err(LinkError::Closed { reason: "this side ended it".to_owned() }),
        }
    }
}

impl LinkReceiver {
    /// Waits for the next message.
    pub fn receive(&mut self) -> Result<Message, LinkError> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.next())
    }

    async fn next(&mut self) -> Result<Message, LinkError> {
        loop {
            let frame = match self.next_frame().await {
                Err(LinkError::Refused(error)) => return Err(self.refuse(error)),
                next => next?,
            };
            match self.decoder.push(frame) {
                Ok(None) => {}
                Ok(Some(message)) => return Ok(message),
                Err(error) => return Err(self.refuse(error)),
            }
        }
    }

    async fn next_frame(&mut self) -> Result<Frame, LinkError> {
        // Once it is to end nothing more is taken from it.
        let next = tokio::select! {
            biased;
            () = self.hung_up.wait() => return Err(LinkError::Closed { reason: "this side ended it".to_owned() }),
            next = self.incoming.recv() => next,
        };
        match next {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(status)) => Err(closed(&status)),
            None => Err(self.decoder.finish().map_or_else(LinkError::Refused, |()| ended())),
        }
    }

    /// Tells the other side what it did wrong, if there is room to, and takes no more from it.
    fn refuse(&mut self, error: WireError) -> LinkError {
        self.incoming.close();
        if let Some(outgoing) = self.outgoing.upgrade() {
            // A full channel means that the other side does not read: it cannot be told.
            let _ = outgoing.try_send(Err(Status::invalid_argument(error.to_string())));
        }
        LinkError::Refused(error)
    }

    /// The reason that the network gave when it stopped taking frames.
    fn why_closed(&mut self) -> LinkError {
        let reason = async {
            loop {
                match self.incoming.recv().await {
                    Some(Ok(_)) => {}
                    Some(Err(status)) => return closed(&status),
                    None => return ended(),
                }
            }
        };
        let within = self.runtime.block_on(async { timeout(REASON_WITHIN, reason).await });
        within.unwrap_or_else(|_| ended())
    }
}

fn ended() -> LinkError {
    LinkError::Closed { reason: "the other side ended it".to_owned() }
}

fn closed(status: &Status) -> LinkError {
    let reason = status.message().to_owned();
    match status.code() {
        Code::DataLoss => LinkError::Refused(WireError::FrameUnreadable { reason }),
        Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated => {
            LinkError::Rejected { reason }
        }
        // Foreign codes: whatever else ended the session may be gone at the next attempt.
        _ => LinkError::Closed { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CHUNK_BYTES, Element, Subject, WireTensor, runtime};

    fn terms() -> Terms {
        Terms { run: "run-a".to_owned(), limits: Limits { tensors: 1, payload_bytes: 64 << 20 } }
    }

    /// A message of a header and two chunks.
    fn three_frames() -> Message {
        let length = CHUNK_BYTES + 1;
        let kind = fedtune_crds::report::PayloadKind::Adapter;
        let (shape, bytes) = (vec![length as i64], vec![7; length].into());
        let tensor = WireTensor { name: "t".to_owned(), kind, element: Element::U8, shape, bytes };
        Message { tensors: vec![tensor], ..Message::new(Subject::Upload, 1) }
    }

    #[test]
    fn a_message_that_came_in_part_is_kept_while_patience_ends() {
        let runtime = runtime().unwrap();
        let (first, mut second) = Link::pair(&terms(), runtime.handle());
        let mut frames = encode(three_frames(), "run-a").unwrap();
        for frame in frames.by_ref().take(2) {
            first.sender.outgoing.blocking_send(Ok(frame)).unwrap();
        }
        assert_eq!(second.receive_within(Duration::from_millis(1)), Ok(None));
        first.sender.outgoing.blocking_send(Ok(frames.next().unwrap())).unwrap();
        assert_eq!(second.receive_within(Duration::from_secs(30)), Ok(Some(three_frames())));
    }

    #[test]
    fn a_session_that_ends_within_a_message_says_what_is_missing() {
        let runtime = runtime().unwrap();
        let (first, mut second) = Link::pair(&terms(), runtime.handle());
        for frame in encode(three_frames(), "run-a").unwrap().take(2) {
            first.sender.outgoing.blocking_send(Ok(frame)).unwrap();
        }
        drop(first);
        assert_eq!(second.receive(), Err(LinkError::Refused(WireError::CutOff { missing: 1 })));
    }

    #[test]
    fn a_sender_does_not_run_ahead_of_its_receiver() {
        let runtime = runtime().unwrap();
        let (mut first, second) = Link::pair(&terms(), runtime.handle());
        for _ in 0..FRAMES_AHEAD {
            first.send(Message::new(Subject::Step, 1)).unwrap();
        }
        assert_eq!(first.sender.outgoing.capacity(), 0);
        drop(second);
        let error = LinkError::Closed { reason: "the other side ended it".to_owned() };
        assert_eq!(first.send(Message::new(Subject::Step, 1)), Err(error.clone()));
        assert_eq!(first.receive(), Err(error));
    }

    #[test]
    fn a_message_out_of_bounds_is_not_sent_and_the_session_goes_on() {
        let runtime = runtime().unwrap();
        let (mut first, mut second) = Link::pair(&terms(), runtime.handle());
        let fields = serde_json::json!("x".repeat(100_000));
        let unsendable = first.send(Message { fields, ..Message::new(Subject::Join, 0) });
        assert!(matches!(unsendable, Err(LinkError::Unsendable(WireError::FieldsTooLong { length: 100_002 }))));
        first.send(three_frames()).unwrap();
        assert_eq!(second.receive(), Ok(three_frames()));
    }
}
