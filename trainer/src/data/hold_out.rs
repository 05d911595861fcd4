//! Which rows of a source no client may have: the evaluation set first, then the public set.
//! Must not look at clients or frameworks: the same rows are held out whoever trains on the rest, and however.

use std::collections::HashMap;

use super::read::Row;
use crate::random::Stream;

/// Rows of one source by what they are for, as indices in the source's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) evaluation: Vec<usize>,
    pub(super) public: Vec<usize>,
    pub(super) private: Vec<usize>,
}

/// Why examples cannot be held out.
#[derive(Debug, thiserror::Error)]
pub enum HoldOutError {
    /// There are not enough examples.
    #[error("the {set} set wants {wanted} examples, but only {there} of {of} can be taken; ask for fewer")]
    TooFew {
        /// `evaluation` or `public`.
        set: &'static str,
        /// Examples asked for.
        wanted: usize,
        /// Examples that can be taken without taking one of two equal texts.
        there: usize,
        /// Examples in the source.
        of: usize,
    },
    /// A set of no example was asked for.
    #[error("the {set} set is empty; ask for at least one example")]
    Empty {
        /// `evaluation` or `public`.
        set: &'static str,
    },
    /// Clients' parts are read by the clients alone.
    #[error("a pre-split source has nothing to take the {set} set from; give `data.{set}` a source of its own")]
    PreSplit {
        /// `evaluation` or `public`.
        set: &'static str,
    },
    /// A text is in both sets.
    #[error(
        "{count} texts of the public set are in the evaluation set too ({place} is the first); take them out of one"
    )]
    Overlap {
        /// How many.
        count: usize,
        /// Where the first of them stands in the public source.
        place: String,
    },
}

/// Takes `evaluation` and then `public` rows at random; rows of equal texts stay together.
pub(super) fn hold_out(
    rows: &[Row],
    evaluation: Option<usize>,
    public: Option<usize>,
    mut stream: Stream,
) -> Result<Split, HoldOutError> {
    let mut twins = by_text(rows);
    stream.shuffle(&mut twins);
    let evaluation = take(&mut twins, "evaluation", evaluation, rows.len())?;
    let public = take(&mut twins, "public", public, rows.len())?;
    let mut private = twins.concat();
    private.sort_unstable();
    Ok(Split { evaluation, public, private })
}

/// `examples` rows of a source that is held out as a whole, at random; all where none.
pub(super) fn sample(
    rows: &[Row],
    set: &'static str,
    examples: Option<usize>,
    mut stream: Stream,
) -> Result<Vec<usize>, HoldOutError> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let Some(wanted) = examples else { return Ok(order) };
    check(set, wanted, rows.len(), rows.len())?;
    stream.shuffle(&mut order);
    order.truncate(wanted);
    order.sort_unstable();
    Ok(order)
}

/// Rows of equal texts, in the order in which each text comes first.
fn by_text(rows: &[Row]) -> Vec<Vec<usize>> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(rows.len());
    let mut twins: Vec<Vec<usize>> = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let place = *places.entry(&row.text).or_insert(twins.len());
        if place == twins.len() {
            twins.push(Vec::new());
        }
        twins[place].push(index);
    }
    twins
}

/// Moves the first texts that fit into a set of exactly `wanted` rows out of `twins`.
fn take(
    twins: &mut Vec<Vec<usize>>,
    set: &'static str,
    wanted: Option<usize>,
    of: usize,
) -> Result<Vec<usize>, HoldOutError> {
    let Some(wanted) = wanted else { return Ok(Vec::new()) };
    let mut taken: Vec<usize> = Vec::with_capacity(wanted.min(of));
    twins.retain(|rows| {
        let fits = taken.len() + rows.len() <= wanted;
        if fits {
            taken.extend(rows);
        }
        !fits
    });
    check(set, wanted, taken.len(), of)?;
    taken.sort_unstable();
    Ok(taken)
}

fn check(set: &'static str, wanted: usize, there: usize, of: usize) -> Result<(), HoldOutError> {
    match wanted {
        0 => Err(HoldOutError::Empty { set }),
        _ if there < wanted => Err(HoldOutError::TooFew { set, wanted, there, of }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, path::Path, sync::Arc};

    use super::*;
    use crate::{
        data::read::{Place, Said},
        random::{Key, Site},
    };

    fn rows(texts: impl IntoIterator<Item = String>) -> Vec<Row> {
        let place = Place { file: Arc::from(Path::new("mail.csv")), line: None };
        let row = |text| Row { text, label: None, said: Said::Label, value: String::new(), place: place.clone() };
        texts.into_iter().map(row).collect()
    }

    fn stream(seed: u64) -> Stream {
        Key { seed, ..Key::default() }.stream(Site::HoldOut)
    }

    #[test]
    fn the_sets_are_disjoint_and_hold_every_row_also_where_texts_are_equal() {
        // 300 rows of 100 texts.
        let rows = rows((0..300).map(|row| format!("text {}", row % 100)));
        let split = hold_out(&rows, Some(60), Some(30), stream(1)).unwrap();
        assert_eq!([split.evaluation.len(), split.public.len(), split.private.len()], [60, 30, 210]);
        let texts = |of: &[usize]| of.iter().map(|&row| rows[row].text.clone()).collect::<HashSet<_>>();
        let sets = [texts(&split.evaluation), texts(&split.public), texts(&split.private)];
        assert_eq!(sets.iter().map(HashSet::len).collect::<Vec<_>>(), [20, 10, 70]);
        assert_eq!(sets.iter().flatten().collect::<HashSet<_>>().len(), 100);
    }

    #[test]
    fn a_seed_repeats_and_another_holds_out_others() {
        let rows = rows((0..100).map(|row| row.to_string()));
        let of = |seed| hold_out(&rows, Some(20), Some(10), stream(seed)).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1).evaluation, of(2).evaluation);
    }

    #[test]
    fn the_evaluation_set_is_the_same_with_and_without_a_public_set() {
        let rows = rows((0..100).map(|row| row.to_string()));
        let of = |public| hold_out(&rows, Some(20), public, stream(1)).unwrap().evaluation;
        assert_eq!(of(None), of(Some(10)));
    }

    #[test]
    fn more_than_there_is_and_nothing_at_all_are_refused() {
        let rows = rows(["a", "a", "b", "b"].map(String::from));
        let error = |evaluation, public| hold_out(&rows, evaluation, public, stream(1)).unwrap_err().to_string();
        assert!(error(Some(5), None).starts_with("the evaluation set wants 5 examples, but only 4 of 4"));
        assert!(error(Some(2), Some(3)).starts_with("the public set wants 3 examples, but only 2 of 4"));
        assert!(error(Some(0), None).starts_with("the evaluation set is empty"));
        assert!(sample(&rows, "public", Some(5), stream(1)).unwrap_err().to_string().contains("only 4 of 4"));
    }
}
