//! `--base`: which model an adapter is put on, and where it lies, on this machine or elsewhere.
//! Must not load it.

use std::path::{Path, PathBuf};

use clap::Args;
use thiserror::Error;

use super::{CONFIGURATION, FAILED, environment};
use crate::{
    adapter_files::{AdapterError, named_base},
    events::Events,
    sources::{Access, Fetcher, Origin, SourceError, Wanted},
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

/// Why there is no base.
#[derive(Debug, Error)]
pub(super) enum BaseError {
    /// The adapter does not say which.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// It cannot be brought.
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl BaseError {
    /// The exit code: what may pass by itself is nobody's mistake.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Source(error) if error.is_passing() => FAILED,
            Self::Source(_) | Self::Adapter(_) => CONFIGURATION,
        }
    }
}

impl BaseArgs {
    /// Where the base of the adapter in `adapter` lies on this machine, brought if it did not; none where nobody names one.
    pub(super) fn bring(&self, adapter: &Path, events: &Events) -> Result<Option<PathBuf>, BaseError> {
        let named = if let Some(name) = &self.base {
            Some(Origin::named(name, None))
        } else {
            let named = named_base(adapter)?;
            named.map(|(name, revision)| Origin::named(&name, revision.as_deref()))
        };
        let Some(origin) = named else { return Ok(None) };
        let cache = self.cache.clone().or_else(environment::default_cache);
        let fetcher = Fetcher::new(cache, Access::from_environment(), events.clone());
        Ok(Some(fetcher.fetch(&origin, Wanted::Model)?))
    }
}
