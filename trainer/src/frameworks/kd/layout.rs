//! How logits travel: all of them, or the k largest of each read state, and how many bytes that takes.
//! Must not touch a tensor: numbers of read states and classes in, numbers of bytes out.

use crate::{frameworks::Unfit, wire::Element};

/// `logits` of the spec: which of them travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All.
    All,
    /// So many of the largest of each read state.
    TopK(usize),
    /// As many of the largest as fit into so many bytes a client, round and direction.
    ByteBudget(u64),
}

/// The logits of one model on the public set, as they travel once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// States that the head reads on all public examples.
    pub reads: usize,
    /// Classes that it tells apart.
    pub classes: usize,
    /// Which of them travel.
    pub form: Form,
}

/// Which logits of a read state travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All of them as they are, F32.
    Dense,
    /// So many of the largest log-probabilities, F16, each with its class.
    TopK(usize),
}

impl Selection {
    /// Refuses more logits than there are, and fewer bytes than one of each read state takes.
    pub fn check(self, reads: usize, classes: usize) -> Result<(), Unfit> {
        match self {
            Self::TopK(k) if k > classes => Err(Unfit {
                field: "spec.framework.kdFedLLM.logits.topK",
                value: k.to_string(),
                right: format!("there are {classes} classes, so it must be at most {classes}"),
            }),
            Self::ByteBudget(budget) if budget < Layout::top(1, reads, classes).bytes() => {
                let least = Layout::top(1, reads, classes).bytes();
                Err(Unfit {
                    field: "spec.framework.kdFedLLM.logits.byteBudget",
                    value: format!("{budget} bytes"),
                    right: format!(
                        "the largest logit alone of each of the {reads} read states takes {least}, so it must be at least {least}"
                    ),
                })
            }
            Self::All | Self::TopK(_) | Self::ByteBudget(_) => Ok(()),
        }
    }

    /// What travels of `reads` states over `classes`; of a selection that [`Selection::check`] would refuse, what is
    /// nearest to it.
    pub fn layout(self, reads: usize, classes: usize) -> Layout {
        match self {
            Self::All => Layout { reads, classes, form: Form::Dense },
            Self::TopK(k) => Layout::top(k, reads, classes),
            Self::ByteBudget(budget) => {
                let one = Layout::top(1, reads, classes).bytes();
                let k = budget.checked_div(one).unwrap_or(u64::MAX);
                Layout::top(usize::try_from(k).unwrap_or(usize::MAX), reads, classes)
            }
        }
    }
}

impl Layout {
    fn top(k: usize, reads: usize, classes: usize) -> Self {
        Self { reads, classes, form: Form::TopK(k.min(classes).max(1)) }
    }

    /// Type of a class's number: the smallest that holds them all.
    pub fn index(self) -> Element {
        match self.classes {
            0..=256 => Element::U8,
            257..=65_536 => Element::U16,
            _ => Element::U32,
        }
    }

    /// reads x classes x 4, or reads x k x (2 + bytes of a class's number).
    pub fn bytes(self) -> u64 {
        let row = match self.form {
            Form::Dense => self.classes * Element::F32.size(),
            Form::TopK(k) => k * (Element::F16.size() + self.index().size()),
        };
        (self.reads as u64).saturating_mul(row as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TRAINER's reference values, payload in one direction.
    #[test]
    fn reference_payloads_are_met_to_the_byte() {
        let language = |selection: Selection| selection.layout(1000 * 128, 50_257).bytes();
        assert_eq!(language(Selection::All), 25_731_584_000, "P = 1000, S = 128, V = 50,257");
        assert_eq!(language(Selection::TopK(128)), 65_536_000, "top-128, F16 and U16");
        assert_eq!(Selection::All.layout(1000, 77).bytes(), 308_000, "P = 1000, C = 77");
    }

    #[test]
    fn a_class_has_the_smallest_number_that_holds_them_all() {
        let index = |classes| Selection::TopK(1).layout(1, classes).index();
        assert_eq!([index(2), index(256)], [Element::U8; 2]);
        assert_eq!([index(257), index(50_257), index(65_536)], [Element::U16; 3]);
        assert_eq!([index(65_537), index(151_936)], [Element::U32; 2]);
    }

    /// 10 read states over 300 classes: k takes 10 k (2 + 2) bytes.
    #[test]
    fn a_budget_buys_the_largest_k_that_fits_and_no_more_than_there_are_classes() {
        let k = |budget| Selection::ByteBudget(budget).layout(10, 300).form;
        assert_eq!(k(40), Form::TopK(1));
        assert_eq!(k(79), Form::TopK(1));
        assert_eq!(k(80), Form::TopK(2));
        assert_eq!(k(11_999), Form::TopK(299));
        assert_eq!(k(12_000), Form::TopK(300));
        assert_eq!(k(u64::MAX), Form::TopK(300));
        for budget in [40, 1_234, 9_999] {
            assert!(Selection::ByteBudget(budget).layout(10, 300).bytes() <= budget);
        }
    }

    #[test]
    fn a_budget_below_one_logit_of_each_state_is_refused_with_the_least() {
        let error = Selection::ByteBudget(39).check(10, 300).unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.framework.kdFedLLM.logits.byteBudget is 39 bytes; the largest logit alone of each of the 10 read \
             states takes 40, so it must be at least 40"
        );
        assert_eq!(Selection::ByteBudget(40).check(10, 300), Ok(()));
    }

    #[test]
    fn more_logits_than_classes_are_refused_with_how_many_there_are() {
        let error = Selection::TopK(16).check(8, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.framework.kdFedLLM.logits.topK is 16; there are 2 classes, so it must be at most 2"
        );
        assert_eq!(Selection::TopK(2).check(8, 2), Ok(()));
    }
}
