//! The words of `federation.proto` and our own enums, one to one.
//! Must not give an unknown word a meaning: what has no counterpart here is refused.

use fedtune_crds::report::PayloadKind;

use super::{Element, Subject};
use crate::protocol;

/// Both directions between an enum of ours and its generated twin, whose words differ by `Unspecified` alone.
macro_rules! same_words {
    ($ours:ty, $theirs:ty, $($word:ident),+) => {
        impl From<$ours> for $theirs {
            fn from(ours: $ours) -> Self {
                match ours {
                    $(<$ours>::$word => Self::$word,)+
                }
            }
        }

        impl TryFrom<$theirs> for $ours {
            type Error = ();

            fn try_from(theirs: $theirs) -> Result<Self, ()> {
                match theirs {
                    <$theirs>::Unspecified => Err(()),
                    $(<$theirs>::$word => Ok(Self::$word),)+
                }
            }
        }
    };
}

same_words!(
    Subject,
    protocol::Subject,
    Join,
    Welcome,
    Begin,
    Step,
    StepReply,
    StepGradient,
    StepGradientReply,
    Upload,
    Exchange,
    ExchangeReply,
    Finish,
    Refuse,
    Recall,
    Replay
);
same_words!(
    PayloadKind,
    protocol::Kind,
    Adapter,
    Head,
    Gradient,
    Logits,
    Activation,
    ActivationGradient,
    Label,
    Length
);

// By hand: the generator spells BF16 its own way.
impl From<Element> for protocol::Element {
    fn from(ours: Element) -> Self {
        match ours {
            Element::F32 => Self::F32,
            Element::BF16 => Self::Bf16,
            Element::F16 => Self::F16,
            Element::I32 => Self::I32,
            Element::U8 => Self::U8,
            Element::U16 => Self::U16,
            Element::U32 => Self::U32,
            Element::I8 => Self::I8,
        }
    }
}

impl TryFrom<protocol::Element> for Element {
    type Error = ();

    fn try_from(theirs: protocol::Element) -> Result<Self, ()> {
        match theirs {
            protocol::Element::Unspecified => Err(()),
            protocol::Element::F32 => Ok(Self::F32),
            protocol::Element::Bf16 => Ok(Self::BF16),
            protocol::Element::F16 => Ok(Self::F16),
            protocol::Element::I32 => Ok(Self::I32),
            protocol::Element::U8 => Ok(Self::U8),
            protocol::Element::U16 => Ok(Self::U16),
            protocol::Element::U32 => Ok(Self::U32),
            protocol::Element::I8 => Ok(Self::I8),
        }
    }
}

/// Our word for a number from the wire, if it is one.
pub(super) fn ours<Theirs, Ours>(number: i32) -> Option<Ours>
where
    Theirs: TryFrom<i32>,
    Ours: TryFrom<Theirs>,
{
    Ours::try_from(Theirs::try_from(number).ok()?).ok()
}
