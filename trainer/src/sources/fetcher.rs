//! An origin to a local path that the loaders read: a path as it is, all else by way of the cache.
//! Must not go twice in one call for the same source: all that read it see one content.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use super::{Access, Origin, SourceError, Wanted};
use crate::events::Events;

/// Brings sources to this machine.
#[derive(Debug)]
pub struct Fetcher {
    cache: Option<PathBuf>,
    access: Access,
    events: Events,
    brought: Mutex<HashMap<(Origin, Wanted), PathBuf>>,
}

impl Fetcher {
    /// Keeps what it brings in `cache`; without a cache it brings nothing.
    pub fn new(cache: Option<PathBuf>, access: Access, events: Events) -> Self {
        Self { cache, access, events, brought: Mutex::default() }
    }

    /// Where what is wanted of `origin` lies on this machine, brought if it did not. Blocks; not to be called on a
    /// runtime's thread.
    ///
    /// # Errors
    /// A sentence that says what to do. A path is not looked at.
    pub fn fetch(&self, origin: &Origin, wanted: Wanted) -> Result<PathBuf, SourceError> {
        if let Origin::Path(path) = origin {
            return Ok(path.clone());
        }
        let key = (origin.clone(), wanted);
        let mut brought = self.brought.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = brought.get(&key) {
            return Ok(path.clone());
        }
        let path = self.bring(origin, wanted)?;
        brought.insert(key, path.clone());
        Ok(path)
    }

    #[cfg(any(feature = "hub", feature = "http", feature = "s3"))]
    fn bring(&self, origin: &Origin, wanted: Wanted) -> Result<PathBuf, SourceError> {
        let cache = self.cache.as_deref().ok_or_else(|| SourceError::NoCache { what: origin.to_string() })?;
        let errand = super::errand::Errand { cache, access: &self.access, events: &self.events };
        let runtime = super::web::runtime()?;
        match origin {
            Origin::Path(path) => Ok(path.clone()),
            #[cfg(feature = "hub")]
            Origin::Hub(repo) => runtime.block_on(super::hub::fetch(repo, wanted, &errand)),
            #[cfg(feature = "http")]
            Origin::Http(address) => runtime.block_on(super::http::fetch(address, wanted, &errand)),
            #[cfg(feature = "s3")]
            Origin::S3(store) => runtime.block_on(super::s3::fetch(store, wanted, &errand)),
            #[cfg(not(feature = "hub"))]
            Origin::Hub(_) => Err(without(origin)),
            #[cfg(not(feature = "http"))]
            Origin::Http(_) => Err(without(origin)),
            #[cfg(not(feature = "s3"))]
            Origin::S3(_) => Err(without(origin)),
        }
    }

    #[cfg(not(any(feature = "hub", feature = "http", feature = "s3")))]
    fn bring(&self, origin: &Origin, _: Wanted) -> Result<PathBuf, SourceError> {
        let _ = (&self.cache, &self.access, &self.events);
        Err(without(origin))
    }
}

#[cfg(not(all(feature = "hub", feature = "http", feature = "s3")))]
fn without(origin: &Origin) -> SourceError {
    let feature = origin.feature().map_or("", |(feature, _)| feature);
    SourceError::NoFeature { what: origin.to_string(), feature }
}
