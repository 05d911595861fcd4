//! One file: gone on with where it broke off, checked, and put in place whole.
//! Must not join bytes of two contents: each answer says which content it is of, and another one is refused.

use std::{fs::File, io::Write};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};

use super::{
    Access, SourceError,
    errand::Progress,
    hold::{Hold, Part, Stamp, Version},
    tries::{Again, Fault, Tries},
};

/// Bytes that must come before failures are counted anew: a server that cuts at the same place is given up.
const PROGRESS: u64 = 1 << 20;

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// What its server calls it.
    pub(super) remote: String,
    /// Its name below the hold's files.
    pub(super) local: String,
    /// What the listing says of its content.
    pub(super) version: Version,
    /// SHA-256 that it must have, in hexadecimal.
    pub(super) sha256: Option<String>,
    /// What the listing calls this content, and no other.
    pub(super) id: Option<String>,
}

impl Item {
    /// Whether a file with this stamp is it; false too where the listing does not tell.
    pub(super) fn is(&self, stamp: &Stamp) -> bool {
        // In this order: bytes, names of bytes, what a server says of them.
        match (&self.sha256, &self.id) {
            (Some(sha256), _) => *sha256 == stamp.sha256,
            (None, Some(_)) => self.id == stamp.id,
            (None, None) => self.version.tells() && stamp.version.tells() && !self.version.contradicts(&stamp.version),
        }
    }

    /// Whether the listing tells its content from others.
    fn is_told(&self) -> bool {
        self.sha256.is_some() || self.id.is_some() || self.version.tells()
    }
}

/// What is asked of a server.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    /// The first byte that is wanted.
    pub(super) from: u64,
    /// The version that this byte must be of, where it is not the first.
    pub(super) part: &'a Version,
    /// The version that is there already: nothing is wanted if it is still this.
    pub(super) known: Option<&'a Version>,
}

/// What a server says.
pub(super) enum Answer {
    /// It is what is known.
    Unchanged,
    /// The file is not so long.
    Beyond,
    /// The file, or its end.
    Content {
        /// What it is of.
        version: Version,
        /// The first byte that comes.
        from: u64,
        /// What comes.
        body: BoxStream<'static, Result<Bytes, Fault>>,
    },
}

/// Where files are.
pub(super) trait Remote {
    /// What a person calls the file.
    fn name(&self, item: &Item) -> String;

    /// Asks for a file.
    async fn open(&self, item: &Item, ask: &Ask<'_>) -> Result<Answer, Fault>;
}

/// Brings `item` to `hold`, which has `known` of it.
pub(super) async fn download(
    remote: &impl Remote,
    item: &Item,
    known: Option<Stamp>,
    hold: &Hold,
    access: &Access,
    progress: &Progress<'_>,
) -> Result<(), SourceError> {
    let part = hold.part(&item.local);
    let mut download = Download { remote, item, known, hold, part, progress, begun: None, farthest: 0 };
    let mut tries = Tries::new(access);
    loop {
        match download.attempt(&mut tries).await {
            Ok(()) => return Ok(()),
            Err(fault) => tries.after(fault).await?,
        }
    }
}

struct Download<'a, R> {
    remote: &'a R,
    item: &'a Item,
    known: Option<Stamp>,
    hold: &'a Hold,
    part: Part,
    progress: &'a Progress<'a>,
    /// The version that an earlier attempt of this call saw: another one now has changed under our eyes.
    begun: Option<Version>,
    /// The most bytes that any attempt had.
    farthest: u64,
}

impl<R: Remote> Download<'_, R> {
    async fn attempt(&mut self, tries: &mut Tries<'_>) -> Result<(), Fault> {
        let (from, version) = self.held();
        if from > 0 && version.length == Some(from) {
            return Ok(self.finish(version)?);
        }
        // Where the listing tells, it has told that another content is wanted.
        let known = self.known.as_ref().map(|stamp| &stamp.version).filter(|_| from == 0 && !self.item.is_told());
        let ask = Ask { from, part: &version, known };
        match self.remote.open(self.item, &ask).await? {
            Answer::Unchanged => Ok(()),
            Answer::Beyond => {
                self.part.remove();
                Err(Fault::passing(self.changed()))
            }
            Answer::Content { version: found, from: at, body } => {
                let expected = [Some(&self.item.version), self.begun.as_ref()];
                if expected.into_iter().flatten().any(|expected| expected.contradicts(&found)) {
                    return Err(self.changed().into());
                }
                if at > 0 && version.contradicts(&found) {
                    // What an earlier process left is of another content; not every server heeds `If-Range`.
                    self.part.remove();
                    return Err(Fault::passing(self.changed()));
                }
                let file = match at {
                    0 => self.part.begin(&found)?,
                    at if at == from => self.part.resume()?,
                    at => return Err(self.odd(format!("bytes from {at} on, and was asked for {from}")).into()),
                };
                let total = found.length.or(self.item.version.length);
                self.begun = Some(found.clone());
                self.progress.begin(total);
                self.take(file, body, at, total, tries).await?;
                Ok(self.finish(found)?)
            }
        }
    }

    /// How much of the file is there that can be gone on from, and its version.
    fn held(&self) -> (u64, Version) {
        match self.part.held() {
            Some((length, version)) if version.guard().is_some() && !self.item.version.contradicts(&version) => {
                (length, version)
            }
            Some(_) | None => (0, Version::default()),
        }
    }

    /// Writes what comes to the part, up to the end.
    async fn take(
        &mut self,
        mut file: File,
        mut body: BoxStream<'static, Result<Bytes, Fault>>,
        mut at: u64,
        total: Option<u64>,
        tries: &mut Tries<'_>,
    ) -> Result<(), Fault> {
        while let Some(chunk) = body.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(fault) if at > 0 && fault.again != Again::Never => return Err(self.broke_off(at, total)),
                Err(fault) => return Err(fault),
            };
            at += chunk.len() as u64;
            if let Some(total) = total.filter(|&total| at > total) {
                self.part.remove();
                return Err(self.odd(format!("more than the {total} bytes that it announced")).into());
            }
            file.write_all(&chunk).map_err(|error| self.part.failed(error))?;
            self.progress.at(&self.item.local, at);
            if at >= self.farthest + PROGRESS {
                self.farthest = at;
                tries.progressed();
            }
        }
        if total.is_some_and(|total| at < total) { Err(self.broke_off(at, total)) } else { Ok(()) }
    }

    /// Checks the whole part and puts it in place.
    fn finish(&self, version: Version) -> Result<(), SourceError> {
        let sha256 = self.part.sha256()?;
        if let Some(wanted) = self.item.sha256.as_ref().filter(|wanted| **wanted != sha256) {
            self.part.remove();
            let (found, wanted) = (format!("its SHA-256 is {sha256}"), wanted.clone());
            return Err(SourceError::Wrong { what: self.remote.name(self.item), found, wanted });
        }
        // What the listing said is what the next listing is compared with.
        let listed = if self.item.version.tells() { self.item.version.clone() } else { version };
        let stamp = Stamp { version: listed, sha256, id: self.item.id.clone() };
        self.hold.publish(&self.part, &self.item.local, &stamp)
    }

    fn changed(&self) -> SourceError {
        SourceError::Changed { what: self.remote.name(self.item) }
    }

    fn odd(&self, why: String) -> SourceError {
        SourceError::Odd { what: self.remote.name(self.item), why }
    }

    fn broke_off(&self, at: u64, total: Option<u64>) -> Fault {
        let of = total.map_or_else(|| "an unknown number of".to_owned(), |total| total.to_string());
        Fault::passing(SourceError::BrokeOff { what: self.remote.name(self.item), at, of })
    }
}
