//! From a plan to a corpus: rows are gathered and checked, their texts become tokens.
//! Must not decide who gets what; that is done when the texts come here.

use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::{
    Corpus, DataError, DataPlan, ReadError, Record, Scope, TokeniseError,
    gather::{Holdings, gather, texts_of},
    labels::name_all,
    read::Row,
    tokenise::tokenise,
};
use crate::{
    events::{Event, Events},
    sources::Fetcher,
};

/// Loads what `scope` covers, brought by `fetcher` where it is not on this machine. With a `cache` folder, tokens are kept there from one run to the next.
///
/// The same plan gives a client the same records in every scope and for every framework. Equal texts of the common
/// source are all held out or all private, and no client keeps a text of the public set. Only between sources of their
/// own, which no single process may see together, can a text be in evaluation and with a client; then a note says so
/// where one process does see both.
pub fn load(
    plan: &DataPlan,
    scope: Scope,
    tokenizer: &Tokenizer,
    tokenizer_hash: &str,
    fetcher: &Fetcher,
    cache: Option<&Path>,
    events: &Events,
) -> Result<Corpus, DataError> {
    let holdings = gather(plan, scope, fetcher, events)?;
    holdings.check_labels(&plan.labels)?;
    holdings.note_leaks(events);
    let texts = holdings.texts();
    let tokens = tokenise(&texts, plan.max_sequence_length, tokenizer, tokenizer_hash, cache, events)?;
    let records = |rows: &Vec<Row>| rows.iter().map(|row| record(row, &texts, &tokens)).collect();
    Ok(Corpus {
        clients: holdings.clients.iter().map(records).collect::<Result<_, _>>()?,
        public: records(&holdings.public)?,
        evaluation: records(&holdings.evaluation)?,
        label_order: holdings.label_order(&plan.labels),
        data_hash: fedtune_crds::hex(&holdings.data_hash),
        partition_hash: fedtune_crds::hex(&holdings.partition_hash()),
    })
}

fn record(row: &Row, texts: &[&str], tokens: &[Vec<u32>]) -> Result<Record, TokeniseError> {
    let index = texts.binary_search(&row.text.as_str()).expect("`texts` has the text of every row");
    if tokens[index].is_empty() {
        return Err(TokeniseError::NoToken { place: row.place.to_string() });
    }
    Ok(Record { tokens: tokens[index].clone(), label: row.label.clone(), answer: None })
}

impl Holdings {
    fn sets(&self) -> impl Iterator<Item = &Vec<Row>> {
        [&self.evaluation, &self.public].into_iter().chain(&self.clients)
    }

    /// Every text once, sorted: whatever the seed, the same texts are tokenised together and found in the cache.
    fn texts(&self) -> Vec<&str> {
        let mut texts: Vec<&str> = self.sets().flatten().map(|row| row.text.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    fn check_labels(&self, labels: &[String]) -> Result<(), ReadError> {
        if labels.is_empty() {
            return Ok(());
        }
        for row in self.sets().flatten() {
            let Some(label) = row.label.as_ref().filter(|label| !labels.contains(label)) else { continue };
            return Err(ReadError::UnknownLabel {
                place: row.place.to_string(),
                label: label.clone(),
                labels: name_all(labels),
            });
        }
        Ok(())
    }

    fn label_order(&self, labels: &[String]) -> Vec<String> {
        if !labels.is_empty() {
            return labels.to_vec();
        }
        let mut order: Vec<&String> = self.clients.iter().flatten().filter_map(|row| row.label.as_ref()).collect();
        order.sort_unstable();
        order.dedup();
        order.into_iter().cloned().collect()
    }

    /// Clients' own sources may repeat texts of the evaluation set; nobody who holds one may see the other.
    fn note_leaks(&self, events: &Events) {
        let texts = texts_of(&self.evaluation);
        let known = self.clients.iter().flatten().filter(|row| texts.contains(row.text.as_str())).count();
        if known > 0 {
            let text = format!(
                "{known} examples of the clients' own data have a text of the evaluation set: accuracy will flatter"
            );
            events.tell(Event::Note { text });
        }
    }

    fn partition_hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for rows in self.sets() {
            hash.update((rows.len() as u64).to_le_bytes());
            for row in rows {
                for part in [row.text.as_str(), row.label.as_deref().unwrap_or_default()] {
                    hash.update((part.len() as u64).to_le_bytes());
                    hash.update(part);
                }
            }
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests;
