//! Answers, token by token: each is chosen after those before it, whose keys and values are kept.
//! Must not draw from libtorch's generator: chance comes from the run's own streams, and the same key says the same.

use std::ops::ControlFlow;

use tch::{Kind, Tensor};
use thiserror::Error;

use super::{Head, Model, Tokens, cache::KeyValues};
use crate::random::{Key, Site, Stream};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    /// The likeliest.
    Greedy,
    /// One by chance: from softmax(logits / temperature), of the likeliest tokens that together reach `top_p` (nucleus
    /// sampling, arXiv 1904.09751).
    Sample {
        /// Above zero; the larger, the more even.
        temperature: f64,
        /// Above zero; 1 leaves every token in.
        top_p: f64,
        /// Keys the run of chance; each row has a stream of its own.
        key: Key,
    },
}

/// What is asked of [`Model::generate`].
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// How the next token is chosen.
    pub choice: Choice,
    /// Tokens that end an answer; the one that did is the answer's last.
    pub ends: Vec<u32>,
    /// Tokens of an answer, at most; fewer where the model has no more positions.
    pub most_tokens: usize,
    /// What fills the rows on the left; masked, so that it decides nothing.
    pub pad_id: u32,
}

/// Why nothing is generated.
#[derive(Debug, Error, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GenerateError {
    #[error("this model ends in a classifier, which says no tokens; generate with a model of task CausalLM")]
    Classifier,
    #[error("there is no prompt to answer")]
    NoPrompt,
    #[error("prompt {prompt} is empty; at least one token is needed to answer")]
    EmptyPrompt { prompt: usize },
    #[error(
        "prompt {prompt} has {tokens} tokens, and the model takes {positions}; the answer needs one of them at least"
    )]
    LongPrompt { prompt: usize, tokens: usize, positions: usize },
    #[error("prompt {prompt} has token {token}, and the model's embedding has {vocab} rows")]
    UnknownToken { prompt: usize, token: u32, vocab: usize },
    #[error("{field} is {found}; it must be above 0")]
    NotPositive { field: &'static str, found: String },
}

impl Model {
    /// Answers each prompt, all of them as one batch padded on the left, without LoRA dropout.
    ///
    /// `said` is told each token as it is chosen, with the index of its prompt, and may break off; what was said until
    /// then is given back. Padding changes no answer but for the last bits of its logits.
    ///
    /// # Errors
    /// Where a prompt or a setting makes no sense for this model.
    pub fn generate(
        &self,
        prompts: &[&[u32]],
        asked: &Generation,
        mut said: impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<u32>>, GenerateError> {
        self.check_prompts(prompts, asked)?;
        let _no_graph = tch::no_grad_guard();
        let Tokens { ids, mask, .. } = Tokens::left_padded(prompts, asked.pad_id, self.device());
        let room = self.shape().max_positions.saturating_sub(mask.size()[1] as usize);
        let mut run = Run::new(self, ids, mask);
        let mut chooser = Chooser::new(asked.choice, prompts.len());
        let mut answers = vec![Vec::new(); prompts.len()];
        for _ in 0..asked.most_tokens.min(room) {
            let chosen = chooser.choose(&run.logits());
            for (row, (answer, &token)) in answers.iter_mut().zip(&chosen).enumerate() {
                if has_ended(answer, asked) {
                    continue;
                }
                answer.push(token);
                if said(row, token).is_break() {
                    return Ok(answers);
                }
            }
            if answers.iter().all(|answer| has_ended(answer, asked)) {
                break;
            }
            run.push(&chosen);
        }
        Ok(answers)
    }

    fn check_prompts(&self, prompts: &[&[u32]], asked: &Generation) -> Result<(), GenerateError> {
        let (positions, vocab) = (self.shape().max_positions, self.shape().vocab);
        if self.head() != Head::Language {
            return Err(GenerateError::Classifier);
        }
        if prompts.is_empty() {
            return Err(GenerateError::NoPrompt);
        }
        asked.choice.check()?;
        for (prompt, tokens) in prompts.iter().enumerate() {
            if tokens.is_empty() {
                return Err(GenerateError::EmptyPrompt { prompt });
            }
            if tokens.len() >= positions {
                return Err(GenerateError::LongPrompt { prompt, tokens: tokens.len(), positions });
            }
            if let Some(&token) = tokens.iter().chain([&asked.pad_id]).find(|token| **token as usize >= vocab) {
                return Err(GenerateError::UnknownToken { prompt, token, vocab });
            }
        }
        Ok(())
    }
}

fn has_ended(answer: &[u32], asked: &Generation) -> bool {
    answer.last().is_some_and(|token| asked.ends.contains(token))
}

/// A batch on its way through the model.
struct Run<'a> {
    model: &'a Model,
    /// Tokens that have not passed yet, `[batch, new]`.
    ids: Tensor,
    /// Of all tokens, `[batch, seen + new]`.
    mask: Tensor,
    past: Vec<KeyValues>,
}

impl<'a> Run<'a> {
    fn new(model: &'a Model, ids: Tensor, mask: Tensor) -> Self {
        let past = (0..model.shape().blocks).map(|_| KeyValues::default()).collect();
        Self { model, ids, mask, past }
    }

    /// Lets the new tokens pass; logits of the one that follows, `[batch, vocab]`.
    fn logits(&mut self) -> Tensor {
        let hidden = self.model.pass(&self.ids, &self.mask, &mut self.past);
        // Rows are padded on the left: the last state is a real token's.
        self.model.read_next(&hidden.select(1, -1))
    }

    /// Puts a token behind each row. A row that has ended is carried on, and nobody reads it.
    fn push(&mut self, tokens: &[u32]) {
        let ids: Vec<i64> = tokens.iter().map(|&id| i64::from(id)).collect();
        self.ids = Tensor::from_slice(&ids).unsqueeze(1).to_device(self.mask.device()); // [batch, 1]
        let real = Tensor::ones([ids.len() as i64, 1], (Kind::Bool, self.mask.device()));
        self.mask = Tensor::cat(&[&self.mask, &real], 1);
    }
}

impl Choice {
    fn check(self) -> Result<(), GenerateError> {
        match self {
            Self::Greedy => Ok(()),
            Self::Sample { temperature, top_p, key: _ } => {
                let wrong = [("temperature", temperature), ("top_p", top_p)].into_iter().find(|(_, n)| !(*n > 0.0));
                wrong.map_or(Ok(()), |(field, n)| Err(GenerateError::NotPositive { field, found: n.to_string() }))
            }
        }
    }
}

/// Chooses a token for each row; by chance from a stream of the row's own.
enum Chooser {
    Greedy,
    Sample { temperature: f64, top_p: f64, streams: Vec<Stream> },
}

impl Chooser {
    fn new(choice: Choice, rows: usize) -> Self {
        match choice {
            Choice::Greedy => Self::Greedy,
            Choice::Sample { temperature, top_p, key } => {
                let streams = (0..rows).map(|row| key.stream(Site::Generation(row as u32))).collect();
                Self::Sample { temperature, top_p, streams }
            }
        }
    }

    /// From logits `[batch, vocab]`.
    fn choose(&mut self, logits: &Tensor) -> Vec<u32> {
        match self {
            Self::Greedy => {
                let likeliest = Vec::<i64>::try_from(logits.argmax(-1, false)).unwrap_or_default();
                likeliest.into_iter().map(|token| token as u32).collect()
            }
            Self::Sample { temperature, top_p, streams } => {
                let weights = (logits / *temperature).softmax(-1, Kind::Double);
                let rows = streams.iter_mut().enumerate();
                rows.map(|(row, stream)| draw(&weights.get(row as i64), *top_p, stream)).collect()
            }
        }
    }
}

/// A token by chance, of the likeliest that together reach `top_p` of `weights` `[vocab]`.
fn draw(weights: &Tensor, top_p: f64, stream: &mut Stream) -> u32 {
    let (weights, tokens) = weights.sort(-1, true);
    let vector = |tensor: &Tensor| Vec::<f64>::try_from(tensor).unwrap_or_default();
    let (weights, tokens) = (vector(&weights), vector(&tokens.to_kind(Kind::Double)));
    let sums: Vec<f64> = weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let kept = sums.iter().position(|sum| *sum >= top_p).map_or(sums.len(), |last| last + 1);
    let reached = f64::from(stream.unit()) * sums[kept - 1];
    let place = sums[..kept].iter().position(|sum| *sum > reached).unwrap_or(kept - 1);
    tokens[place] as u32
}

#[cfg(test)]
mod tests;
