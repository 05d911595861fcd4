//! Objects in an S3-compatible store: one by its key, or those whose keys go on from a prefix.
//! Must not take an object that is another than the one that was listed.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
    path::Path,
};
use reqwest::{Client, StatusCode, header::HeaderMap};

use super::{
    Access, SourceError, Store, Wanted,
    download::{Answer, Ask, Item, Remote},
    errand::Errand,
    hold::{Hold, Version},
    select::{Listed, choose, shards},
    tries::{Fault, Tries},
    web::{self, Words, causes, deepest},
};

mod upload;

pub(super) use upload::upload;

/// Where a machine of Amazon's asks who it is.
const METADATA: &str = "169.254.169.254";
/// Most objects that are looked at.
const MOST: usize = 1_000_000;

/// Brings what is wanted of a store, and gives its path.
pub(super) async fn fetch(store: &Store, wanted: Wanted, errand: &Errand<'_>) -> Result<PathBuf, SourceError> {
    let what = store.to_string();
    let hold = hold(store, wanted, errand)?;
    let access = errand.access(&hold);
    let objects = Objects::new(store, &access)?;
    match objects.bring(&what, wanted, errand, &hold).await {
        Ok(path) => Ok(path),
        Err(error) => errand.kept(&hold, &what, error),
    }
}

fn hold(store: &Store, wanted: Wanted, errand: &Errand<'_>) -> Result<Hold, SourceError> {
    let (name, wanted) = (format!("{}/{}", store.bucket, store.key), format!("{wanted:?}"));
    let key = [endpoint(store, errand.access), &store.bucket, &store.key, &wanted];
    Hold::open(errand.cache, "s3", &name, &key, errand.events)
}

/// Address of the store: the spec's, else the environment's, else Amazon's, which is empty here.
fn endpoint<'a>(store: &'a Store, access: &'a Access) -> &'a str {
    let of_environment = |wanted: &str| {
        let found = access.s3.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    let names = ["aws_endpoint_url_s3", "aws_endpoint_url", "aws_endpoint"];
    store.endpoint.as_deref().or_else(|| names.into_iter().find_map(of_environment)).unwrap_or_default()
}

struct Objects<'a> {
    store: &'a Store,
    client: AmazonS3,
    access: &'a Access,
    words: Words,
}

/// A client of the store, which makes each request once: tries and pauses are those of all sources.
pub(super) fn client(store: &Store, access: &Access) -> Result<AmazonS3, SourceError> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in &access.s3 {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(&store.bucket);
    if let Some(endpoint) = &store.endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = &store.region {
        builder = builder.with_region(region);
    }
    let once = RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::ZERO };
    let connector = Connector { endpoint: endpoint(store, access).to_owned() };
    builder.with_retry(once).with_http_connector(connector).build().map_err(|error| SourceError::Choice {
        what: store.to_string(),
        problem: format!("cannot be asked for: {}", deepest(&error)),
    })
}

impl<'a> Objects<'a> {
    fn new(store: &'a Store, access: &'a Access) -> Result<Self, SourceError> {
        Ok(Self { store, client: client(store, access)?, access, words: words(store) })
    }

    async fn bring(
        &self,
        what: &str,
        wanted: Wanted,
        errand: &Errand<'_>,
        hold: &Hold,
    ) -> Result<PathBuf, SourceError> {
        let choice = |problem| SourceError::Choice { what: what.to_owned(), problem };
        let listing = self.list().await?;
        let mut chosen = choose(&listing, wanted).map_err(choice)?;
        errand.bring(self, what, &chosen.items, hold).await?;
        if let Some(index) = chosen.index {
            let shards = shards(&listing, &hold.read(index)?).map_err(choice)?;
            errand.bring(self, what, &shards, hold).await?;
            chosen.items.extend(shards);
        }
        let locals: Vec<&str> = chosen.items.iter().map(|item| item.local.as_str()).collect();
        hold.seal(&locals, chosen.alone)
    }

    /// The objects below the key, or the one object that has it.
    async fn list(&self) -> Result<Vec<Listed>, SourceError> {
        let key = self.store.key.trim_end_matches('/');
        let below = Tries::of(self.access, async || self.list_below(key).await).await;
        let one_is_meant = !self.store.key.is_empty() && !self.store.key.ends_with('/');
        match below {
            // Who may read an object need not have the right to list others.
            Ok(listing) if !listing.is_empty() => Ok(listing),
            Err(error @ SourceError::Denied { .. }) if one_is_meant => self.one(key).await.map_err(|_| error),
            Ok(_) if one_is_meant => self.one(key).await,
            Ok(_) => Err(SourceError::Missing { what: self.store.to_string(), help: self.words.missing.clone() }),
            Err(error) => Err(error),
        }
    }

    async fn list_below(&self, key: &str) -> Result<Vec<Listed>, Fault> {
        let what = self.store.to_string();
        let failed = |error: object_store::Error| fault(&error, &what, &self.words);
        let prefix = (!key.is_empty()).then(|| parse(key)).transpose()?;
        let objects = self.client.list(prefix.as_ref()).take(MOST).map_err(failed);
        let listed = |meta: ObjectMeta| {
            let remote = meta.location.to_string();
            let name = remote.strip_prefix(key).unwrap_or(&remote).trim_start_matches('/').to_owned();
            Listed { remote, name, version: version(&meta), sha256: None, id: None }
        };
        objects.map_ok(listed).try_collect().await
    }

    async fn one(&self, key: &str) -> Result<Vec<Listed>, SourceError> {
        let what = self.store.to_string();
        let path = parse(key)?;
        let head = async || {
            let options = GetOptions { head: true, ..GetOptions::default() };
            self.client.get_opts(&path, options).await.map_err(|error| fault(&error, &what, &self.words))
        };
        let meta = Tries::of(self.access, head).await?.meta;
        let name = key.rsplit('/').next().unwrap_or(key).to_owned();
        Ok(vec![Listed { remote: key.to_owned(), name, version: version(&meta), sha256: None, id: None }])
    }
}

impl Remote for Objects<'_> {
    fn name(&self, item: &Item) -> String {
        format!("s3://{}/{}", self.store.bucket, item.remote)
    }

    async fn open(&self, item: &Item, ask: &Ask<'_>) -> Result<Answer, Fault> {
        let what = self.name(item);
        let options = GetOptions {
            // Stores that do not know it answer all the same; their tag is compared then.
            if_match: item.version.etag.clone(),
            range: (ask.from > 0).then_some(GetRange::Offset(ask.from)),
            ..GetOptions::default()
        };
        let found = match self.client.get_opts(&parse(&item.remote)?, options).await {
            Ok(found) => found,
            Err(error) => {
                return match refused(&error).map(|refused| refused.status) {
                    Some(StatusCode::PRECONDITION_FAILED) => Err(SourceError::Changed { what }.into()),
                    Some(StatusCode::RANGE_NOT_SATISFIABLE) if ask.from > 0 => Ok(Answer::Beyond),
                    _ => Err(fault(&error, &what, &self.words)),
                };
            }
        };
        let (version, from, words) = (version(&found.meta), found.range.start, self.words.clone());
        let body = found.into_stream().map_err(move |error| fault(&error, &what, &words)).boxed();
        Ok(Answer::Content { version, from, body })
    }
}

fn parse(key: &str) -> Result<Path, SourceError> {
    Path::parse(key).map_err(|error| SourceError::Choice {
        what: format!("the key {key:?}"),
        problem: format!("is none that can be asked for: {error}"),
    })
}

/// Listings say the time to the millisecond, answers to the second.
fn version(meta: &ObjectMeta) -> Version {
    let modified = meta.last_modified.timestamp().to_string();
    Version { etag: meta.e_tag.clone(), modified: Some(modified), length: Some(meta.size) }
}

fn words(store: &Store) -> Words {
    let Store { bucket, .. } = store;
    Words {
        denied: format!(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, where there is one) to those of a user \
             who may list and read the bucket {bucket}, or AWS_SKIP_SIGNATURE=true for a public one"
        ),
        missing: format!("check the bucket {bucket}, the key, and the endpoint (endpoint or AWS_ENDPOINT_URL)"),
        codes: &[],
        busy: "",
    }
}

/// What an error of the store's library means: a status as of any server, else the network's error.
fn fault(error: &object_store::Error, what: &str, words: &Words) -> Fault {
    if let Some(refused) = refused(error) {
        return refused.fault(what, words);
    }
    let told = causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
    // Nobody says who asks, and this is no machine of Amazon's that would know.
    if told.contains(METADATA) {
        return SourceError::Denied { what: what.to_owned(), help: words.denied.clone() }.into();
    }
    match causes(error).find_map(|cause| cause.downcast_ref::<reqwest::Error>()) {
        Some(error) => web::fault(error, what),
        None => SourceError::Odd { what: what.to_owned(), why: deepest(error) }.into(),
    }
}

fn refused(error: &object_store::Error) -> Option<&Refused> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// An answer that is no success. The library keeps the status for itself, so it is carried through it as an error.
#[derive(Debug, thiserror::Error)]
#[error("status {status}")]
struct Refused {
    status: StatusCode,
    headers: HeaderMap,
}

impl Refused {
    fn fault(&self, what: &str, words: &Words) -> Fault {
        let region = self.headers.get("x-amz-bucket-region").and_then(|region| region.to_str().ok());
        match region {
            Some(region) if self.status.is_redirection() || self.status == StatusCode::BAD_REQUEST => {
                let help = format!("the bucket is in another region; set region or AWS_REGION to {region}");
                SourceError::Missing { what: what.to_owned(), help }.into()
            }
            Some(_) | None => web::refusal(self.status, &self.headers, what, words),
        }
    }
}

/// Gives the library the client of all sources.
#[derive(Debug)]
struct Connector {
    endpoint: String,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |error| object_store::Error::Generic { store: "S3", source: Box::new(error) };
        // A redirected request would need another signature.
        Ok(HttpClient::new(Service(web::client(&self.endpoint, false).map_err(failed)?)))
    }
}

#[derive(Debug)]
struct Service(Client);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.call(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let refused = Refused { status: answer.status(), headers: answer.headers().clone() };
        Err(HttpError::new(HttpErrorKind::Unknown, refused))
    }
}

#[cfg(test)]
mod tests;
