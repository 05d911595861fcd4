//! Device, base model, tokenizer and data of a run; the base is read once for all specs of a call that share it.
//! Must not start anything.

use std::{path::PathBuf, sync::Arc};

use fedtune_crds::hex;
use sha2::{Digest, Sha256};
use tch::{Cuda, Device};
use thiserror::Error;

use super::RunError;
use crate::{
    adapter_files::AdapterFiles,
    data::{self, Corpus, Scope},
    events::{Event, Events},
    models::{
        Architecture, Base, LoadOptions, LoadedTokenizer, LoraSettings, Precision, load_tokenizer, resolve_targets,
    },
    plan::{DeviceChoice, Plan, Task},
    server::check_cut,
    sources::{Access, Fetcher, Origin, Wanted},
};

/// What a run works with.
#[derive(Debug)]
pub struct Materials {
    /// The frozen base; clones share its weights.
    pub base: Base,
    /// The adapter, its targets resolved against the model.
    pub lora: LoraSettings,
    /// The adapter that everyone starts from; none for a fresh one.
    pub initial: Option<Arc<AdapterFiles>>,
    /// What fills a batch.
    pub pad_id: u32,
    /// Everyone's records, as far as this process may see them.
    pub corpus: Corpus,
    /// SHA-256 of the tokenizer.
    pub tokenizer_hash: String,
    /// Hash of all that both sides of a session must agree on.
    pub run_hash: String,
    /// `SmolLM2-135M, 30 blocks` and the like.
    pub model_name: String,
    /// `CPU (BF16)` and the like.
    pub device_words: String,
}

/// No such device.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// CUDA was asked for.
    #[error("training.device is CUDA, and {0}; set Auto or CPU, or give a CUDA libtorch in LIBTORCH and a visible GPU")]
    NoCuda(&'static str),
}

/// Rows that the model cannot take.
#[derive(Debug, Error)]
#[error("training.maxSequenceLength is {asked}, and the model takes {positions} tokens; set at most {positions}")]
pub struct LengthError {
    asked: usize,
    positions: usize,
}

/// Materials that several runs of one call share.
#[derive(Debug)]
pub struct Shelf {
    cache: Option<PathBuf>,
    fetcher: Fetcher,
    events: Events,
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    key: (Origin, LoadOptions),
    base: Base,
    tokenizer: LoadedTokenizer,
}

impl Shelf {
    /// An empty shelf; what is not on this machine is brought into `cache`.
    pub fn new(cache: Option<PathBuf>, access: Access, events: Events) -> Self {
        Self { fetcher: Fetcher::new(cache.clone(), access, events.clone()), cache, events, loaded: None }
    }

    /// Everything that a run of `plan` in one process needs.
    pub fn take(&mut self, plan: &Plan) -> Result<Materials, RunError> {
        self.take_for(plan, Scope::Everything)
    }

    /// What the part of a run in `scope` needs.
    pub fn take_for(&mut self, plan: &Plan, scope: Scope) -> Result<Materials, RunError> {
        let device = choose_device(plan.device)?;
        self.load(plan, device)?;
        let loaded = self.loaded.as_ref().expect("it has just been loaded");
        let base = loaded.base.share();
        let lora = LoraSettings { target_modules: targets(plan, base.architecture()), ..plan.lora.clone() };
        resolve_targets(base.shape(), &lora)?;
        base.check_head(plan.head(plan.data.labels.len()))?;
        check_length(plan, &base)?;
        check_cut(plan, &base)?;
        let initial = self.initial_adapter(plan, &base, &lora)?;
        let (tokenizer, cache) = (&loaded.tokenizer, self.cache.as_deref());
        let corpus = data::load(&plan.data, scope, tokenizer, &self.fetcher, cache, &self.events)?;
        Ok(Materials {
            run_hash: run_hash(plan, &base, &loaded.tokenizer.hash, initial.as_deref()),
            initial,
            model_name: format!("{} ({} blocks)", plan.model.name(), base.shape().blocks),
            device_words: device_words(device, plan.precision),
            pad_id: loaded.tokenizer.pad_id,
            tokenizer_hash: loaded.tokenizer.hash.clone(),
            base,
            lora,
            corpus,
        })
    }

    fn load(&mut self, plan: &Plan, device: Device) -> Result<(), RunError> {
        let options = LoadOptions { precision: plan.precision, device, language_head: plan.task == Task::Language };
        let key = (plan.model.clone(), options);
        let kept = self.loaded.take().filter(|loaded| loaded.key == key);
        let loaded = match kept {
            Some(loaded) => loaded,
            None => self.read(key)?,
        };
        self.loaded = Some(loaded);
        Ok(())
    }

    /// Reads the adapter to start from, and refuses one of another base or with other settings. Its labels are compared once
    /// the run's are frozen.
    fn initial_adapter(
        &self,
        plan: &Plan,
        base: &Base,
        lora: &LoraSettings,
    ) -> Result<Option<Arc<AdapterFiles>>, RunError> {
        let Some(origin) = &plan.initial_adapter else { return Ok(None) };
        let initial = AdapterFiles::read(&self.fetcher.fetch(origin, Wanted::Adapter)?)?;
        initial.check_base(base.shape())?;
        initial.check_settings(base.shape(), lora)?;
        Ok(Some(Arc::new(initial)))
    }

    fn read(&self, key: (Origin, LoadOptions)) -> Result<Loaded, RunError> {
        let path = self.fetcher.fetch(&key.0, Wanted::Model)?;
        self.events.tell(Event::StageStarted { stage: format!("Reading {}", key.0.name()), of: 0 });
        let base = Base::load(&path, key.1)?;
        let tokenizer = load_tokenizer(&path)?;
        tokenizer.check(base.shape())?;
        self.events.tell(Event::StageFinished);
        Ok(Loaded { key, base, tokenizer })
    }
}

/// Where to compute.
pub fn choose_device(choice: DeviceChoice) -> Result<Device, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Auto => Ok(Device::cuda_if_available()),
        DeviceChoice::Cuda if Cuda::is_available() => Ok(Device::Cuda(0)),
        DeviceChoice::Cuda => Err(DeviceError::NoCuda("this libtorch has no CUDA, or no GPU is visible")),
    }
}

fn check_length(plan: &Plan, base: &Base) -> Result<(), LengthError> {
    let (asked, positions) = (plan.data.max_sequence_length, base.shape().max_positions);
    if asked > positions { Err(LengthError { asked, positions }) } else { Ok(()) }
}

/// The spec's target modules, else those that the architecture's adapters usually take.
pub fn targets(plan: &Plan, architecture: Architecture) -> Vec<String> {
    if plan.lora.target_modules.is_empty() {
        architecture.default_targets().iter().map(ToString::to_string).collect()
    } else {
        plan.lora.target_modules.clone()
    }
}

fn run_hash(plan: &Plan, base: &Base, tokenizer_hash: &str, initial: Option<&AdapterFiles>) -> String {
    let mut hash = Sha256::new();
    let (base, initial) = (base.hash(), initial.map(|initial| initial.hash.as_str()));
    for part in [&plan.spec_hash, &base, tokenizer_hash].into_iter().chain(initial) {
        hash.update(part);
        hash.update([0]);
    }
    hex(&hash.finalize())
}

fn device_words(device: Device, precision: Precision) -> String {
    let name = match device {
        Device::Cuda(index) => format!("CUDA:{index}"),
        Device::Cpu | Device::Mps | Device::Vulkan => "CPU".to_owned(),
    };
    format!("{name} ({precision:?})")
}
