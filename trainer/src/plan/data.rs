//! The spec's `data` and the groups' own, as a [`DataPlan`].
//! Must not read a file.

use std::collections::BTreeMap;

use fedtune_crds::{FederatedFineTuneSpec, data as spec, model::Task, source};

use crate::{
    data::{Columns, DataPlan, Format, GroupPlan, HeldOut, LanguagePlan, LongResponse, Partition, Source},
    sources::Origin,
};

/// The data plan of a spec.
pub(super) fn parse(spec: &FederatedFineTuneSpec, clients_evaluate: bool) -> DataPlan {
    let data = &spec.data;
    let defaults = Defaults {
        task: spec.model.task,
        has_labels: !data.labels.is_empty() || data.label_map.is_some(),
        format: data.format,
        columns: &data.columns,
        label_map: data.label_map.as_ref(),
    };
    DataPlan {
        source: defaults.source(&data.source, None, None, None),
        partition: partition(&data.partition),
        labels: data.labels.clone(),
        public: data.public.as_ref().map(|held| defaults.held_out(held)),
        evaluation: defaults.held_out(&data.evaluation),
        clients_evaluate,
        groups: spec.clients.groups.iter().map(|group| defaults.group(group)).collect(),
        language: language(spec),
        max_sequence_length: spec.training.max_sequence_length as usize,
        seed: spec.seed,
    }
}

/// What a source of its own takes from `spec.data` where it says nothing.
struct Defaults<'a> {
    task: Task,
    has_labels: bool,
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
        let format = format.unwrap_or(self.format);
        Source {
            path: Origin::of(source),
            format: match format {
                spec::Format::Csv => Format::Csv,
                spec::Format::JsonLines => Format::Jsonl,
                spec::Format::Parquet => Format::Parquet,
                spec::Format::Folders => {
                    Format::Folders { label_map: label_map.or(self.label_map).cloned().unwrap_or_default() }
                }
            },
            columns: self.columns(columns, format),
        }
    }

    fn columns(&self, columns: &spec::Columns, format: spec::Format) -> Columns {
        let spec::Columns { text, label, prompt, response, messages, choices } = columns.clone();
        match (self.task, messages, prompt) {
            (Task::SequenceClassification, _, _) => Columns::Labelled { text, label: Some(label) },
            (Task::CausalLm, Some(messages), _) => Columns::Messages { messages },
            (Task::CausalLm, None, Some(prompt)) => Columns::Prompt { prompt, response, choices },
            // A folder's label is the answer to each of its texts.
            (Task::CausalLm, None, None) if format == spec::Format::Folders && self.has_labels => {
                Columns::Prompt { prompt: text, response: Some(label), choices: None }
            }
            (Task::CausalLm, None, None) => Columns::Text { text },
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
            partition: own.and_then(|own| own.partition.as_ref()).map(partition),
            max_examples: group.max_examples.map(|most| most as usize),
        }
    }
}

fn language(spec: &FederatedFineTuneSpec) -> Option<LanguagePlan> {
    let long_response = match spec.data.long_response {
        spec::LongResponse::Truncate => LongResponse::Truncate,
        spec::LongResponse::Refuse => LongResponse::Refuse,
    };
    let system_prompt = spec.data.system_prompt.clone();
    (spec.model.task == Task::CausalLm).then_some(LanguagePlan { system_prompt, long_response })
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
