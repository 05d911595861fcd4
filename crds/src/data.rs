//! `spec.data`: the examples, how they are read, who holds which, and which are kept from training.
//! Must not read anything: what needs the data (a missing column) is checked where it is read.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    quantities::Decimal,
    rules::{above_zero, at_least_one, between, exactly_one},
    source::Source,
};

/// The examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.labelMap) || self.format == 'Folders'",
    "labelMap gives folders their labels; set format: Folders or leave it out"))]
#[x_kube(validation = ("!has(self.partition.preSplit) || has(self.source.path)",
    "preSplit reads <path>/<group>/<index>, so source must be a path"))]
#[x_kube(validation = ("!has(self.columns.prompt) || has(self.columns.response)",
    "a language model learns to answer; set columns.response, and leave it out for a public set of bare prompts alone"))]
pub struct Data {
    /// Where the training examples are; a group may have its own.
    pub source: Source,
    /// How they are stored. `CSV`: a header row. `JSONL`: one object a line. `Parquet`. `Folders`: a folder a class
    /// with one text file an example.
    #[serde(default)]
    pub format: Format,
    /// Which columns hold what.
    #[serde(default)]
    pub columns: Columns,
    /// Folders: the label of each folder, several folders may share one. Left out, a folder's name is its label. A
    /// folder that the map does not name is not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::rules::map_of_texts::<1000, 256>")]
    pub label_map: Option<BTreeMap<String, String>>,
    /// All labels in the order of the model's outputs. Left out, the sorted union of what the clients announce.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = ("self.size() != 1", "a classifier needs at least 2 labels; leave labels out to take those of the data"))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub labels: Vec<String>,
    /// A response that does not fit into `training.maxSequenceLength`: `Truncate` cuts it, `Refuse` ends the run.
    #[serde(default)]
    pub long_response: LongResponse,
    /// CausalLM: stands before every prompt, as the chat template's system message. Left out, what the template says
    /// by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10000))]
    pub system_prompt: Option<String>,
    /// Which client holds which example of the one source.
    #[serde(default)]
    pub partition: Partition,
    /// Examples that every party may see, taken from no client in any framework. KD-FedLLM exchanges logits on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<HeldOut>,
    /// Examples that every framework is judged on and nobody trains on.
    #[serde(default)]
    pub evaluation: HeldOut,
}

/// How examples are stored: `CSV`, `JSONL`, `Parquet` or `Folders`. Left out in a part of the data, as `data.format`
/// says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// A header row, then a row an example.
    #[default]
    #[serde(rename = "CSV")]
    Csv,
    /// A JSON object a line.
    #[serde(rename = "JSONL")]
    JsonLines,
    /// Apache Parquet.
    Parquet,
    /// A folder a class, a text file an example.
    Folders,
}

/// Which columns hold what. A classifier reads `text` and `label`; a language model `text`, or `prompt` and `response`,
/// or `messages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.response) || has(self.prompt)",
    "a response answers a prompt; set columns.prompt too, or columns.messages alone"))]
#[x_kube(validation = ("!has(self.choices) || has(self.response)",
    "choices are answers to choose the response from; set columns.response too"))]
#[x_kube(validation = ("!(has(self.messages) && has(self.prompt))",
    "messages hold prompts and responses; set columns.messages alone, or columns.prompt and columns.response"))]
pub struct Columns {
    /// The text.
    #[serde(default = "text")]
    #[schemars(length(min = 1, max = 128))]
    pub text: String,
    /// Its label.
    #[serde(default = "label")]
    #[schemars(length(min = 1, max = 128))]
    pub label: String,
    /// What a language model is asked; no loss is taken on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub prompt: Option<String>,
    /// What it should answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub response: Option<String>,
    /// A list of `{role, content}`, put through the tokenizer's chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub messages: Option<String>,
    /// A list of answers, the right one being the response: accuracy is then the share ranked right. Left out,
    /// `data.labels` where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub choices: Option<String>,
}

impl Default for Columns {
    fn default() -> Self {
        crate::defaults::of_an_empty_object()
    }
}

/// What happens to a response that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LongResponse {
    /// It is cut.
    #[default]
    Truncate,
    /// The run ends with a sentence.
    Refuse,
}

/// Who holds which example: exactly one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = exactly_one(&["iid", "dirichlet", "byColumn", "preSplit"]))]
pub struct Partition {
    /// Shuffled by seed and dealt evenly: every client sees the same mixture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iid: Option<Iid>,
    /// Each client's mixture is drawn from a Dirichlet distribution: clients differ, the more the smaller alpha.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirichlet: Option<Dirichlet>,
    /// Examples with the same value in a column stay with one client, as mails of one mailbox do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_column: Option<ByColumn>,
    /// Client i of group g reads `<path>/<g>/<i>`: the data are split already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_split: Option<PreSplit>,
}

impl Default for Partition {
    fn default() -> Self {
        Self { iid: Some(Iid {}), dirichlet: None, by_column: None, pre_split: None }
    }
}

/// Dealing evenly has no settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Iid {}

/// A client's mixture, drawn by seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dirichlet {
    /// Concentration: 0.1 gives clients of nearly one kind, 100 nearly equal ones.
    #[serde(default = "concentration")]
    #[x_kube(validation = above_zero("a concentration"))]
    pub alpha: Decimal,
    /// What is mixed: `label`, `folder` (with format Folders) or the name of a column.
    #[serde(default = "label")]
    #[schemars(length(min = 1, max = 128))]
    pub over: String,
}

/// A column decides the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ByColumn {
    /// Name of the column; its values are dealt to the clients in sorted order.
    #[schemars(length(min = 1, max = 128))]
    pub column: String,
}

/// Data that are split already have no settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PreSplit {}

/// Examples kept from training: so many held out of `data.source` by seed, or a source of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = at_least_one(&["examples", "source"]))]
#[x_kube(validation = ("has(self.source) || !(has(self.format) || has(self.columns) || has(self.labelMap))",
    "format, columns and labelMap describe a source of its own; set source, or leave them out to hold out examples of data.source"))]
pub struct HeldOut {
    /// How many: of `data.source`, chosen by seed, or the first so many of `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = between(1, 10_000_000, "a number of examples"))]
    pub examples: Option<u32>,
    /// A source of its own. Left out, the examples are held out of `data.source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// How that source is stored. Left out, as `data.format` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Which of its columns hold what. Left out, as `data.columns` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// The labels of its folders. Left out, as `data.labelMap` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::rules::map_of_texts::<1000, 256>")]
    pub label_map: Option<BTreeMap<String, String>>,
}

impl Default for HeldOut {
    fn default() -> Self {
        Self { examples: Some(200), source: None, format: None, columns: None, label_map: None }
    }
}

/// A group's own examples; what is left out is as `spec.data` says. They are partitioned among the group's replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.partition) || !has(self.partition.preSplit) || has(self.source.path)",
    "preSplit reads <path>/<group>/<index>, so source must be a path"))]
pub struct GroupData {
    /// Where the group's examples are.
    pub source: Source,
    /// How they are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Which columns hold what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Columns>,
    /// The labels of its folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::rules::map_of_texts::<1000, 256>")]
    pub label_map: Option<BTreeMap<String, String>>,
    /// Which replica holds which example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
}

fn text() -> String {
    "text".to_owned()
}

fn label() -> String {
    "label".to_owned()
}

fn concentration() -> Decimal {
    Decimal::literal("0.5")
}
