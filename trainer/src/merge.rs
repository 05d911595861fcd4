//! An adapter into its base: W' = W + scale B A, written as a model that transformers loads.
//! Must not hold the model in memory, and must not leave half of one behind.
//!
//! | file | one thing |
//! |---|---|
//! | `shards.rs` | tensors into safetensors files, one after the other |

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use thiserror::Error;

use crate::{
    adapter_files::{AdapterError, AdapterFiles, AdapterTask},
    durable,
    models::{
        Architecture, Head, LinearShape, LoadError, Precision, StoredTensor, Weights, load_tokenizer, resolve_targets,
    },
};

mod shards;

pub use shards::SHARD_BYTES;
use shards::{Content, element_of, write_shards};

/// Files beside a model's weights that belong to its tokenizer and its answers.
const COMPANIONS: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
];

/// What is merged into what.
#[derive(Debug)]
pub struct Merge<'a> {
    /// Folder of the adapter.
    pub adapter: &'a Path,
    /// The base; by default the one that the adapter names.
    pub base: Option<&'a Path>,
    /// Folder that is made.
    pub out: &'a Path,
    /// Type of the elements; by default each tensor's own, and BF16 for quantised ones.
    pub precision: Option<Precision>,
    /// Bytes of one file, at most, but for a tensor that is larger.
    pub shard_bytes: u64,
}

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged {
    /// Tensors of the model.
    pub tensors: usize,
    /// Layers that the adapter changed.
    pub changed: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Files they lie in.
    pub files: usize,
}

/// Why nothing was merged.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the sentences document the fields")]
pub enum MergeError {
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Base(#[from] LoadError),
    #[error("the adapter in {} names no base; say which with --base", .0.display())]
    NoBase(PathBuf),
    #[error("{} is there already and not empty; choose another --out", .0.display())]
    Taken(PathBuf),
    #[error("the base has no tensor {name}, or of another shape than {shape:?}, which the adapter changes")]
    NoTarget { name: String, shape: [usize; 2] },
    #[error("the merged model cannot be written to {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Merge<'_> {
    /// Writes weights, `config.json` and the tokenizer's files to `out`, whole or not at all.
    ///
    /// # Errors
    /// Where adapter and base do not belong together, or a file cannot be read or written.
    pub fn run(&self) -> Result<Merged, MergeError> {
        let adapter = AdapterFiles::read(self.adapter)?;
        let named = self.base.or(adapter.base.as_deref());
        let base = named.ok_or_else(|| MergeError::NoBase(self.adapter.to_owned()))?;
        let weights = Weights::open(base)?;
        adapter.check_base(weights.shape())?;
        self.check_out()?;
        let contents = self.contents(&adapter, &weights)?;
        let beside = self.out.with_extension("partial");
        let write = |source| MergeError::Write { path: self.out.to_owned(), source };
        durable::remove_folder(&beside).map_err(write)?;
        let (bytes, files) = write_shards(&beside, &contents, self.shard_bytes)?;
        let kind = contents
            .iter()
            .find(|content| content.name.starts_with(&weights.prefix()))
            .map_or(Kind::Float, |body| body.kind);
        write_json(&beside.join("config.json"), &Self::config(&adapter, &weights, kind)?).map_err(write)?;
        write_companions(&beside, base, &weights)?;
        durable::publish_folder(&beside, self.out).map_err(write)?;
        let changed = contents.iter().filter(|content| content.is_changed()).count();
        Ok(Merged { tensors: contents.len(), changed, bytes, files })
    }

    fn check_out(&self) -> Result<(), MergeError> {
        match fs::read_dir(self.out).map(|mut entries| entries.next().is_some()) {
            Ok(true) => Err(MergeError::Taken(self.out.to_owned())),
            Ok(false) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(MergeError::Write { path: self.out.to_owned(), source }),
        }
    }

    /// Every tensor of the merged model, and where it comes from.
    fn contents<'a>(&self, adapter: &'a AdapterFiles, weights: &'a Weights) -> Result<Vec<Content<'a>>, MergeError> {
        let prefix = weights.prefix();
        let keeps = |tensor: &StoredTensor| {
            tensor.name.starts_with(&prefix)
                || (adapter.task == AdapterTask::Language && tensor.name.starts_with("lm_head."))
        };
        let stored: Vec<StoredTensor> = weights.tensors().into_iter().filter(keeps).collect();
        let mut targets = resolve_targets(weights.shape(), &adapter.lora).map_err(AdapterError::from)?;
        let mut contents = Vec::new();
        for tensor in stored {
            let module = tensor.name.strip_suffix(".weight");
            let at = targets.iter().position(|target| Some(target.name.as_str()) == module);
            let delta = at.map(|at| Delta::of(targets.swap_remove(at), weights.shape().architecture, adapter));
            if let Some(delta) = delta.as_ref().filter(|delta| tensor.shape != delta.shape()) {
                return Err(delta.no_target());
            }
            let kind = self.precision.map_or(tensor.kind.unwrap_or(Kind::BFloat16), Precision::kind);
            contents.push(Content::stored(tensor, weights, delta, kind));
        }
        if let Some(missing) = targets.into_iter().next() {
            return Err(Delta::of(missing, weights.shape().architecture, adapter).no_target());
        }
        contents.extend(self.head(adapter, weights)?);
        contents.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(contents)
    }

    /// The classifier, which is the adapter's; F32 as it was trained, unless another type is wanted.
    fn head<'a>(&self, adapter: &AdapterFiles, weights: &Weights) -> Result<Vec<Content<'a>>, MergeError> {
        let shape = weights.shape();
        let Head::Classifier(labels) = adapter.head(shape)? else { return Ok(Vec::new()) };
        let kind = self.precision.map_or(Kind::Float, Precision::kind);
        let (labels, hidden) = (labels as i64, shape.hidden as i64);
        let name = |part: &str| format!("{}.{part}", shape.head_name());
        let weight = adapter.tensor(&name("weight"), &[labels, hidden], Device::Cpu)?;
        let mut head = vec![Content::made(name("weight"), weight, kind)];
        if shape.head_has_bias() {
            head.push(Content::made(name("bias"), adapter.tensor(&name("bias"), &[labels], Device::Cpu)?, kind));
        }
        Ok(head)
    }

    /// The base's configuration, as one of the merged model.
    fn config(adapter: &AdapterFiles, weights: &Weights, kind: Kind) -> Result<Value, MergeError> {
        let mut config = weights.config().clone();
        let architecture = weights.shape().architecture;
        // The older name, which every version and vLLM read; the newer one would stand against it.
        config.as_object_mut().map(|config| config.remove("dtype"));
        config["torch_dtype"] = json!(element_of(kind).name);
        let head = adapter.head(weights.shape())?;
        config["architectures"] = json!([architecture.class_name(head)]);
        match head {
            Head::Language => {}
            Head::Classifier(labels) => {
                let names = adapter.label_names(labels);
                config["id2label"] = names.iter().enumerate().map(|(id, name)| (id.to_string(), json!(name))).collect();
                config["label2id"] = names.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
                if let Some(pad) = adapter.pad_id {
                    config["pad_token_id"] = json!(pad);
                }
            }
        }
        Ok(config)
    }
}

/// What an adapter adds to one layer.
struct Delta<'a> {
    linear: LinearShape,
    /// Whether the file has the weight as `[inputs, outputs]`.
    transposed: bool,
    adapter: &'a AdapterFiles,
}

impl<'a> Delta<'a> {
    fn of(linear: LinearShape, architecture: Architecture, adapter: &'a AdapterFiles) -> Self {
        Self { linear, transposed: architecture.stores_inputs_first(), adapter }
    }

    /// Of the weight in the file.
    fn shape(&self) -> [usize; 2] {
        let LinearShape { inputs, outputs, .. } = self.linear;
        if self.transposed { [inputs, outputs] } else { [outputs, inputs] }
    }

    fn no_target(&self) -> MergeError {
        MergeError::NoTarget { name: format!("{}.weight", self.linear.name), shape: self.shape() }
    }

    /// `weight + scale B A`, F32.
    fn add_to(&self, weight: &Tensor) -> Result<Tensor, MergeError> {
        let lora = &self.adapter.lora;
        let (rank, inputs, outputs) = (lora.rank as i64, self.linear.inputs as i64, self.linear.outputs as i64);
        let part = |matrix, shape| {
            self.adapter.tensor(&format!("{}.lora_{matrix}.weight", self.linear.name), shape, Device::Cpu)
        };
        let product = part("B", &[outputs, rank])?.f_matmul(&part("A", &[rank, inputs])?)?; // [outputs, inputs]
        let product = if self.transposed { product.f_tr()? } else { product };
        Ok(weight.f_add(&(product * lora.scale()))?)
    }
}

fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    durable::write_whole(path, &serde_json::to_vec_pretty(value).expect("a JSON value is written without fail"))
}

/// Copies the tokenizer's files, or writes them from what a GGUF file holds.
fn write_companions(beside: &Path, base: &Path, weights: &Weights) -> Result<(), MergeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| MergeError::Write { path, source }
    };
    let Some(folder) = weights.folder() else {
        let tokenizer = load_tokenizer(base)?;
        let json = tokenizer.tokenizer.to_string(true).unwrap_or_default();
        durable::write_whole(&beside.join("tokenizer.json"), json.as_bytes()).map_err(failed(beside))?;
        let token = |id: &Value| tokenizer.tokenizer.id_to_token(u32::try_from(id.as_u64()?).ok()?);
        let config = weights.config();
        let about = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": tokenizer.tokenizer.id_to_token(tokenizer.pad_id),
            "bos_token": token(&config["bos_token_id"]),
            "eos_token": token(&config["eos_token_id"]),
            "chat_template": tokenizer.chat.as_ref().map(|chat| &chat.source),
        });
        return write_json(&beside.join("tokenizer_config.json"), &about).map_err(failed(beside));
    };
    for name in COMPANIONS {
        let file = folder.join(name);
        if file.is_file() {
            let bytes = fs::read(&file).map_err(failed(&file))?;
            durable::write_whole(&beside.join(name), &bytes).map_err(failed(beside))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
