//! The third client: it sends whatever frames it likes, and reads what the server says to them.
//! Must not check what it sends; the server must.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint};

use super::scene::{Gate, Heard};
use crate::{
    frameworks::{self, Figures},
    protocol::{Frame, Header, federation_client::FederationClient, frame::Body},
    wire::{Decoder, Limits, Message, Subject, encode},
};

/// The run's hash, as `testing::materials` has it.
pub(super) const RUN: &str = "tiny";

/// The hostile client's id.
pub(super) const ME: &str = "silo/2";

/// Longer than any test: a server that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A session of the third client.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    runtime: Handle,
    frames: mpsc::Sender<Frame>,
    replies: Streaming<Frame>,
    decoder: Decoder,
    pub(super) heard: Heard,
    /// Holds up whom the scene holds up.
    pub(super) others: Gate,
}

impl Peer {
    /// Opens a session and says nothing yet.
    pub(super) fn open(address: SocketAddr, runtime: &Handle, heard: Heard, others: Gate) -> Self {
        let (frames, to_network) = mpsc::channel(1);
        let replies = runtime.block_on(async {
            // Few bytes ahead, so that a peer that does not read is noticed soon.
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
            let mut client = FederationClient::new(endpoint.connect().await.unwrap());
            client.session(ReceiverStream::new(to_network)).await.unwrap().into_inner()
        });
        let decoder = Decoder::new(RUN, Limits { tensors: 1000, payload_bytes: 1 << 30 });
        Self { address, runtime: runtime.clone(), frames, replies, decoder, heard, others }
    }

    /// Another session beside this one.
    pub(super) fn again(&self) -> Self {
        Self::open(self.address, &self.runtime, self.heard.clone(), self.others.clone())
    }

    /// Another session of the same process, joined: it takes the place of this one.
    pub(super) fn back(&self) -> Self {
        let mut peer = self.again();
        peer.join();
        peer
    }

    /// Lets the server tell it that the run is over, as any client would.
    pub(super) fn take_leave(self) {
        let mut last = self.again();
        drop(self);
        last.send(join(&announcement()));
        last.wait_for(Subject::Finish);
        last.send(Message { epoch: 1, ..Message::new(Subject::Finish, 0) });
        while last.receive().is_ok() {}
    }

    /// Sends no more; what it did not send is missing.
    pub(super) fn end(&mut self) {
        self.frames = mpsc::channel(1).0;
    }

    /// Sends the message again and again, and reads nothing, as long as the session lasts.
    pub(super) fn flood(&self, message: &Message) {
        let (frames, message) = (self.frames.clone(), message.clone());
        self.runtime.spawn(async move {
            loop {
                for frame in encode(message.clone(), RUN).unwrap() {
                    if frames.send(frame).await.is_err() {
                        return;
                    }
                }
            }
        });
    }

    pub(super) fn push(&self, frame: Frame) {
        // A server that has ended the session says why to the one who reads.
        let _ = self.frames.blocking_send(frame);
    }

    pub(super) fn send(&self, message: Message) {
        for frame in encode(message, RUN).unwrap() {
            self.push(frame);
        }
    }

    /// Sends a header that nobody checked, and no more.
    pub(super) fn send_header(&self, header: &Header) {
        self.push(Frame { body: Some(Body::Header(header.encode_to_vec().into())) });
    }

    pub(super) fn send_chunk(&self, bytes: impl Into<Bytes>) {
        self.push(Frame { body: Some(Body::Chunk(bytes.into())) });
    }

    /// What the server says next, or its sentence where it ends the session.
    pub(super) fn receive(&mut self) -> Result<Message, String> {
        loop {
            let next = self.runtime.block_on(async { timeout(PATIENCE, self.replies.message()).await });
            match next.expect("the server neither answers nor ends the session") {
                Ok(Some(frame)) => {
                    if let Some(message) = self.decoder.push(frame).unwrap() {
                        return Ok(message);
                    }
                }
                Ok(None) => return Err("the session ended".to_owned()),
                Err(status) => return Err(status.message().to_owned()),
            }
        }
    }

    /// Waits for a message about `subject`, passing over others.
    pub(super) fn wait_for(&mut self, subject: Subject) -> Message {
        loop {
            let message = self.receive().unwrap_or_else(|ended| panic!("waiting for a {subject}: {ended}"));
            if message.subject == subject {
                return message;
            }
        }
    }

    /// The sentence of the next refusal, whether the session ends with it or goes on.
    pub(super) fn refusal(&mut self) -> String {
        loop {
            match self.receive() {
                Ok(message) if message.subject == Subject::Refuse => {
                    return message.fields["reason"].as_str().unwrap().to_owned();
                }
                Ok(_) => {}
                Err(sentence) => return sentence,
            }
        }
    }

    /// Joins as any client would.
    pub(super) fn join(&mut self) {
        self.send(join(&announcement()));
        self.wait_for(Subject::Welcome);
    }

    /// Says that it cannot go on, so that nobody waits for it.
    pub(super) fn give_up(&self) {
        self.send(giving_up(&json!({ "reason": "it has seen enough" })));
    }
}

/// What the third client says of itself, to be spoilt.
pub(super) fn announcement() -> Value {
    json!({ "client": ME, "examples": 12, "labels": { "a": 6, "b": 6 }, "incarnation": 77 })
}

pub(super) fn join(announcement: &Value) -> Message {
    Message { fields: announcement.clone(), ..Message::new(Subject::Join, 0) }
}

pub(super) fn giving_up(fields: &Value) -> Message {
    Message { fields: fields.clone(), epoch: 1, ..Message::new(Subject::Refuse, 0) }
}

/// An answer with fair figures and what `ask` carried, which fits where the adapter goes both ways.
pub(super) fn fair_answer(ask: &Message) -> Message {
    let fields = Figures::default().fields();
    Message { fields, tensors: ask.tensors.clone(), ..frameworks::answer(ask) }
}
