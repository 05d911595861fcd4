//! The public examples as distillation reads them: which states of each, and where in the logits they stand.
//! Must not run a model.
//!
//! A classifier's head reads one state of each example. A language model's reads the states after which something is to
//! be said; where an example says nothing (a bare prompt), those of all its tokens, the last one too: the teacher has a
//! next token for each, though the data may not. Read states are numbered example by example, each from left to right.

use tch::Tensor;

use crate::{
    data::{Example, evaluation_batches},
    evaluate::padded,
    flops::BatchSize,
    local::Recipe,
    models::{Head, Model, Tokens},
};

/// Read states of all these public examples.
pub fn public_reads(public: &[Example], head: Head) -> usize {
    public.iter().map(|example| reads(example, head)).sum()
}

fn reads(example: &Example, head: Head) -> usize {
    match head {
        Head::Classifier(_) => 1,
        Head::Language => places(example).len(),
    }
}

/// The tokens of an example whose states a language model's head reads.
fn places(example: &Example) -> Vec<usize> {
    let said: Vec<usize> = example.next_tokens().map(|(place, _)| place).collect();
    if said.is_empty() { (0..example.tokens.len()).collect() } else { said }
}

/// The public examples of a run.
pub(super) struct PublicSet<'a> {
    examples: &'a [Example],
    pub(super) recipe: &'a Recipe,
    /// Number of each example's first read state.
    starts: Vec<usize>,
    /// Whether every read state has a right answer.
    labelled: bool,
}

/// Some of them, ready for a model.
pub(super) struct PublicBatch {
    /// Tokens, `[batch, seq]`, and which of them a language model reads.
    pub(super) tokens: Tokens,
    /// Numbers of the read states, in the order of the model's logits.
    pub(super) reads: Vec<usize>,
    /// `[reads]`, i64: what the logits should say, where the public examples know.
    pub(super) targets: Option<Tensor>,
}

impl<'a> PublicSet<'a> {
    pub(super) fn of(examples: &'a [Example], recipe: &'a Recipe) -> Self {
        let mut next = 0;
        let start = |example| {
            let start = next;
            next += reads(example, recipe.head);
            start
        };
        let starts = examples.iter().map(start).collect();
        let labelled = match recipe.head {
            Head::Classifier(_) => examples.iter().all(|example| example.label.is_some()),
            Head::Language => examples.iter().all(|example| example.next_tokens().next().is_some()),
        };
        Self { examples, recipe, starts, labelled }
    }

    /// Tokens of each example.
    pub(super) fn lengths(&self) -> Vec<usize> {
        self.examples.iter().map(Example::batch_length).collect()
    }

    /// Batches that hold each example once, the same for everyone.
    pub(super) fn once(&self) -> Vec<Vec<usize>> {
        evaluation_batches(&self.lengths(), self.recipe.batch_size)
    }

    /// How large the batch of these is.
    pub(super) fn size(&self, indices: &[usize]) -> BatchSize {
        let examples = || indices.iter().map(|&index| &self.examples[index]);
        BatchSize {
            rows: indices.len(),
            seq: examples().map(|example| example.tokens.len()).max().unwrap_or(0),
            reads: examples().map(|example| reads(example, self.recipe.head)).sum(),
        }
    }

    /// The examples at `indices`, padded on the right to the longest of them.
    pub(super) fn batch(&self, indices: &[usize], model: &Model) -> PublicBatch {
        let mut tokens = padded(self.examples, indices, self.recipe.pad_id, model);
        let numbers = |numbers: Vec<i64>| Tensor::from_slice(&numbers).to_device(model.device());
        let examples = || indices.iter().map(|&index| &self.examples[index]);
        let targets = match self.recipe.head {
            Head::Classifier(_) => examples().map(|example| example.label.map_or(0, i64::from)).collect(),
            Head::Language => {
                let seq = tokens.seq();
                let of_row = |(row, example)| places(example).into_iter().map(move |place| (row * seq + place) as i64);
                tokens.places = Some(numbers(examples().enumerate().flat_map(of_row).collect()));
                examples().flat_map(Example::next_tokens).map(|(_, next)| i64::from(next)).collect()
            }
        };
        let of_example = |&index: &usize| {
            let start = self.starts[index];
            start..start + reads(&self.examples[index], self.recipe.head)
        };
        let reads = indices.iter().flat_map(of_example).collect();
        PublicBatch { tokens, reads, targets: self.labelled.then(|| numbers(targets)) }
    }
}

impl PublicBatch {
    /// How large it is.
    pub(super) fn size(&self) -> BatchSize {
        BatchSize { rows: self.tokens.batch(), seq: self.tokens.seq(), reads: self.reads.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data::Answer, frameworks::tests::tiny};

    /// Says its tokens from `said` on.
    fn example(tokens: &[u32], said: usize) -> Example {
        let said = (0..tokens.len()).map(|place| place >= said).collect();
        Example { tokens: tokens.to_vec(), label: None, answer: Some(Answer { said, ..Answer::default() }) }
    }

    #[test]
    fn what_is_to_be_said_is_read_where_it_follows_and_a_bare_prompt_everywhere() {
        let (answered, bare) = (example(&[5, 6, 7, 8], 2), example(&[9, 3], 2));
        assert_eq!(places(&answered), [1, 2]);
        assert_eq!(places(&bare), [0, 1]);
        let public = [answered, bare];
        assert_eq!(public_reads(&public, Head::Language), 4);
        assert_eq!(public_reads(&public, Head::Classifier(3)), 2);
    }

    #[test]
    fn read_states_keep_their_numbers_in_any_batch() {
        let (model, recipe) = tiny();
        let recipe = Recipe { head: Head::Language, ..recipe };
        let public = [example(&[5, 6, 7, 8], 2), example(&[9, 3, 4], 1), example(&[1, 2], 1)];
        let batch = PublicSet::of(&public, &recipe).batch(&[1, 0], &model);
        assert_eq!(batch.reads, [2, 3, 0, 1]);
        assert_eq!(batch.size(), BatchSize { rows: 2, seq: 4, reads: 4 });
        // Rows of four tokens: the second and third place of `public[0]` in the second row are 5 and 6.
        assert_eq!(Vec::<i64>::try_from(batch.tokens.places.unwrap()).unwrap(), [0, 1, 5, 6]);
        assert_eq!(Vec::<i64>::try_from(batch.targets.unwrap()).unwrap(), [3, 4, 7, 8]);
    }

    #[test]
    fn one_bare_prompt_leaves_the_right_answers_out() {
        let (model, recipe) = tiny();
        let recipe = Recipe { head: Head::Language, ..recipe };
        let public = [example(&[5, 6, 7, 8], 2), example(&[9, 3], 2)];
        assert!(PublicSet::of(&public, &recipe).batch(&[0], &model).targets.is_none());
    }
}
