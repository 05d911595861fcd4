//! Repositories of the Hugging Face hub: a revision's commit and files, then the files of that commit.
//! Must not mix commits: whatever the revision becomes meanwhile, all files are of the commit that was listed.

use std::path::PathBuf;

use reqwest::{Client, RequestBuilder, header::HeaderValue};
use serde::Deserialize;

use super::{
    Access, Repository, SourceError, Wanted,
    download::{Answer, Ask, Item, Remote},
    errand::Errand,
    hold::{Hold, Version},
    select::{Listed, choose, narrow, shards},
    tries::{Fault, Tries},
    web::{self, Words},
};

/// Most bytes of a listing: 100,000 files have 20 MB.
const LISTING: usize = 64 << 20;

/// Brings what is wanted of a repository, and gives its path.
pub(super) async fn fetch(repo: &Repository, wanted: Wanted, errand: &Errand<'_>) -> Result<PathBuf, SourceError> {
    let key = [&errand.access.hub_endpoint, Kind::of(wanted).folder, &repo.repo, &repo.revision];
    let (file, wanted_key) = (repo.file.clone().unwrap_or_default(), format!("{wanted:?}"));
    let key = key.into_iter().chain([file.as_str(), wanted_key.as_str()]).collect::<Vec<_>>();
    let hold = Hold::open(errand.cache, "hub", &repo.repo, &key, errand.events)?;
    // A commit never becomes another one: what is there needs no asking.
    if is_commit(&repo.revision)
        && let Some(path) = hold.sealed()
    {
        return Ok(path);
    }
    let access = errand.access(&hold);
    let hub = Hub::new(repo, wanted, &access)?;
    match hub.bring(wanted, errand, &hold).await {
        Ok(path) => Ok(path),
        Err(error) => errand.kept(&hold, &repo.to_string(), error),
    }
}

/// What the hub's `X-Error-Code` says of a 404.
const CODES: [(&str, &str); 3] = [
    ("RepoNotFound", "the hub has no such repository; check its name"),
    ("RevisionNotFound", "the repository has no such revision; name one of its branches, tags or commits"),
    ("EntryNotFound", "the revision has no such file"),
];

/// Where the hub keeps repositories of one kind.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// In its API.
    folder: &'static str,
    /// Before a repository's name in addresses.
    prefix: &'static str,
}

impl Kind {
    fn of(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Model | Wanted::Adapter => Self { folder: "models", prefix: "" },
            Wanted::Table(_) | Wanted::Folders => Self { folder: "datasets", prefix: "datasets/" },
        }
    }
}

/// What the hub says of a revision, as far as it is read.
#[derive(Debug, Deserialize)]
struct Revision {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

struct Hub<'a> {
    client: Client,
    repo: &'a Repository,
    kind: Kind,
    access: &'a Access,
    token: Option<HeaderValue>,
    words: Words,
}

impl<'a> Hub<'a> {
    fn new(repo: &'a Repository, wanted: Wanted, access: &'a Access) -> Result<Self, SourceError> {
        let kind = Kind::of(wanted);
        let token = access.hub_token.as_deref().map(bearer).transpose()?;
        let words = words(repo, kind, token.is_some());
        Ok(Self { client: web::client(&access.hub_endpoint, true)?, repo, kind, access, token, words })
    }

    async fn bring(&self, wanted: Wanted, errand: &Errand<'_>, hold: &Hold) -> Result<PathBuf, SourceError> {
        let what = self.repo.to_string();
        let choice = |problem| SourceError::Choice { what: what.clone(), problem };
        let listed = self.list().await?;
        let (commit, listing) = (listed.sha, listed.files);
        let listing = match &self.repo.file {
            Some(file) => narrow(&listing, file).map_err(choice)?,
            None => listing,
        };
        let mut chosen = choose(&listing, wanted).map_err(choice)?;
        let files = Commit { hub: self, commit };
        errand.bring(&files, &what, &chosen.items, hold).await?;
        if let Some(index) = chosen.index {
            let shards = shards(&listing, &hold.read(index)?).map_err(choice)?;
            errand.bring(&files, &what, &shards, hold).await?;
            chosen.items.extend(shards);
        }
        let locals: Vec<&str> = chosen.items.iter().map(|item| item.local.as_str()).collect();
        hold.seal(&locals, chosen.alone)
    }

    /// The commit of the revision, and its files with their lengths and, for large ones, hashes.
    async fn list(&self) -> Result<Listing, SourceError> {
        let Repository { repo, revision, .. } = self.repo;
        let (endpoint, kind) = (&self.access.hub_endpoint, self.kind.folder);
        let url = format!("{endpoint}/api/{kind}/{repo}/revision/{}?blobs=true", quoted(revision, false));
        let what = self.repo.to_string();
        let ask = async || web::whole(self.get(&url), LISTING, &what, &self.words).await;
        let json = Tries::of(self.access, ask).await?;
        let odd = |why: String| SourceError::Odd { what: what.clone(), why };
        let revision: Revision = serde_json::from_slice(&json).map_err(|error| odd(format!("a list, {error}")))?;
        if !is_commit(&revision.sha) {
            return Err(odd(format!("a commit {:?}, which is none", revision.sha)));
        }
        Ok(Listing { sha: revision.sha, files: revision.siblings.into_iter().map(listed).collect() })
    }

    fn get(&self, url: &str) -> RequestBuilder {
        let request = self.client.get(url);
        match &self.token {
            Some(token) => request.header(reqwest::header::AUTHORIZATION, token.clone()),
            None => request,
        }
    }
}

struct Listing {
    sha: String,
    files: Vec<Listed>,
}

fn listed(sibling: Sibling) -> Listed {
    Listed {
        remote: sibling.rfilename.clone(),
        name: sibling.rfilename,
        // The tags of the hub and of the store that it redirects to are not the same: what it says here are lengths.
        version: Version { etag: None, modified: None, length: sibling.size },
        sha256: sibling.lfs.and_then(|lfs| lfs.sha256),
        id: sibling.blob_id,
    }
}

/// The files of one commit.
struct Commit<'a> {
    hub: &'a Hub<'a>,
    commit: String,
}

impl Remote for Commit<'_> {
    fn name(&self, item: &Item) -> String {
        format!("{} of {}", item.remote, self.hub.repo)
    }

    async fn open(&self, item: &Item, ask: &Ask<'_>) -> Result<Answer, Fault> {
        let Hub { access, kind, repo, words, .. } = self.hub;
        let (endpoint, file) = (&access.hub_endpoint, quoted(&item.remote, true));
        let url = format!("{endpoint}/{}{}/resolve/{}/{file}", kind.prefix, repo.repo, self.commit);
        web::open(self.hub.get(&url), ask, &self.name(item), words).await
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn bearer(token: &str) -> Result<HeaderValue, SourceError> {
    let problem = || "it holds what no token holds; set it to one from the hub's settings, as in hf_...".to_owned();
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| SourceError::Setting { name: "HF_TOKEN", problem: problem() })?;
    value.set_sensitive(true);
    Ok(value)
}

fn words(repo: &Repository, kind: Kind, with_token: bool) -> Words {
    let page = format!("the hub's page {}{}", kind.prefix, repo.repo);
    let denied = if with_token {
        format!(
            "the token in HF_TOKEN may not read it; give it that right, and accept the conditions on {page} if it has any"
        )
    } else {
        format!(
            "there is no such repository, or it is not public; check its name, set HF_TOKEN to a token that may read it, \
             and accept the conditions on {page} if it has any"
        )
    };
    let missing = format!("check repo and revision against {page}");
    let busy = if with_token { "" } else { ", or set HF_TOKEN: who has one may ask more often" };
    Words { denied, missing, codes: &CODES, busy }
}

/// A name as a part of an address; with `path`, its `/` stay.
fn quoted(name: &str, path: bool) -> String {
    use std::fmt::Write;
    name.bytes().fold(String::with_capacity(name.len()), |mut quoted, byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || (path && byte == b'/');
        if plain {
            quoted.push(char::from(byte));
        } else {
            write!(quoted, "%{byte:02X}").expect("a String takes all that is written");
        }
        quoted
    })
}

#[cfg(test)]
mod tests;
