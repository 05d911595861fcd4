//! The tuned model answers: a text in, a label with probabilities out, or a text of its own.
//! Must not train, and must not know files other than the adapter's and its base's.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::{Device, Kind};
use thiserror::Error;
use tokenizers::Tokenizer;

use crate::{
    adapter_files::{AdapterError, AdapterFiles, AdapterTask, starting_model},
    data::{DataError, Texts, TokeniseError, tokenise},
    events::Events,
    kernels,
    models::{Base, GenerateError, LoadError, LoadOptions, Model, Precision, Tokens, load_tokenizer},
};

mod speaker;

pub use speaker::Speaker;

/// Why there is no answer.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the sentences document the fields")]
pub enum PredictError {
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Base(#[from] LoadError),
    #[error(transparent)]
    Tokenise(#[from] TokeniseError),
    #[error("the adapter in {} names no base; say which with --base", .0.display())]
    NoBase(PathBuf),
    #[error(transparent)]
    Prompt(#[from] DataError),
    #[error(transparent)]
    Generate(#[from] GenerateError),
    #[error("the tokenizer cannot write the answer: {0}")]
    Decode(String),
    #[error("the model gives no numbers for this text")]
    NotFinite,
}

/// How a model is brought up to answer.
#[derive(Debug, Clone, Copy)]
pub struct PredictOptions<'a> {
    /// The base model; by default the one that the adapter names.
    pub base: Option<&'a Path>,
    /// Element type of the base's weights.
    pub precision: Precision,
    /// Where to compute.
    pub device: Device,
}

/// A model that answers, by what its adapter was trained for.
pub enum Predictor {
    /// With labels.
    Labels(Box<Classifier>),
    /// With text.
    Text(Box<Speaker>),
}

impl Predictor {
    /// Reads base and adapter.
    ///
    /// # Errors
    /// Where they cannot be read, or do not belong together.
    pub fn load(folder: &Path, options: PredictOptions<'_>) -> Result<Self, PredictError> {
        kernels::choose();
        let adapter = AdapterFiles::read(folder)?;
        let named = options.base.or(adapter.base.as_deref());
        let path = named.ok_or_else(|| PredictError::NoBase(folder.to_owned()))?;
        let PredictOptions { precision, device, .. } = options;
        let language_head = adapter.task == AdapterTask::Language;
        let base = Base::load(path, LoadOptions { precision, device, language_head })?;
        let tokenizer = load_tokenizer(path)?;
        tokenizer.check(base.shape())?;
        adapter.check_base(base.shape())?;
        let head = adapter.head(base.shape())?;
        let labels = adapter.label_names(head.classes(base.shape()));
        let model = starting_model(base, &adapter.lora, head, 0, &labels, Some(&adapter))?;
        Ok(match adapter.task {
            AdapterTask::Classification => Self::Labels(Box::new(Classifier {
                model,
                labels,
                pad_id: adapter.pad_id.unwrap_or(tokenizer.pad_id),
                tokenizer: tokenizer.tokenizer,
                tokenizer_hash: tokenizer.hash,
            })),
            AdapterTask::Language => Self::Text(Box::new(Speaker::new(model, tokenizer, adapter.system_prompt))),
        })
    }
}

/// A model that answers with labels.
pub struct Classifier {
    model: Model,
    labels: Vec<String>,
    tokenizer: Tokenizer,
    tokenizer_hash: String,
    pad_id: u32,
}

/// What a classifier makes of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The likeliest label.
    pub label: String,
    /// Every label with its probability, the likeliest first.
    pub probabilities: Vec<(String, f64)>,
}

impl Classifier {
    /// The label of a text, which is cut where it is longer than the model takes.
    ///
    /// # Errors
    /// Where the text cannot become tokens.
    pub fn answer(&self, text: &str) -> Result<Answer, PredictError> {
        let longest = self.model.shape().max_positions;
        let rows =
            tokenise(&[text], Texts::Whole(longest), &self.tokenizer, &self.tokenizer_hash, None, &Events::silent())?;
        let row: &[u32] = rows.first().map_or(&[], Vec::as_slice);
        if row.is_empty() {
            return Err(TokeniseError::NoToken { place: "this input".to_owned() }.into());
        }
        let tokens = Tokens::right_padded(&[row], self.pad_id, self.model.device());
        let logits = tch::no_grad(|| self.model.forward(&tokens, None)); // [1, labels]
        let shares = logits.softmax(-1, Kind::Double).squeeze_dim(0);
        let shares: Vec<f64> = Vec::try_from(shares).unwrap_or_default();
        if shares.len() != self.labels.len() || !shares.iter().all(|share| share.is_finite()) {
            return Err(PredictError::NotFinite);
        }
        let mut probabilities: Vec<(String, f64)> = self.labels.iter().cloned().zip(shares).collect();
        probabilities.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(Answer { label: probabilities[0].0.clone(), probabilities })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        export::{Export, write_adapter},
        models::{
            Head,
            golden::{load, query_value, real_model},
        },
    };

    fn adapter(above: &Path) -> PathBuf {
        let path = real_model("minilm");
        let (folder, base) = (above.join("adapter"), load(&path));
        let lora = query_value(&base);
        let model = Model::new(base, &lora, Head::Classifier(3), 5).unwrap();
        let labels = ["eggs", "ham", "spam"].map(str::to_owned);
        write_adapter(
            &folder,
            &model,
            &Export {
                lora: &lora,
                base: path.display().to_string(),
                revision: None,
                labels: &labels,
                pad_id: 0,
                system_prompt: None,
            },
        )
        .unwrap();
        folder
    }

    const OPTIONS: PredictOptions<'static> =
        PredictOptions { base: None, precision: Precision::F32, device: Device::Cpu };

    fn classifier(folder: &Path) -> Classifier {
        match Predictor::load(folder, OPTIONS).unwrap() {
            Predictor::Labels(classifier) => *classifier,
            Predictor::Text(_) => panic!("this adapter answers with labels"),
        }
    }

    #[test]
    fn a_text_gets_the_likeliest_label_with_the_probability_of_each() {
        let above = tempfile::tempdir().unwrap();
        let classifier = classifier(&adapter(above.path()));
        let answer = classifier.answer("two eggs, please").unwrap();
        assert_eq!(answer.label, answer.probabilities[0].0);
        assert!(answer.probabilities.is_sorted_by(|a, b| a.1 >= b.1));
        let sum: f64 = answer.probabilities.iter().map(|(_, share)| share).sum();
        assert!(answer.probabilities.len() == 3 && (sum - 1.0).abs() < 1e-9, "{answer:?}");
        // One text is one row: what else is asked changes nothing.
        classifier.answer("something else, and much longer than that").unwrap();
        assert_eq!(classifier.answer("two eggs, please").unwrap(), answer);
    }

    #[test]
    fn a_text_longer_than_the_model_takes_is_cut() {
        let above = tempfile::tempdir().unwrap();
        let classifier = classifier(&adapter(above.path()));
        assert!(classifier.answer(&"word ".repeat(5000)).is_ok());
    }

    #[test]
    fn an_adapter_of_a_language_model_needs_a_base_with_a_vocabulary() {
        let above = tempfile::tempdir().unwrap();
        let folder = adapter(above.path());
        let config = folder.join("adapter_config.json");
        let text = std::fs::read_to_string(&config).unwrap().replace("SEQ_CLS", "CAUSAL_LM");
        std::fs::write(&config, text).unwrap();
        assert!(Predictor::load(&folder, OPTIONS).is_err());
    }
}
