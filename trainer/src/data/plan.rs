//! What is asked for: where data lies, how it is read, who gets what.
//! Must not read anything: a plan is made from the resource, before any file is touched.

use std::{collections::BTreeMap, path::PathBuf};

use super::language::LanguagePlan;
use crate::sources::{Origin, Wanted};

/// Everything that decides who trains and evaluates on what.
#[derive(Debug, Clone, PartialEq)]
pub struct DataPlan {
    /// The data that is partitioned among the clients of all groups without a source of their own.
    pub source: Source<Origin>,
    /// How.
    pub partition: Partition,
    /// The labels in their order; empty where the clients' data decides.
    pub labels: Vec<String>,
    /// Examples that all may have and no client trains on as its own, in every framework.
    pub public: Option<HeldOut>,
    /// Examples that nobody trains on.
    pub evaluation: HeldOut,
    /// Whether clients evaluate themselves and so hold the evaluation set (KD, localOnly).
    pub clients_evaluate: bool,
    /// The clients, in ordinal order.
    pub groups: Vec<GroupPlan>,
    /// How rows become what a language model reads; none for a classifier.
    pub language: Option<LanguagePlan>,
    /// Longer texts are truncated to this many tokens, special tokens among them.
    pub max_sequence_length: usize,
    /// `spec.seed`.
    pub seed: u64,
}

impl DataPlan {
    /// Number of clients in all groups.
    pub fn clients(&self) -> usize {
        self.groups.iter().map(|group| group.replicas).sum()
    }

    /// Group and index in it of each client, by ordinal.
    pub fn members(&self) -> impl Iterator<Item = (&GroupPlan, usize)> {
        self.groups.iter().flat_map(|group| (0..group.replicas).map(move |index| (group, index)))
    }
}

/// Clients of one trust domain.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupPlan {
    /// Its name, the first half of its clients' ids.
    pub name: String,
    /// Number of clients.
    pub replicas: usize,
    /// Data of its own, partitioned among its own clients only.
    pub source: Option<Source<Origin>>,
    /// How its own data is; where none is said, as all data.
    pub partition: Option<Partition>,
    /// Most examples that one of its clients keeps.
    pub max_examples: Option<usize>,
}

/// A file or folder, and how to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Source<P = PathBuf> {
    /// A file of the format, or a folder of such files, read in the order of their names: where it comes from in a plan,
    /// where it lies on this machine when it is read.
    pub path: P,
    /// How it is written.
    pub format: Format,
    /// Which column is what; not used for [`Format::Folders`].
    pub columns: Columns,
}

impl Source<Origin> {
    /// What is wanted of where it comes from.
    pub(crate) fn wanted(&self) -> Wanted {
        match &self.format {
            Format::Csv | Format::Jsonl | Format::Parquet => Wanted::Table(self.format.ending()),
            Format::Folders { .. } => Wanted::Folders,
        }
    }

    /// The same, lying at `path`.
    pub(crate) fn at(&self, path: PathBuf) -> Source {
        Source { path, format: self.format.clone(), columns: self.columns.clone() }
    }
}

/// How data is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header, quoted where needed.
    Csv,
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet, flat columns.
    Parquet,
    /// Text files in folders, `<path>/<folder>/*.txt`.
    Folders {
        /// Label of each folder.
        label_map: BTreeMap<String, String>,
    },
}

impl Format {
    /// How the names of its files end.
    pub(crate) fn ending(&self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
            Self::Folders { .. } => "txt",
        }
    }
}

/// Which column is what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// A classifier's.
    Labelled {
        /// The text.
        text: String,
        /// Its label; none where the data has no labels (a public set may do without).
        label: Option<String>,
    },
    /// A language model's: a text, all of which it is to say.
    Text {
        /// The text.
        text: String,
    },
    /// A language model's: what it is asked, and what it is to answer.
    Prompt {
        /// What it is asked.
        prompt: String,
        /// What it is to answer; none in a public set of bare prompts.
        response: Option<String>,
        /// A list of answers to choose from.
        choices: Option<String>,
    },
    /// A language model's: a conversation whose answers it is to say.
    Messages {
        /// A list of `{role, content}`.
        messages: String,
    },
}

/// What happens to a response that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongResponse {
    /// It is cut, and counted.
    Truncate,
    /// The run ends with a sentence.
    Refuse,
}

/// Where held-out examples come from.
#[derive(Debug, Clone, PartialEq)]
pub enum HeldOut {
    /// Taken at random from [`DataPlan::source`]; equal texts are all taken or all left.
    OfSource {
        /// How many.
        examples: usize,
    },
    /// A source of its own.
    Own {
        /// Where.
        source: Source<Origin>,
        /// How many of it, at random; all where none.
        examples: Option<usize>,
    },
}

/// How a source becomes the clients' own data. A column is one of the source's, or `label`, or `folder`.
#[derive(Debug, Clone, PartialEq)]
pub enum Partition {
    /// Each client alike.
    Iid,
    /// Each value of a column is spread over the clients by proportions drawn from Dirichlet(alpha)
    /// (Hsu, Qi, Brown 2019, arXiv 1909.06335): small alpha, unlike clients.
    Dirichlet {
        /// Concentration, above zero.
        alpha: f64,
        /// The column.
        over: String,
    },
    /// Each value of the column goes whole to one client.
    ByColumn(String),
    /// Already done: `<path>/<group>/<index>`, a folder, or a file with the format's ending.
    PreSplit,
}

/// For whom data is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A process that is server and clients, or trains on the union.
    Everything,
    /// The server: public and evaluation sets.
    Server,
    /// The client of this ordinal: its own rows, the public set, and the evaluation set where clients evaluate.
    Client(usize),
}

impl Scope {
    /// Whether it covers this client's own rows.
    pub(crate) fn has_client(self, ordinal: usize) -> bool {
        match self {
            Self::Everything => true,
            Self::Server => false,
            Self::Client(own) => own == ordinal,
        }
    }

    /// Whether it covers the evaluation set of `plan`.
    pub(crate) fn has_evaluation(self, plan: &DataPlan) -> bool {
        match self {
            Self::Everything | Self::Server => true,
            Self::Client(_) => plan.clients_evaluate,
        }
    }
}
