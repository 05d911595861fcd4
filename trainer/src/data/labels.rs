//! Labels as numbers: the order is frozen once, then every record's label is looked up in it.
//! Must not read data: it sees only what clients announce and what `load` returned.

use super::{DataError, Record};

/// The labels of a run, in the order of the classifier's logits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Vec<String>);

impl Labels {
    /// Freezes this order. A label that stands twice counts where it stands first.
    pub fn new(labels: Vec<String>) -> Self {
        let mut order = Vec::with_capacity(labels.len());
        for label in labels {
            if !order.contains(&label) {
                order.push(label);
            }
        }
        Self(order)
    }

    /// The sorted union of what clients announce.
    pub fn union<'a>(announced: impl IntoIterator<Item = &'a [String]>) -> Self {
        let mut all: Vec<String> = announced.into_iter().flatten().cloned().collect();
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    /// Number of this label, the index of its logit.
    pub fn index(&self, label: &str) -> Option<u32> {
        self.0.iter().position(|known| known == label).map(|index| index as u32)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their texts, in order.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// A record whose label is a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Token ids, special tokens among them.
    pub tokens: Vec<u32>,
    /// Index of its label in [`Labels`].
    pub label: Option<u32>,
    /// What of it a language model is to say; none for a classifier.
    pub answer: Option<Answer>,
}

/// What a language model is to say in a record, and what it may choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// For each token of the record, whether the model is to say it.
    pub said: Vec<bool>,
    /// Answers to choose from, as tokens in the place of those that are said; empty where there is nothing to choose.
    pub choices: Vec<Vec<u32>>,
    /// Which of `choices` is the right one.
    pub right: usize,
    /// Tokens of the longest of the answers that there are to choose from, which `choices` holds of held-out records
    /// alone; zero where there is nothing to choose.
    pub longest: usize,
}

impl Example {
    /// Each token that the model is to say, with the place of the token before it, where it is said.
    pub fn next_tokens(&self) -> impl Iterator<Item = (usize, u32)> {
        let said = self.answer.iter().flat_map(|answer| answer.said.iter().enumerate().skip(1));
        said.filter(|(_, said)| **said).filter_map(|(place, _)| Some((place - 1, *self.tokens.get(place)?)))
    }

    /// How long it would be with the longest of its answers: what batches are sorted by, so that a batch does not tell by
    /// its length which answer its examples have.
    pub fn batch_length(&self) -> usize {
        let longest = self.answer.as_ref().filter(|answer| answer.longest > 0);
        let prompt = longest.and_then(|answer| Some(answer.said.iter().position(|said| *said)? + answer.longest));
        prompt.unwrap_or(self.tokens.len())
    }

    /// States that a head reads to judge it: one for a classifier, one a token that is to be said for a language model.
    pub fn reads(&self) -> usize {
        if self.answer.is_some() { self.next_tokens().count() } else { 1 }
    }
}

/// Why a label has no number.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// Neither the plan nor any client has it.
    #[error(
        "the label `{label}` is in evaluation or public data but no client trains on it (they have {known}): \
         give a client examples of it, or take it out"
    )]
    NeverSeen {
        /// The label.
        label: String,
        /// The labels there are.
        known: String,
    },
}

/// The records with their labels as numbers. A label that is not in `labels` is refused.
pub fn encode(records: &[Record], labels: &Labels) -> Result<Vec<Example>, DataError> {
    records.iter().map(|record| encode_one(record, labels)).collect()
}

fn encode_one(record: &Record, labels: &Labels) -> Result<Example, DataError> {
    let number = |label: &String| {
        labels
            .index(label)
            .ok_or_else(|| LabelError::NeverSeen { label: label.clone(), known: name_all(labels.as_slice()) })
    };
    let label = record.label.as_ref().map(number).transpose()?;
    Ok(Example { tokens: record.tokens.clone(), label, answer: record.answer.clone() })
}

/// The names as a person lists them: `` `ham`, `spam` ``.
pub(super) fn name_all(names: &[impl AsRef<str>]) -> String {
    const MOST: usize = 20;
    let mut list: Vec<String> = names.iter().take(MOST).map(|name| format!("`{}`", name.as_ref())).collect();
    if names.len() > MOST {
        list.push(format!("and {} more", names.len() - MOST));
    }
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(label: &str) -> Record {
        Record { tokens: vec![1, 2], label: Some(label.to_owned()), answer: None }
    }

    #[test]
    fn labels_of_all_clients_are_sorted_and_each_stands_once() {
        let (one, other) = (["spam".to_owned(), "ham".to_owned()], ["ham".to_owned(), "news".to_owned()]);
        let labels = Labels::union([&one[..], &other[..]]);
        assert_eq!(labels.as_slice(), ["ham", "news", "spam"]);
        assert_eq!(labels.index("spam"), Some(2));
    }

    #[test]
    fn a_given_order_is_kept() {
        let labels = Labels::new(["spam", "ham", "spam"].map(String::from).to_vec());
        assert_eq!(labels.as_slice(), ["spam", "ham"]);
        let examples = encode(&[record("ham"), record("spam")], &labels).unwrap();
        assert_eq!(examples.iter().map(|example| example.label).collect::<Vec<_>>(), [Some(1), Some(0)]);
    }

    #[test]
    fn a_record_without_a_label_stays_without() {
        let record = Record { tokens: vec![3], label: None, answer: None };
        let example = Example { tokens: vec![3], label: None, answer: None };
        assert_eq!(encode(&[record], &Labels::new(vec![])).unwrap(), [example]);
    }

    #[test]
    fn a_label_in_evaluation_never_seen_in_training_is_refused_by_name() {
        let labels = Labels::new(vec!["ham".into(), "spam".into()]);
        let error = encode(&[record("ham"), record("phishing")], &labels).unwrap_err().to_string();
        assert!(error.contains("`phishing`") && error.contains("they have `ham`, `spam`"), "{error}");
    }
}
