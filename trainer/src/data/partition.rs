//! Which client has which row.
//! Must not look at texts: numbers of rows and one value of each decide.

use std::collections::BTreeMap;

use rand_distr::{Distribution, Gamma};

use super::{Partition, labels::name_all};
use crate::random::Stream;

/// How rows are dealt; what is left of [`Partition`] when nothing is split already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Deal<'a> {
    Iid,
    Dirichlet { alpha: f64, over: &'a str },
    ByColumn(&'a str),
}

/// Why the clients cannot be given their examples.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// A client would train on nothing.
    #[error("client {client} has no example after the partition; {help}")]
    NoExample {
        /// The client's id.
        client: String,
        /// What would change that.
        help: String,
    },
    /// Values go whole to a client, and there are fewer of them than clients.
    #[error(
        "each value of `{column}` goes whole to one client, and {clients} clients are more than its values {values}"
    )]
    FewValues {
        /// The column.
        column: String,
        /// Clients to deal to.
        clients: usize,
        /// The values there are.
        values: String,
    },
    /// No Dirichlet distribution has this concentration.
    #[error("dirichlet.alpha is {alpha}; it must be above zero")]
    Alpha {
        /// What was given.
        alpha: f64,
    },
    /// A scope names a client that no group has.
    #[error("there is no client {ordinal}: the groups have {clients} clients, counted from 0")]
    NoClient {
        /// Its ordinal.
        ordinal: usize,
        /// Clients there are.
        clients: usize,
    },
}

impl<'a> Deal<'a> {
    /// None where the data is split already.
    pub(super) fn of(partition: &'a Partition) -> Option<Self> {
        match partition {
            Partition::Iid => Some(Self::Iid),
            Partition::Dirichlet { alpha, over } => Some(Self::Dirichlet { alpha: *alpha, over }),
            Partition::ByColumn(column) => Some(Self::ByColumn(column)),
            Partition::PreSplit => None,
        }
    }

    /// The column whose values it looks at.
    pub(super) fn column(self) -> Option<&'a str> {
        match self {
            Self::Iid => None,
            Self::Dirichlet { over: column, .. } | Self::ByColumn(column) => Some(column),
        }
    }

    /// Rows of each client, in the source's order. `values` has one entry a row.
    pub(super) fn rows(
        self,
        values: &[&str],
        clients: usize,
        stream: &mut Stream,
    ) -> Result<Vec<Vec<usize>>, PartitionError> {
        let mut hands = match self {
            Self::Iid => iid(values.len(), clients, stream),
            Self::Dirichlet { alpha, .. } => dirichlet(&by_value(values), alpha, clients, stream)?,
            Self::ByColumn(column) => by_column(&by_value(values), column, clients)?,
        };
        for rows in &mut hands {
            rows.sort_unstable();
        }
        Ok(hands)
    }
}

/// What would give a client examples that has none.
pub(super) fn help(partition: &Partition) -> String {
    match partition {
        Partition::Iid => "fewer clients, or smaller held-out sets, would leave some for each".to_owned(),
        Partition::Dirichlet { alpha, .. } => {
            format!("an alpha larger than {alpha}, fewer clients, or another seed would help")
        }
        Partition::ByColumn(column) => {
            format!("fewer clients, or a column with more values than `{column}`, would help")
        }
        Partition::PreSplit => "its part of the source holds none that is not in the public set".to_owned(),
    }
}

/// Rows of each value, values in the order of their names.
fn by_value<'a>(values: &[&'a str]) -> BTreeMap<&'a str, Vec<usize>> {
    let mut rows: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (row, value) in values.iter().enumerate() {
        rows.entry(value).or_default().push(row);
    }
    rows
}

/// Deals shuffled rows in turn: sizes differ by one at most.
fn iid(rows: usize, clients: usize, stream: &mut Stream) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows).collect();
    stream.shuffle(&mut order);
    (0..clients).map(|client| order.iter().skip(client).step_by(clients).copied().collect()).collect()
}

/// Cuts the shuffled rows of each value at the cumulated proportions, rounded: every row is dealt.
fn dirichlet(
    values: &BTreeMap<&str, Vec<usize>>,
    alpha: f64,
    clients: usize,
    stream: &mut Stream,
) -> Result<Vec<Vec<usize>>, PartitionError> {
    let mut hands = vec![Vec::new(); clients];
    for rows in values.values() {
        let mut rows = rows.clone();
        stream.shuffle(&mut rows);
        let (mut cumulated, mut start) = (0.0, 0);
        let shares = proportions(alpha, clients, stream)?;
        for (client, (hand, share)) in hands.iter_mut().zip(shares).enumerate() {
            cumulated += share;
            let end = if client + 1 == clients { rows.len() } else { (cumulated * rows.len() as f64).round() as usize };
            let end = end.clamp(start, rows.len());
            hand.extend(&rows[start..end]);
            start = end;
        }
    }
    Ok(hands)
}

/// One draw from Dirichlet(alpha, ..., alpha): Gamma(alpha) draws over their sum.
///
/// In logarithms, as Gamma(a) = Gamma(a + 1) U^(1/a) (Marsaglia and Tsang 2000, section 6), because small alphas give
/// draws below the smallest double.
fn proportions(alpha: f64, clients: usize, stream: &mut Stream) -> Result<Vec<f64>, PartitionError> {
    let refuse = PartitionError::Alpha { alpha };
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(refuse);
    }
    let gamma = Gamma::new(alpha + 1.0, 1.0).map_err(|_| refuse)?;
    let mut draw = || gamma.sample(stream.generator()).ln() + f64::from(1.0 - stream.unit()).ln() / alpha;
    let logs: Vec<f64> = (0..clients).map(|_| draw()).collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let draws: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
    let sum: f64 = draws.iter().sum();
    Ok(draws.iter().map(|draw| draw / sum).collect())
}

/// The largest value first (equal ones by name), each to the client that has least so far.
fn by_column(
    values: &BTreeMap<&str, Vec<usize>>,
    column: &str,
    clients: usize,
) -> Result<Vec<Vec<usize>>, PartitionError> {
    if values.len() < clients {
        let values = name_all(&values.keys().collect::<Vec<_>>());
        return Err(PartitionError::FewValues { column: column.to_owned(), clients, values });
    }
    let mut hands = vec![Vec::new(); clients];
    let mut order: Vec<_> = values.values().collect();
    order.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    for rows in order {
        // `min_by_key` gives the first of equal ones.
        if let Some(hand) = hands.iter_mut().min_by_key(|hand| hand.len()) {
            hand.extend(rows);
        }
    }
    Ok(hands)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Key, Site};

    fn deal(deal: Deal<'_>, values: &[&str], clients: usize, seed: u64) -> Vec<Vec<usize>> {
        deal.rows(values, clients, &mut Key { seed, ..Key::default() }.stream(Site::Partition)).unwrap()
    }

    fn over_folders(alpha: f64) -> Deal<'static> {
        Deal::Dirichlet { alpha, over: "folder" }
    }

    /// 400 rows of each of five folders.
    fn folders() -> Vec<&'static str> {
        ["a", "b", "c", "d", "e"].repeat(400)
    }

    /// Share of a folder's rows that its largest holder has, averaged over the folders.
    fn concentration(hands: &[Vec<usize>]) -> f64 {
        let count = |hand: &Vec<usize>, folder| hand.iter().filter(|&&row| row % 5 == folder).count();
        let largest = |folder| hands.iter().map(|hand| count(hand, folder)).max().unwrap() as f64;
        (0..5).map(|folder| largest(folder) / 400.0).sum::<f64>() / 5.0
    }

    #[test]
    fn every_partition_deals_each_row_once() {
        let values = folders();
        for how in [Deal::Iid, over_folders(0.5), over_folders(1e-4), Deal::ByColumn("folder")] {
            let mut dealt = deal(how, &values, 4, 7).concat();
            dealt.sort_unstable();
            assert_eq!(dealt, (0..2000).collect::<Vec<_>>(), "{how:?}");
        }
    }

    #[test]
    fn every_partition_repeats_with_its_seed() {
        for how in [Deal::Iid, over_folders(0.5)] {
            assert_eq!(deal(how, &folders(), 4, 7), deal(how, &folders(), 4, 7));
            assert_ne!(deal(how, &folders(), 4, 7), deal(how, &folders(), 4, 8));
        }
    }

    #[test]
    fn iid_clients_differ_by_one_row_at_most() {
        let sizes: Vec<usize> = deal(Deal::Iid, &[""; 10], 4, 1).iter().map(Vec::len).collect();
        assert_eq!(sizes, [3, 3, 2, 2]);
    }

    #[test]
    fn a_small_alpha_gives_each_folder_to_one_client_and_a_large_one_spreads_it() {
        assert!(concentration(&deal(over_folders(0.01), &folders(), 4, 7)) > 0.95);
        // An even share is 0.25; the standard deviation of a share at alpha = 1000 is 0.007.
        assert!(concentration(&deal(over_folders(1000.0), &folders(), 4, 7)) < 0.28);
    }

    #[test]
    fn proportions_have_the_mean_and_variance_of_dirichlet() {
        // Mean 1/K, variance (1/K)(1 - 1/K)/(K alpha + 1): for K = 4, alpha = 0.5: 0.25 and 0.0625.
        let mut stream = Key::default().stream(Site::Partition);
        let first: Vec<f64> = (0..20_000).map(|_| proportions(0.5, 4, &mut stream).unwrap()[0]).collect();
        let mean = first.iter().sum::<f64>() / 20_000.0;
        let variance = first.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!((mean - 0.25).abs() < 0.01 && (variance - 0.0625).abs() < 0.003, "mean {mean}, variance {variance}");
    }

    #[test]
    fn values_go_whole_to_clients_the_largest_first() {
        let values = ["d", "b", "c", "a", "a", "a", "b", "c"];
        // a (3 rows) goes to client 0, b (2) to client 1, c (2) to client 1 that has 2, d (1) to client 0 that has 3.
        let hands = deal(Deal::ByColumn("folder"), &values, 2, 1);
        assert_eq!(hands, [vec![0, 3, 4, 5], vec![1, 2, 6, 7]]);
    }

    #[test]
    fn fewer_values_than_clients_are_refused() {
        let mut stream = Key::default().stream(Site::Partition);
        let error = Deal::ByColumn("folder").rows(&["a", "b", "a"], 3, &mut stream).unwrap_err().to_string();
        assert!(error.contains("3 clients are more than its values `a`, `b`"), "{error}");
    }

    #[test]
    fn an_alpha_that_is_no_concentration_is_refused() {
        let mut stream = Key::default().stream(Site::Partition);
        for alpha in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = over_folders(alpha).rows(&["a"], 2, &mut stream).unwrap_err().to_string();
            assert!(error.contains("must be above zero"), "{error}");
        }
    }
}
