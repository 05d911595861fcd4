//! Files to a prefix in an S3-compatible store, one after the other.
//! Must not leave a part of an object where a reader would take it for the whole: an object is there once it is complete.

use std::path::Path;

use bytes::Bytes;
use futures::TryFutureExt;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload, aws::AmazonS3, path};
use tokio::io::AsyncReadExt;

use super::{Words, client, fault, parse};
use crate::sources::{
    Access, SourceError, Store,
    tries::{Fault, Tries},
};

/// What is sent in one request; a file of more goes in parts of this size, of which a store takes 10,000.
const PART: usize = 16 << 20;

/// Puts each of `files`, a name below the store's prefix and what lies where, in this order.
///
/// # Errors
/// A sentence that says what to do.
pub(in crate::sources) async fn upload(
    store: &Store,
    access: &Access,
    files: &[(String, &Path)],
) -> Result<(), SourceError> {
    let (client, words) = (client(store, access)?, words(store));
    for (name, file) in files {
        let key = [store.key.trim_end_matches('/'), name].into_iter().filter(|part| !part.is_empty());
        let key = key.collect::<Vec<_>>().join("/");
        let what = format!("s3://{}/{key}", store.bucket);
        let put = Put { client: &client, key: parse(&key)?, what, words: &words };
        Tries::of(access, async || put.file(file).await).await?;
    }
    Ok(())
}

/// One object that is being written.
struct Put<'a> {
    client: &'a AmazonS3,
    key: path::Path,
    what: String,
    words: &'a Words,
}

impl Put<'_> {
    async fn file(&self, path: &Path) -> Result<(), Fault> {
        let unread = |error: std::io::Error| {
            let why = format!("{} cannot be read: {error}", path.display());
            Fault::from(SourceError::Odd { what: self.what.clone(), why })
        };
        let mut file = tokio::fs::File::open(path).await.map_err(unread)?;
        let first = part(&mut file).await.map_err(unread)?;
        if first.len() < PART {
            self.client.put(&self.key, first.into()).map_err(|error| self.fault(&error)).await?;
            return Ok(());
        }
        let mut upload = self.client.put_multipart(&self.key).map_err(|error| self.fault(&error)).await?;
        let sent = async {
            let mut next = first;
            while !next.is_empty() {
                upload.put_part(PutPayload::from(next)).map_err(|error| self.fault(&error)).await?;
                next = part(&mut file).await.map_err(unread)?;
            }
            upload.complete().map_err(|error| self.fault(&error)).await
        };
        let sent = sent.await;
        if sent.is_err() {
            // What was sent is paid for until it is dropped; where the store is away, its own rules drop it.
            let _ = upload.abort().await;
        }
        sent.map(|_| ())
    }

    fn fault(&self, error: &object_store::Error) -> Fault {
        let Fault { error, again } = fault(error, &self.what, self.words);
        match error {
            SourceError::Denied { what, help } => {
                Fault { error: SourceError::Choice { what, problem: format!("may not be written: {help}") }, again }
            }
            error => Fault { error, again },
        }
    }
}

/// The next [`PART`] bytes of a file, fewer at its end.
async fn part(file: &mut tokio::fs::File) -> std::io::Result<Bytes> {
    let mut part = Vec::new();
    file.take(PART as u64).read_to_end(&mut part).await?;
    Ok(part.into())
}

fn words(store: &Store) -> Words {
    let Store { bucket, .. } = store;
    Words {
        denied: format!(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, where there is one) to those of a user \
             who may write to the bucket {bucket}; with FEDTUNE_OUTPUT_ before their names where data is read with other keys"
        ),
        ..super::words(store)
    }
}
