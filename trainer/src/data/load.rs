//! From a plan to a corpus: rows are gathered and checked, their texts become tokens.
//! Must not decide who gets what; that is done when the texts come here.

use std::{cell::OnceCell, collections::HashMap, path::Path};

use sha2::{Digest, Sha256};

use super::{
    Corpus, DataError, DataPlan, LanguagePlan, ReadError, Record, Scope, TokeniseError,
    gather::{Holdings, gather, texts_of},
    labels::name_all,
    language::{Assembler, Composer, Pieces, chat_of, start_of},
    read::Row,
    tokenise,
};
use crate::{
    events::{Event, Events},
    models::LoadedTokenizer,
    sources::Fetcher,
};

/// Loads what `scope` covers, brought by `fetcher` where it is not on this machine. With a `cache`
/// folder, tokens are kept there from one run to the next.
///
/// The same plan gives a client the same records in every scope and for every framework. Equal texts of the common
/// source are all held out or all private, and no client keeps a text of the public set. Only between sources of their
/// own, which no single process may see together, can a text be in evaluation and with a client; then a note says so
/// where one process does see both.
pub fn load(
    plan: &DataPlan,
    scope: Scope,
    tokenizer: &LoadedTokenizer,
    fetcher: &Fetcher,
    cache: Option<&Path>,
    events: &Events,
) -> Result<Corpus, DataError> {
    let holdings = gather(plan, scope, fetcher, events)?;
    holdings.check_labels(&plan.labels)?;
    holdings.note_leaks(events);
    let texts = Texts { tokenizer, cache, events };
    let [evaluation, public, clients @ ..] = &texts.records(plan, &holdings)?[..] else {
        unreachable!("there are as many sets of records as sets of rows");
    };
    Ok(Corpus {
        clients: clients.to_vec(),
        public: public.clone(),
        evaluation: evaluation.clone(),
        label_order: holdings.label_order(plan),
        data_hash: fedtune_crds::hex(&holdings.data_hash),
        partition_hash: fedtune_crds::hex(&holdings.partition_hash()),
    })
}

/// Turns texts into tokens.
struct Texts<'a> {
    tokenizer: &'a LoadedTokenizer,
    cache: Option<&'a Path>,
    events: &'a Events,
}

impl Texts<'_> {
    /// The records of each set, in the order of [`Holdings::sets`].
    fn records(&self, plan: &DataPlan, holdings: &Holdings) -> Result<Vec<Vec<Record>>, DataError> {
        match &plan.language {
            None => self.labelled(plan.max_sequence_length, holdings),
            Some(language) => self.spoken(plan, language, holdings),
        }
    }

    /// Every text once, sorted: whatever the seed, the same texts are tokenised together and found in the cache.
    fn tokens<'t>(
        &self,
        mut texts: Vec<&'t str>,
        what: tokenise::Texts,
    ) -> Result<HashMap<&'t str, Vec<u32>>, TokeniseError> {
        texts.sort_unstable();
        texts.dedup();
        let LoadedTokenizer { tokenizer, hash, .. } = self.tokenizer;
        let tokens = tokenise::tokenise(&texts, what, tokenizer, hash, self.cache, self.events)?;
        Ok(texts.into_iter().zip(tokens).collect())
    }

    /// A classifier's.
    fn labelled(&self, max_length: usize, holdings: &Holdings) -> Result<Vec<Vec<Record>>, DataError> {
        let texts = holdings.sets().flatten().map(|row| row.text.as_str()).collect();
        let tokens = self.tokens(texts, tokenise::Texts::Whole(max_length))?;
        let record = |row: &Row| {
            let tokens = tokens.get(row.text.as_str()).cloned().unwrap_or_default();
            not_empty(row, Record { tokens, label: row.label.clone(), answer: None })
        };
        holdings.sets().map(|rows| rows.iter().map(record).collect()).collect()
    }

    /// A language model's.
    fn spoken(
        &self,
        plan: &DataPlan,
        language: &LanguagePlan,
        holdings: &Holdings,
    ) -> Result<Vec<Vec<Record>>, DataError> {
        let composer = Composer {
            chat: chat_of(self.tokenizer)?,
            plan: language,
            labels: &plan.labels,
            label_answers: OnceCell::new(),
        };
        let sets: Vec<&Vec<Row>> = holdings.sets().collect();
        let composed = sets.iter().map(|rows| rows.iter().map(|row| composer.compose(row)).collect());
        let composed: Vec<Vec<Pieces>> = composed.collect::<Result<_, _>>()?;
        let texts = composed.iter().flatten().flat_map(Pieces::texts).collect();
        let tokens = self.tokens(texts, tokenise::Texts::Pieces)?;
        let start = start_of(&composer.chat, self.tokenizer)?;
        let mut assembler = Assembler::new(language, &start, plan.max_sequence_length, &tokens);
        // The held-out set comes first; nobody else chooses.
        let mut record = |set, (row, pieces)| not_empty(row, assembler.record(row, pieces, set == 0)?);
        let sets = sets.iter().zip(&composed).enumerate();
        let records = sets.map(|(set, (rows, pieces))| rows.iter().zip(pieces).map(|row| record(set, row)).collect());
        let records = records.collect::<Result<_, _>>()?;
        if assembler.cut > 0 {
            let (cut, length) = (assembler.cut, plan.max_sequence_length);
            let text = format!("{cut} responses were cut to fit into maxSequenceLength {length}");
            self.events.tell(Event::Note { text });
        }
        Ok(records)
    }
}

fn not_empty(row: &Row, record: Record) -> Result<Record, DataError> {
    if record.tokens.is_empty() {
        return Err(TokeniseError::NoToken { place: row.place.to_string() }.into());
    }
    Ok(record)
}

impl Holdings {
    fn sets(&self) -> impl Iterator<Item = &Vec<Row>> {
        [&self.evaluation, &self.public].into_iter().chain(&self.clients)
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

    /// A language model's responses are labels only where the plan says so.
    fn label_order(&self, plan: &DataPlan) -> Vec<String> {
        if !plan.labels.is_empty() || plan.language.is_some() {
            return plan.labels.clone();
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
