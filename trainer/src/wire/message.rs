//! What the two sides say: a subject, where in the run it belongs, small fields, and tensors.
//! Must not decide who may say what when: the frameworks and the round machine do.

use std::{collections::BTreeMap, fmt};

use fedtune_crds::report::PayloadKind;

use super::WireTensor;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Client: who it is and what it holds.
    Join,
    /// Server: the client is accepted.
    Welcome,
    /// Server: a round begins, with the global state.
    Begin,
    /// Client: one step's activations.
    Step,
    /// Server: their gradients; what its blocks made of them where the head is the client's.
    StepReply,
    /// Client: the gradient of what the server's blocks made, where the head is the client's.
    StepGradient,
    /// Server: the gradient of the step's activations.
    StepGradientReply,
    /// Client: what the round made.
    Upload,
    /// Server: a further exchange within the round.
    Exchange,
    /// Client: its answer.
    ExchangeReply,
    /// Server: the run is over.
    Finish,
    /// Either side: the other's message is not accepted, and why.
    Refuse,
    /// Client: it lost the state that a question builds on.
    Recall,
    /// Server: what the client was sent in an earlier round.
    Replay,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Join => "join",
            Self::Welcome => "welcome",
            Self::Begin => "begin",
            Self::Step => "step",
            Self::StepReply => "step reply",
            Self::StepGradient => "step gradient",
            Self::StepGradientReply => "step gradient reply",
            Self::Upload => "upload",
            Self::Exchange => "exchange",
            Self::ExchangeReply => "exchange reply",
            Self::Finish => "finish",
            Self::Refuse => "refuse",
            Self::Recall => "recall",
            Self::Replay => "replay",
        })
    }
}

/// One message, whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What it is about.
    pub subject: Subject,
    /// Round it belongs to, from 1; 0 outside of rounds.
    pub round: u32,
    /// Local step it belongs to, from 0.
    pub step: u32,
    /// How often the server had started when it was sent.
    pub epoch: u64,
    /// Which asking of the client in this exchange it belongs to, from 1; 0 outside of exchanges.
    pub attempt: u32,
    /// Small control data, at most [`super::FIELDS_BYTES`] as JSON: labels, counts, figures.
    /// JSON knows no NaN: a figure that may be one is sent as null or as text.
    pub fields: serde_json::Value,
    /// Payload, in an order that both sides know.
    pub tensors: Vec<WireTensor>,
}

impl Message {
    /// A message about `subject` in `round`, to be filled: `Message { tensors, ..Message::new(Subject::Upload, 3) }`.
    pub fn new(subject: Subject, round: u32) -> Self {
        Self { subject, round, step: 0, epoch: 0, attempt: 0, fields: serde_json::Value::Null, tensors: Vec::new() }
    }

    /// The exchange of its round that it belongs to: steps within a round belong to the first.
    pub fn exchange(&self) -> u32 {
        match self.subject {
            Subject::Begin | Subject::Upload | Subject::Exchange | Subject::ExchangeReply => self.step,
            Subject::Join
            | Subject::Welcome
            | Subject::Step
            | Subject::StepReply
            | Subject::StepGradient
            | Subject::StepGradientReply
            | Subject::Finish
            | Subject::Refuse
            | Subject::Recall
            | Subject::Replay => 0,
        }
    }

    /// Bytes of all tensors: what the report calls payload.
    pub fn payload_bytes(&self) -> u64 {
        self.tensors.iter().map(WireTensor::payload_bytes).sum()
    }

    /// [`Message::payload_bytes`] by kind; a kind whose tensors are all empty stands with zero.
    pub fn payload_by_kind(&self) -> BTreeMap<PayloadKind, u64> {
        let mut kinds = BTreeMap::new();
        for tensor in &self.tensors {
            *kinds.entry(tensor.kind).or_default() += tensor.payload_bytes();
        }
        kinds
    }
}
