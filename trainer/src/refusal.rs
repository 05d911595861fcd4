//! Why what a peer sent was refused, in the words of `fedtune_uploads_refused_total{reason}`.
//! Must not say more than a word: the sentence is the error's own.

use crate::{frameworks::FrameworkError, wire::LinkError, wire::WireError};

/// A reason to refuse; few, because each is a series of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// A tensor of another shape, name or kind than belongs there.
    Shape,
    /// A tensor of another element type.
    Element,
    /// Another number of tensors.
    Count,
    /// More or fewer bytes than were announced.
    Length,
    /// A value that is no number.
    NotFinite,
    /// A label, index, length or token out of range.
    Range,
    /// A message of an earlier start of the server.
    StaleEpoch,
    /// A message of a round or turn that is over.
    StaleRound,
    /// A message that has no place in this phase of the protocol.
    Phase,
    /// Something that is not this version of the protocol.
    Protocol,
    /// A message of another run.
    Run,
    /// A client that its certificate does not name, or that is not of the run.
    Identity,
    /// A client that claims examples which it cannot have.
    Examples,
    /// A second live session of one client.
    Duplicate,
    /// More than is allowed of anything.
    TooLarge,
    /// None of the others.
    Other,
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::Shape,
        Self::Element,
        Self::Count,
        Self::Length,
        Self::NotFinite,
        Self::Range,
        Self::StaleEpoch,
        Self::StaleRound,
        Self::Phase,
        Self::Protocol,
        Self::Run,
        Self::Identity,
        Self::Examples,
        Self::Duplicate,
        Self::TooLarge,
        Self::Other,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shape => "shape",
            Self::Element => "element",
            Self::Count => "count",
            Self::Length => "length",
            Self::NotFinite => "not_finite",
            Self::Range => "range",
            Self::StaleEpoch => "stale_epoch",
            Self::StaleRound => "stale_round",
            Self::Phase => "phase",
            Self::Protocol => "protocol",
            Self::Run => "run",
            Self::Identity => "identity",
            Self::Examples => "examples",
            Self::Duplicate => "duplicate",
            Self::TooLarge => "too_large",
            Self::Other => "other",
        }
    }
}

impl From<&WireError> for RefusalReason {
    fn from(error: &WireError) -> Self {
        match error {
            WireError::Version { .. }
            | WireError::Subject { .. }
            | WireError::FieldsNotJson { .. }
            | WireError::HeaderUnreadable { .. }
            | WireError::UnknownKind { .. }
            | WireError::EmptyFrame
            | WireError::FrameUnreadable { .. }
            | WireError::ChunkBeforeHeader { .. }
            | WireError::HeaderTooEarly { .. } => Self::Protocol,
            WireError::Run { .. } => Self::Run,
            WireError::FieldsTooLong { .. }
            | WireError::TooManyBytes { .. }
            | WireError::HeaderTooLong { .. }
            | WireError::TensorHeader { .. } => Self::TooLarge,
            WireError::TooManyTensors { .. } => Self::Count,
            WireError::UnknownElement { .. } | WireError::WrongElement { .. } => Self::Element,
            WireError::Shape { .. } => Self::Shape,
            WireError::Length { .. }
            | WireError::ChunkTooLong { .. }
            | WireError::ChunkTooShort { .. }
            | WireError::CutOff { .. } => Self::Length,
            WireError::Libtorch { .. } => Self::Other,
        }
    }
}

impl From<&FrameworkError> for RefusalReason {
    fn from(error: &FrameworkError) -> Self {
        match error {
            FrameworkError::Wire(error) | FrameworkError::Link(LinkError::Refused(error)) => error.into(),
            FrameworkError::Count { .. } => Self::Count,
            FrameworkError::Tensor { .. } => Self::Shape,
            FrameworkError::NotFinite { .. } | FrameworkError::Int8 { .. } => Self::NotFinite,
            FrameworkError::Range { .. } | FrameworkError::Logits { .. } | FrameworkError::TooManySteps { .. } => {
                Self::Range
            }
            FrameworkError::Fields { .. } => Self::Protocol,
            FrameworkError::NotOpen { .. } | FrameworkError::OutOfOrder { .. } => Self::StaleRound,
            FrameworkError::StaleEpoch { .. } => Self::StaleEpoch,
            FrameworkError::Unexpected { .. } => Self::Phase,
            FrameworkError::Train(_)
            | FrameworkError::Torch(_)
            | FrameworkError::Refused { .. }
            | FrameworkError::Spill { .. }
            | FrameworkError::Link(LinkError::Closed { .. } | LinkError::Rejected { .. } | LinkError::Unsendable(_)) => {
                Self::Other
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_reason_has_a_label_of_its_own() {
        let labels: BTreeSet<&str> = RefusalReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(labels.len(), RefusalReason::ALL.len());
        assert!(labels.iter().all(|label| label.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())));
    }

    #[test]
    fn a_message_of_another_run_is_refused_as_such_wherever_it_was_noticed() {
        let error = || WireError::Run { theirs: "a".into(), ours: "b".into() };
        assert_eq!(RefusalReason::from(&error()), RefusalReason::Run);
        assert_eq!(RefusalReason::from(&FrameworkError::Wire(error())), RefusalReason::Run);
        assert_eq!(RefusalReason::from(&FrameworkError::Link(LinkError::Refused(error()))), RefusalReason::Run);
    }
}
