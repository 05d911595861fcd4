//! Where a model or data comes from, parsed once from the resource.
//! Must not go there, nor say more in a sentence than a person may read over another's shoulder.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use fedtune_crds::source;

/// Where something is: exactly one place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A folder or file of this machine.
    Path(PathBuf),
    /// A repository of the Hugging Face hub.
    Hub(Repository),
    /// One file behind an http or https address.
    Http(Address),
    /// Objects in an S3-compatible store.
    S3(Box<Store>),
}

/// A repository of the Hugging Face hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// One file of it, one folder, or a pattern in which `*` stands for anything but `/`; all where none.
    pub file: Option<String>,
}

/// One file behind an http or https address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The address, with whatever secret is in it.
    pub url: String,
    /// SHA-256 that the file must have, in hexadecimal.
    pub sha256: Option<String>,
}

/// Objects in an S3-compatible store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Store {
    /// The bucket.
    pub bucket: String,
    /// One object's key, or what the keys of several begin with, up to a `/`; empty for the whole bucket.
    pub key: String,
    /// The store's address, where the spec has one.
    pub endpoint: Option<String>,
    /// The bucket's region, where the spec has one.
    pub region: Option<String>,
}

impl Origin {
    /// The one place that a valid source names.
    pub fn of(source: &source::Source) -> Self {
        match source {
            source::Source { hugging_face: Some(hub), .. } => {
                Self::Hub(Repository { repo: hub.repo.clone(), revision: hub.revision.clone(), file: hub.file.clone() })
            }
            source::Source { http: Some(http), .. } => {
                Self::Http(Address { url: http.url.clone(), sha256: http.sha256.clone() })
            }
            source::Source { s3: Some(s3), .. } => Self::S3(Box::new(Store::of(s3))),
            source::Source { path, hugging_face: None, http: None, s3: None } => {
                Self::Path(PathBuf::from(path.clone().unwrap_or_default()))
            }
        }
    }

    /// The place that a command line or an adapter's settings mean by `name`: what is on this machine, an address, or
    /// `owner/name` of the hub, with `@revision` behind it or the given one.
    pub fn named(name: &str, revision: Option<&str>) -> Self {
        if name.starts_with("s3://") {
            return Self::S3(Box::new(Store::at(name)));
        }
        if name.starts_with("http://") || name.starts_with("https://") {
            return Self::Http(Address { url: name.to_owned(), sha256: None });
        }
        let (repo, own) = name.split_once('@').map_or((name, None), |(repo, revision)| (repo, Some(revision)));
        if is_repository(repo) && !Path::new(name).exists() {
            let revision = own.or(revision).unwrap_or("main").to_owned();
            return Self::Hub(Repository { repo: repo.to_owned(), revision, file: None });
        }
        Self::Path(PathBuf::from(name))
    }

    /// The cargo feature that brings from there, and whether this program was built with it; none for a path.
    pub fn feature(&self) -> Option<(&'static str, bool)> {
        match self {
            Self::Path(_) => None,
            Self::Hub(_) => Some(("hub", cfg!(feature = "hub"))),
            Self::Http(_) => Some(("http", cfg!(feature = "http"))),
            Self::S3(_) => Some(("s3", cfg!(feature = "s3"))),
        }
    }

    /// What a person calls it for short: its last part.
    pub fn name(&self) -> String {
        let whole = match self {
            Self::Path(path) => {
                return path
                    .file_name()
                    .map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
            }
            Self::Hub(hub) => hub.repo.clone(),
            Self::Http(http) => shown_url(&http.url),
            Self::S3(s3) => s3.to_string(),
        };
        whole.rsplit('/').find(|part| !part.is_empty()).unwrap_or(&whole).to_owned()
    }

    /// What other programs find it by: a path as it was given, the hub's `owner/name`, an address.
    pub fn reference(&self) -> String {
        match self {
            Self::Path(path) => path.to_string_lossy().into_owned(),
            Self::Hub(hub) => hub.repo.clone(),
            Self::Http(_) | Self::S3(_) => self.to_string(),
        }
    }

    /// The hub's revision; none elsewhere.
    pub fn revision(&self) -> Option<&str> {
        match self {
            Self::Hub(hub) => Some(&hub.revision),
            Self::Path(_) | Self::Http(_) | Self::S3(_) => None,
        }
    }
}

/// Whether this can be `owner/name`: two parts, neither of which means a folder of its own accord.
fn is_repository(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let is_gguf = Path::new(name).extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"));
    name.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name)) && !is_gguf
}

impl Store {
    /// The store at an address `s3://bucket/key`; where it answers is the environment's to say.
    fn at(url: &str) -> Self {
        let place = url.strip_prefix("s3://").unwrap_or(url);
        let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
        Self { bucket: bucket.to_owned(), key: key.to_owned(), endpoint: None, region: None }
    }

    /// The store that valid settings name.
    pub fn of(s3: &source::S3) -> Self {
        Self { endpoint: s3.endpoint.clone(), region: s3.region.clone(), ..Self::at(&s3.url) }
    }
}

impl From<PathBuf> for Origin {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Hub(hub) => hub.fmt(f),
            Self::Http(http) => http.fmt(f),
            Self::S3(s3) => s3.fmt(f),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (revision {})", self.repo, self.revision)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown_url(&self.url))
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// An address without what may be secret in it: who asks, and all behind the path, where signatures stand.
pub(super) fn shown_url(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = path.split_once("://") else { return path.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(yaml: &str) -> Origin {
        Origin::of(&serde_yaml::from_str(yaml).unwrap())
    }

    #[test]
    fn each_source_of_the_resource_is_one_origin() {
        assert_eq!(origin("{path: /mnt/mail}"), Origin::Path("/mnt/mail".into()));
        let hub = Repository { repo: "a/b".into(), revision: "main".into(), file: None };
        assert_eq!(origin("{huggingFace: {repo: a/b}}"), Origin::Hub(hub));
        let url = "https://example.com/mail.csv".to_owned();
        assert_eq!(
            origin("{http: {url: 'https://example.com/mail.csv'}}"),
            Origin::Http(Address { url, sha256: None })
        );
        let s3 = |key: &str| {
            Origin::S3(Box::new(Store { bucket: "lab".into(), key: key.into(), endpoint: None, region: None }))
        };
        assert_eq!(origin("{s3: {url: 's3://lab'}}"), s3(""));
        assert_eq!(origin("{s3: {url: 's3://lab/a/b.csv'}}"), s3("a/b.csv"));
    }

    #[test]
    fn a_name_is_an_address_a_repository_or_what_lies_here() {
        let hub =
            |revision: &str| Origin::Hub(Repository { repo: "lab/tiny".into(), revision: revision.into(), file: None });
        assert_eq!(Origin::named("lab/tiny", None), hub("main"));
        assert_eq!(Origin::named("lab/tiny", Some("v1")), hub("v1"));
        assert_eq!(Origin::named("lab/tiny@v2", Some("v1")), hub("v2"));
        assert_eq!(Origin::named("s3://lab/a", None), origin("{s3: {url: 's3://lab/a'}}"));
        assert_eq!(Origin::named("https://a/b.gguf", None), origin("{http: {url: 'https://a/b.gguf'}}"));
        for path in ["/models/tiny", "./lab/tiny", "tiny", "a/b/c", "lab/tiny.gguf", "src/models", "~/tiny"] {
            assert_eq!(Origin::named(path, None), Origin::Path(path.into()), "{path}");
        }
    }

    #[test]
    fn a_sentence_about_an_address_holds_no_secret_of_it() {
        let secret = origin("{http: {url: 'https://me:word@example.com/mail.csv?signature=abc#top'}}");
        assert_eq!(secret.to_string(), "https://example.com/mail.csv");
        assert_eq!(secret.reference(), "https://example.com/mail.csv");
        assert_eq!(secret.name(), "mail.csv");
    }

    #[test]
    fn a_person_calls_a_source_by_its_last_part() {
        assert_eq!(origin("{path: .cache/models/smollm2}").name(), "smollm2");
        assert_eq!(origin("{huggingFace: {repo: HuggingFaceTB/SmolLM2-135M}}").name(), "SmolLM2-135M");
        assert_eq!(origin("{s3: {url: 's3://lab/models/minilm/'}}").name(), "minilm");
        assert_eq!(origin("{s3: {url: 's3://lab'}}").name(), "lab");
    }
}
