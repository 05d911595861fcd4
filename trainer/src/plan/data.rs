//! The spec's `data` and the groups' own, as a [`DataPlan`].
//! Must not read a file.

use std::collections::BTreeMap;

use fedtune_crds::{FederatedFineTuneSpec, data as spec, source};

use crate::{
    data::{Columns, DataPlan, Format, GroupPlan, HeldOut, Partition, Source},
    sources::Origin,
};

/// The data plan of a spec.
pub(super) fn parse(spec: &FederatedFineTuneSpec, clients_evaluate: bool) -> DataPlan {
    let data = &spec.data;
    let defaults = Defaults { format: data.format, columns: &data.columns, label_map: data.label_map.as_ref() };
    DataPlan {
        source: defaults.source(&data.source, None, None, None),
        partition: partition(&data.partition),
        labels: data.labels.clone(),
        public: data.public.as_ref().map(|held| defaults.held_out(held)),
        evaluation: defaults.held_out(&data.evaluation),
        clients_evaluate,
        groups: spec.clients.groups.iter().map(|group| defaults.group(group)).collect(),
        max_sequence_length: spec.training.max_sequence_length as usize,
        seed: spec.seed,
    }
}

/// What a source of its own takes from `spec.data` where it says nothing.
struct Defaults<'a> {
    format: spec::Format,
    columns: &'a spec::Columns,
    label_map: Option<&'a BTreeMap<String, String>>,
}

impl Defaults<'_> {
    fn source(
        &self,
        source: &source::Source,
        format: Option<spec::Format>,
        columns: Option<&spec::Columns>,
        label_map: Option<&BTreeMap<String, String>>,
    ) -> Source<Origin> {
        let columns = columns.unwrap_or(self.columns);
        Source {
            path: Origin::of(source),
            format: match format.unwrap_or(self.format) {
                spec::Format::Csv => Format::Csv,
                spec::Format::JsonLines => Format::Jsonl,
                spec::Format::Parquet => Format::Parquet,
                spec::Format::Folders => {
                    Format::Folders { label_map: label_map.or(self.label_map).cloned().unwrap_or_default() }
                }
            },
            columns: Columns { text: columns.text.clone(), label: Some(columns.label.clone()) },
        }
    }

    fn held_out(&self, held: &spec::HeldOut) -> HeldOut {
        let examples = held.examples.map(|examples| examples as usize);
        match &held.source {
            None => HeldOut::OfSource { examples: examples.unwrap_or(0) },
            Some(source) => {
                let source = self.source(source, held.format, held.columns.as_ref(), held.label_map.as_ref());
                HeldOut::Own { source, examples }
            }
        }
    }

    fn group(&self, group: &fedtune_crds::clients::Group) -> GroupPlan {
        let own = group.data.as_ref();
        GroupPlan {
            name: group.name.clone(),
            replicas: group.replicas as usize,
            source: own.map(|d| self.source(&d.source, d.format, d.columns.as_ref(), d.label_map.as_ref())),
            max_examples: group.max_examples.map(|most| most as usize),
        }
    }
}

/// Exactly one is set, by the resource's own rule; an empty union is `iid`.
fn partition(spec: &spec::Partition) -> Partition {
    match spec {
        spec::Partition { dirichlet: Some(dirichlet), .. } => {
            Partition::Dirichlet { alpha: dirichlet.alpha.value(), over: dirichlet.over.clone() }
        }
        spec::Partition { by_column: Some(by), .. } => Partition::ByColumn(by.column.clone()),
        spec::Partition { pre_split: Some(_), .. } => Partition::PreSplit,
        spec::Partition { dirichlet: None, by_column: None, pre_split: None, .. } => Partition::Iid,
    }
}
