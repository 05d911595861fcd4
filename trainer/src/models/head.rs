//! What a model ends in: a trained classifier, or the base's own frozen layer over the vocabulary.
//! Must not hold a tensor: it is a choice, made once by the task of a run.

use super::shape::ModelShape;

/// What a model ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A trained layer that reads one pooled state of each row and tells so many labels apart.
    Classifier(usize),
    /// The base's own layer over the vocabulary, frozen; it reads the states of chosen tokens.
    Language,
}

impl Head {
    /// Classes that its logits tell apart.
    pub fn classes(self, shape: &ModelShape) -> usize {
        match self {
            Self::Classifier(labels) => labels,
            Self::Language => shape.vocab,
        }
    }

    /// Numbers of it that are trained.
    pub fn trained(self, shape: &ModelShape) -> usize {
        match self {
            Self::Classifier(labels) => labels * (shape.hidden + usize::from(shape.head_has_bias())),
            Self::Language => 0,
        }
    }
}
