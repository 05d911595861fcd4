//! Who holds which row: reads the sources that a scope covers, holds out, partitions.
//! Must not open what is out of scope: a client's process never reads another client's own part.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::{
    DataError, DataPlan, GroupPlan, HeldOut, HoldOutError, Partition, PartitionError, Scope, Source,
    hold_out::{hold_out, sample},
    partition::{Deal, help},
    read::{ReadError, Row, part_of, read},
};
use crate::{
    events::{Event, Events},
    random::{Key, Site, Stream},
    sources::{Fetcher, Origin},
};

/// Rows by who holds them; empty where out of scope.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    /// By ordinal.
    pub(super) clients: Vec<Vec<Row>>,
    pub(super) public: Vec<Row>,
    pub(super) evaluation: Vec<Row>,
    /// Over the sources in the order they were read.
    pub(super) data_hash: [u8; 32],
}

/// Reads and deals what `scope` covers.
pub(super) fn gather(plan: &DataPlan, scope: Scope, fetcher: &Fetcher, events: &Events) -> Result<Holdings, DataError> {
    let holdings = Holdings { clients: vec![Vec::new(); plan.clients()], ..Holdings::default() };
    let mut gathering = Gathering { plan, scope, fetcher, events, hash: Sha256::new(), holdings };
    gathering.check_plan()?;
    gathering.own_held_out()?;
    match Deal::of(&plan.partition) {
        Some(deal) => gathering.common(deal)?,
        None => gathering.parts(|group| group.source.is_none())?,
    }
    gathering.own_of_groups()?;
    let Gathering { hash, mut holdings, .. } = gathering;
    refuse_overlap(&holdings)?;
    holdings.data_hash = hash.finalize().into();
    Ok(holdings)
}

pub(super) fn texts_of(rows: &[Row]) -> HashSet<&str> {
    rows.iter().map(|row| row.text.as_str()).collect()
}

/// What hold-outs are drawn from, told apart in the key of their streams.
#[derive(Debug, Clone, Copy)]
enum Draw {
    Common,
    OwnEvaluation,
    OwnPublic,
}

struct Gathering<'a> {
    plan: &'a DataPlan,
    scope: Scope,
    fetcher: &'a Fetcher,
    events: &'a Events,
    hash: Sha256,
    holdings: Holdings,
}

impl Gathering<'_> {
    /// Refuses what no file needs to be read for.
    fn check_plan(&self) -> Result<(), DataError> {
        let clients = self.plan.clients();
        if let Scope::Client(ordinal) = self.scope
            && ordinal >= clients
        {
            return Err(PartitionError::NoClient { ordinal, clients }.into());
        }
        let of_source = |held_out| examples_of_source(Some(held_out)).is_some();
        match Deal::of(&self.plan.partition) {
            None if of_source(&self.plan.evaluation) => Err(HoldOutError::PreSplit { set: "evaluation" }.into()),
            None if self.plan.public.as_ref().is_some_and(of_source) => {
                Err(HoldOutError::PreSplit { set: "public" }.into())
            }
            _ => Ok(()),
        }
    }

    /// Held-out sets that have a source of their own.
    fn own_held_out(&mut self) -> Result<(), DataError> {
        if let Some(HeldOut::Own { source, examples }) = &self.plan.public {
            self.holdings.public = self.own_set(source, "public", *examples, Draw::OwnPublic)?;
        }
        if let HeldOut::Own { source, examples } = &self.plan.evaluation
            && self.scope.has_evaluation(self.plan)
        {
            self.holdings.evaluation = self.own_set(source, "evaluation", *examples, Draw::OwnEvaluation)?;
        }
        Ok(())
    }

    fn own_set(
        &mut self,
        source: &Source<Origin>,
        set: &'static str,
        examples: Option<usize>,
        draw: Draw,
    ) -> Result<Vec<Row>, DataError> {
        let rows = self.read(source, None)?;
        Ok(pick(&rows, &sample(&rows, set, examples, self.hold_out_stream(draw))?))
    }

    /// The source of all groups without one of their own, and the held-out sets that are taken from it.
    fn common(&mut self, deal: Deal<'_>) -> Result<(), DataError> {
        let ordinals: Vec<usize> = self.ordinals(|group| self.plan.groups[group].source.is_none());
        let evaluation = examples_of_source(Some(&self.plan.evaluation));
        let public = examples_of_source(self.plan.public.as_ref());
        let needed = (evaluation.is_some() && self.scope.has_evaluation(self.plan))
            || public.is_some()
            || ordinals.iter().any(|&ordinal| self.scope.has_client(ordinal));
        if !needed {
            return Ok(());
        }
        let rows = self.read(&self.plan.source, deal.column())?;
        let rows = self.without_public(rows);
        let split = hold_out(&rows, evaluation, public, self.hold_out_stream(Draw::Common))?;
        self.deal(&pick(&rows, &split.private), deal, &ordinals, 0)?;
        if public.is_some() {
            self.holdings.public = pick(&rows, &split.public);
        }
        if evaluation.is_some() && self.scope.has_evaluation(self.plan) {
            self.holdings.evaluation = pick(&rows, &split.evaluation);
        }
        Ok(())
    }

    /// Groups' own sources, each dealt among its own clients.
    fn own_of_groups(&mut self) -> Result<(), DataError> {
        let plan = self.plan;
        for (index, group) in plan.groups.iter().enumerate() {
            let ordinals = self.ordinals(|other| other == index);
            let (Some(source), Some(&first)) = (&group.source, ordinals.first()) else { continue };
            let Some(deal) = Deal::of(partition_of(plan, group)) else {
                self.parts(|other| other.name == group.name)?;
                continue;
            };
            if ordinals.iter().any(|&ordinal| self.scope.has_client(ordinal)) {
                // One client alone gets everything; its source need not have the column.
                let deal = if ordinals.len() == 1 { Deal::Iid } else { deal };
                let rows = self.read(source, deal.column())?;
                let rows = self.without_public(rows);
                // Other numbers than the common source has, also where the first group has its own.
                self.deal(&rows, deal, &ordinals, first as u32 + 1)?;
            }
        }
        Ok(())
    }

    /// Parts of sources that are split already, of the groups that `includes` accepts.
    fn parts(&mut self, includes: impl Fn(&GroupPlan) -> bool) -> Result<(), DataError> {
        for (ordinal, (group, index)) in self.plan.members().enumerate() {
            if includes(group) && self.scope.has_client(ordinal) {
                let source = group.source.as_ref().unwrap_or(&self.plan.source);
                let rows = self.read_here(&part_of(&self.bring(source)?, &group.name, index)?, None)?;
                let rows = self.without_public(rows);
                self.give(ordinal, &rows, (0..rows.len()).collect())?;
            }
        }
        Ok(())
    }

    /// Deals `rows` to the clients of these ordinals; clients out of scope are dealt to as well, and get nothing.
    fn deal(&mut self, rows: &[Row], deal: Deal<'_>, ordinals: &[usize], stream: u32) -> Result<(), PartitionError> {
        let values: Vec<&str> = rows.iter().map(|row| row.value.as_str()).collect();
        let mut stream = Key { seed: self.plan.seed, client: stream, ..Key::default() }.stream(Site::Partition);
        for (&ordinal, hand) in ordinals.iter().zip(deal.rows(&values, ordinals.len(), &mut stream)?) {
            self.give(ordinal, rows, hand)?;
        }
        Ok(())
    }

    /// Gives a client the rows in its hand, as many of them as its group keeps.
    fn give(&mut self, ordinal: usize, rows: &[Row], mut hand: Vec<usize>) -> Result<(), PartitionError> {
        let (group, index) = self.plan.members().nth(ordinal).expect("ordinals are counted from the plan's members");
        if let Some(most) = group.max_examples.filter(|&most| most < hand.len()) {
            let key = Key { seed: self.plan.seed, client: ordinal as u32, round: 0, step: 1 };
            key.stream(Site::Partition).shuffle(&mut hand);
            hand.truncate(most);
            hand.sort_unstable();
        }
        if hand.is_empty() {
            let client = format!("{}/{index}", group.name);
            return Err(PartitionError::NoExample { client, help: help(partition_of(self.plan, group)) });
        }
        if self.scope.has_client(ordinal) {
            self.holdings.clients[ordinal] = pick(rows, &hand);
        }
        Ok(())
    }

    fn read(&mut self, source: &Source<Origin>, column: Option<&str>) -> Result<Vec<Row>, DataError> {
        Ok(self.read_here(&self.bring(source)?, column)?)
    }

    /// The source on this machine. Only what is read is brought, so nothing that is out of scope.
    fn bring(&self, source: &Source<Origin>) -> Result<Source, DataError> {
        Ok(source.at(self.fetcher.fetch(&source.path, source.wanted())?))
    }

    fn read_here(&mut self, source: &Source, column: Option<&str>) -> Result<Vec<Row>, ReadError> {
        let table = read(source, column, self.events)?;
        self.hash.update(table.hash);
        Ok(table.rows)
    }

    /// The rows whose texts are not in the public set.
    fn without_public(&self, mut rows: Vec<Row>) -> Vec<Row> {
        let public = texts_of(&self.holdings.public);
        let before = rows.len();
        rows.retain(|row| !public.contains(row.text.as_str()));
        if rows.len() < before {
            let text =
                format!("{} private examples have a text of the public set and are left out", before - rows.len());
            self.events.tell(Event::Note { text });
        }
        rows
    }

    fn hold_out_stream(&self, draw: Draw) -> Stream {
        Key { seed: self.plan.seed, step: draw as u32, ..Key::default() }.stream(Site::HoldOut)
    }

    /// Ordinals of the clients of the groups that `includes` accepts by their place.
    fn ordinals(&self, includes: impl Fn(usize) -> bool) -> Vec<usize> {
        let groups = self.plan.groups.iter().enumerate();
        let group_of = groups.flat_map(|(index, group)| std::iter::repeat_n(index, group.replicas));
        group_of.enumerate().filter(|(_, group)| includes(*group)).map(|(ordinal, _)| ordinal).collect()
    }
}

fn partition_of<'a>(plan: &'a DataPlan, group: &'a GroupPlan) -> &'a Partition {
    group.partition.as_ref().unwrap_or(&plan.partition)
}

fn examples_of_source(held_out: Option<&HeldOut>) -> Option<usize> {
    match held_out? {
        HeldOut::OfSource { examples } => Some(*examples),
        HeldOut::Own { .. } => None,
    }
}

fn pick(rows: &[Row], indices: &[usize]) -> Vec<Row> {
    indices.iter().map(|&index| rows[index].clone()).collect()
}

fn refuse_overlap(holdings: &Holdings) -> Result<(), HoldOutError> {
    let evaluation = texts_of(&holdings.evaluation);
    let mut both = holdings.public.iter().filter(|row| evaluation.contains(row.text.as_str()));
    let Some(first) = both.next() else { return Ok(()) };
    Err(HoldOutError::Overlap { count: 1 + both.count(), place: first.place.to_string() })
}
