//! `--base`: which model an adapter is put on, and where it lies, on this machine or elsewhere.
//! Must not load it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::environment;
use crate::{
    adapter_files::named_base,
    events::Events,
    sources::{Access, Fetcher, Origin, Wanted},
};

/// What says which base an adapter is put on.
#[derive(Debug, Args)]
pub(super) struct BaseArgs {
    /// The base model: a Hugging Face folder, a GGUF file, `owner/name` or `owner/name@revision` of the hub, or an http,
    /// https or s3 address; by default the one that the adapter names.
    #[arg(long, value_name = "BASE")]
    base: Option<String>,
    /// Where models that are not on this machine are kept.
    #[arg(long, value_name = "DIR", env = "FEDTUNE_CACHE")]
    cache: Option<PathBuf>,
}

impl BaseArgs {
    /// Where the base of the adapter in `adapter` lies on this machine, brought if it did not; none where nobody names one.
    pub(super) fn bring(&self, adapter: &Path, events: &Events) -> Result<Option<PathBuf>, String> {
        let named = if let Some(name) = &self.base {
            Some(Origin::named(name, None))
        } else {
            let named = named_base(adapter).map_err(|error| error.to_string())?;
            named.map(|(name, revision)| Origin::named(&name, revision.as_deref()))
        };
        let Some(origin) = named else { return Ok(None) };
        let cache = self.cache.clone().or_else(environment::default_cache);
        let fetcher = Fetcher::new(cache, Access::from_environment(), events.clone());
        fetcher.fetch(&origin, Wanted::Model).map(Some).map_err(|error| error.to_string())
    }
}
