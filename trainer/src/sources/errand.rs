//! All files of one source: those that are not there yet are brought, some at a time.
//! Must not ask for what is there already, where the listing tells.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    path::{Path, PathBuf},
};

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Access, SourceError,
    download::{Item, Remote, download},
    hold::Hold,
};
use crate::events::{Event, Events};

/// Files that are brought at a time.
const AT_A_TIME: usize = 4;
/// Bytes between two events of progress.
const WORTH_TELLING: u64 = 1 << 18;

/// What bringing a source takes besides the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Errand<'a> {
    /// The cache's folder.
    pub(super) cache: &'a Path,
    /// What opens it.
    pub(super) access: &'a Access,
    /// Who is told.
    pub(super) events: &'a Events,
}

impl Errand<'_> {
    /// How patiently a server is tried: where an earlier run brought all there was, one that is away is not waited for.
    pub(super) fn access(&self, hold: &Hold) -> Access {
        Access { hasty: hold.is_sealed(), ..self.access.clone() }
    }

    /// Brings the `items` of a source that a person calls `what` to `hold`.
    pub(super) async fn bring(
        &self,
        remote: &impl Remote,
        what: &str,
        items: &[Item],
        hold: &Hold,
    ) -> Result<(), SourceError> {
        let stamped = items.iter().map(|item| (item, hold.stamp(&item.local)));
        let missing: Vec<_> =
            stamped.filter(|(item, stamp)| !stamp.as_ref().is_some_and(|stamp| item.is(stamp))).collect();
        let access = &self.access(hold);
        let lengths: Option<u64> = missing.iter().map(|(item, _)| item.version.length).sum();
        let progress = Progress::new(self.events, what, lengths);
        let downloads = missing.into_iter().map(|(item, stamp)| {
            let progress = &progress;
            async move { download(remote, item, stamp, hold, access, progress).await }
        });
        stream::iter(downloads).buffer_unordered(AT_A_TIME).try_collect::<()>().await?;
        progress.finish();
        Ok(())
    }

    /// What is in the cache, where the network is away and all of it is; else the error.
    pub(super) fn kept(&self, hold: &Hold, what: &str, error: SourceError) -> Result<PathBuf, SourceError> {
        let away = matches!(error, SourceError::Away { .. } | SourceError::Busy { .. } | SourceError::BrokeOff { .. });
        let Some(path) = away.then(|| hold.sealed()).flatten() else { return Err(error) };
        let text = format!("{error}; what was brought of {what} before is used");
        self.events.tell(Event::Note { text });
        Ok(path)
    }
}

/// How far a source has come, told as one stage.
pub(super) struct Progress<'a> {
    events: &'a Events,
    what: &'a str,
    /// Bytes of all files; none where no listing tells.
    of: Option<u64>,
    begun: Cell<bool>,
    told: Cell<u64>,
    /// Bytes of each file.
    at: RefCell<HashMap<String, u64>>,
}

impl<'a> Progress<'a> {
    fn new(events: &'a Events, what: &'a str, of: Option<u64>) -> Self {
        Self { events, what, of, begun: Cell::new(false), told: Cell::new(0), at: RefCell::default() }
    }

    /// The first bytes come, of a file of so many.
    pub(super) fn begin(&self, length: Option<u64>) {
        if !self.begun.replace(true) {
            let stage = format!("Downloading {}", self.what);
            self.events.tell(Event::StageStarted { stage, of: self.of.or(length).unwrap_or(0) });
        }
    }

    /// So many bytes of a file are there.
    pub(super) fn at(&self, local: &str, bytes: u64) {
        let mut at = self.at.borrow_mut();
        match at.get_mut(local) {
            Some(place) => *place = bytes,
            None => drop(at.insert(local.to_owned(), bytes)),
        }
        let all: u64 = at.values().sum();
        if all.abs_diff(self.told.get()) >= WORTH_TELLING {
            self.told.set(all);
            self.events.tell(Event::StageAdvanced { at: all });
        }
    }

    fn finish(&self) {
        if self.begun.get() {
            self.events.tell(Event::StageFinished);
        }
    }
}
