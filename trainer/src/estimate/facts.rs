//! What is known before a run: the model's shape, and the tokenised data, or examples as long as they may be.
//! Must not read weights: a shape is all that the formulas ask for.

use std::path::Path;

use thiserror::Error;

use crate::{
    data::{self, Answer, Corpus, DataError, Example, HeldOut, Labels, LocalWork, Scope, encode},
    events::Events,
    models::{LoadError, LoraSettings, ModelError, ModelShape, Weights, load_tokenizer, resolve_targets},
    plan::{Plan, Task},
    run::materials::targets,
    sources::{Fetcher, SourceError, Wanted},
};

/// Labels where neither spec nor data says how many there are.
const LABELS: usize = 2;

/// What the formulas read.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The base.
    pub shape: ModelShape,
    /// The adapter, its targets resolved.
    pub lora: LoraSettings,
    /// Bytes of the weights that the file has in another type than the run: they are read whole, and made anew.
    pub converted_bytes: u64,
    /// Labels of a classifier.
    pub labels: usize,
    /// Each client's examples, by ordinal.
    pub clients: Vec<Vec<Example>>,
    /// The public examples.
    pub public: Vec<Example>,
    /// Why they are a bound and not the data.
    pub bound: Option<String>,
}

/// Why nothing can be said.
#[derive(Debug, Error)]
pub enum FactsError {
    /// The base model or its tokenizer.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model cannot be brought.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The adapter.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data is there and wrong.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Neither the data nor a number that stands for it.
    #[error("{reason}, and without the data nobody knows {what}; {instead}")]
    NoBound {
        /// Why the data is not there.
        reason: String,
        /// What is not known.
        what: &'static str,
        /// What would help.
        instead: &'static str,
    },
}

impl Facts {
    /// Reads what is there. With a `cache` folder, tokens are kept there.
    ///
    /// # Errors
    /// Where the model is missing, the data is wrong, or it is missing and nothing bounds it.
    pub fn read(plan: &Plan, fetcher: &Fetcher, cache: Option<&Path>, events: &Events) -> Result<Self, FactsError> {
        let model = fetcher.fetch(&plan.model, Wanted::Model)?;
        let weights = Weights::open(&model)?;
        let shape = weights.shape().clone();
        let converted = weights.tensors().into_iter().filter(|tensor| tensor.kind != Some(plan.precision.kind()));
        let converted_bytes = converted.map(|tensor| tensor.bytes).sum();
        let lora = LoraSettings { target_modules: targets(plan, shape.architecture), ..plan.lora.clone() };
        resolve_targets(&shape, &lora)?;
        let tokenizer = load_tokenizer(&model)?;
        let loaded = data::load(&plan.data, Scope::Everything, &tokenizer, fetcher, cache, events);
        match loaded {
            Ok(corpus) => Self::of(shape, lora, &corpus),
            Err(DataError::Read(error)) if error.is_absence() => Self::bound(plan, shape, lora, error.to_string()),
            Err(error) => Err(error.into()),
        }
        .map(|facts| Self { converted_bytes, ..facts })
    }

    /// What a corpus says, of a base whose weights are mapped as they are.
    ///
    /// # Errors
    /// Where it has a label that no client trains on.
    pub fn of(shape: ModelShape, lora: LoraSettings, corpus: &Corpus) -> Result<Self, FactsError> {
        let labels = Labels::new(corpus.label_order.clone());
        let clients = corpus.clients.iter().map(|records| encode(records, &labels)).collect::<Result<_, _>>()?;
        let public = encode(&corpus.public, &labels)?;
        Ok(Self { shape, lora, converted_bytes: 0, labels: labels.len(), clients, public, bound: None })
    }

    /// Full batches of the longest texts. Steps are as many whatever the data; epochs are not.
    fn bound(plan: &Plan, shape: ModelShape, lora: LoraSettings, reason: String) -> Result<Self, FactsError> {
        match plan.work {
            LocalWork::Steps(_) => {}
            LocalWork::Epochs(_) => {
                let (what, instead) = ("how many batches an epoch has", "set training.localSteps");
                return Err(FactsError::NoBound { reason, what, instead });
            }
        }
        let public = match &plan.data.public {
            None => 0,
            Some(HeldOut::OfSource { examples } | HeldOut::Own { examples: Some(examples), .. }) => *examples,
            Some(HeldOut::Own { examples: None, .. }) => {
                let (what, instead) = ("how many public examples there are", "set data.public.examples");
                return Err(FactsError::NoBound { reason, what, instead });
            }
        };
        let longest = |count| vec![longest(plan); count];
        let labels = if plan.data.labels.is_empty() { LABELS } else { plan.data.labels.len() };
        let clients = (0..plan.clients.len()).map(|_| longest(plan.batch_size)).collect();
        let public = longest(public);
        Ok(Self { shape, lora, converted_bytes: 0, labels, clients, public, bound: Some(reason) })
    }
}

/// An example as long as any may be, all of which a language model is to say.
fn longest(plan: &Plan) -> Example {
    let length = plan.data.max_sequence_length;
    let answer = match plan.task {
        Task::Classification => None,
        Task::Language => Some(Answer { said: vec![true; length], ..Answer::default() }),
    };
    Example { tokens: vec![0; length], label: Some(0), answer }
}
