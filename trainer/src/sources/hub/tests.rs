//! Against a server on loopback that answers in the shapes that the hub's API and its file addresses have
//! (`/api/models/<repo>/revision/<revision>?blobs=true`, `/<repo>/resolve/<commit>/<file>`, `X-Error-Code`, redirects of
//! large files to a store of their own). It is not the hub: what that changes, these tests do not notice.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::sources::{
    Origin, Repository, Wanted,
    testing::{Desk, Reply, Request, Server, contents},
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER: &str = "89abcdef0123456789abcdef0123456789abcdef";
const PARQUET: Wanted = Wanted::Table("parquet");

/// What the served repository is now.
struct Served {
    commit: &'static str,
    files: BTreeMap<&'static str, String>,
}

/// A repository `lab/tiny`, a model and a data set at once. Files that end with `safetensors` or `parquet` are large:
/// they are redirected to a store, which must not see the token.
struct Hub {
    server: Server,
    store: Server,
    served: Arc<Mutex<Served>>,
    desk: Desk,
}

impl Hub {
    fn new(files: &[(&'static str, &str)]) -> Self {
        let files = files.iter().map(|(name, content)| (*name, (*content).to_owned())).collect();
        let served = Arc::new(Mutex::new(Served { commit: COMMIT, files }));
        let kept = Arc::clone(&served);
        let store = Server::start(move |request| match request.header("authorization") {
            None => Reply::file(request, &kept.lock().unwrap().files[&request.target[1..]], "\"of the store\""),
            Some(_) => Reply::status(400),
        });
        let (kept, elsewhere) = (Arc::clone(&served), store.url("/"));
        let server = Server::start(move |request| answer(request, &kept.lock().unwrap(), &elsewhere));
        let desk = desk(&server);
        Self { server, store, served, desk }
    }

    fn put(&self, commit: &'static str, name: &'static str, content: &str) {
        let mut served = self.served.lock().unwrap();
        served.commit = commit;
        served.files.insert(name, content.to_owned());
    }

    fn error(&self, revision: &str, file: Option<&str>, wanted: Wanted) -> String {
        self.desk.error(&origin(revision, file), wanted)
    }
}

/// Access to the hub at `server`, with its token.
fn desk(server: &Server) -> Desk {
    let mut desk = Desk::new();
    desk.access.hub_endpoint = server.url("");
    desk.access.hub_token = Some("hf_secret".to_owned());
    desk
}

fn origin(revision: &str, file: Option<&str>) -> Origin {
    let file = file.map(str::to_owned);
    Origin::Hub(Repository { repo: "lab/tiny".to_owned(), revision: revision.to_owned(), file })
}

fn is_large(name: &str) -> bool {
    name.ends_with("safetensors") || name.ends_with("parquet")
}

fn answer(request: &Request, served: &Served, store: &str) -> Reply {
    let target = request.target.as_str();
    if request.header("authorization") != Some("Bearer hf_secret") {
        return Reply::status(401).header("X-Error-Code", "RepoNotFound");
    }
    let target = target.strip_prefix("/datasets").unwrap_or(target);
    for kind in ["/api/models/", "/api/datasets/"] {
        if let Some(rest) = target.strip_prefix(kind) {
            return listing(rest, served);
        }
    }
    let resolve = format!("/lab/tiny/resolve/{}/", served.commit);
    let Some(name) = target.strip_prefix(&resolve) else {
        return Reply::status(404).header("X-Error-Code", "EntryNotFound");
    };
    match served.files.get(name) {
        None => Reply::status(404).header("X-Error-Code", "EntryNotFound"),
        Some(_) if is_large(name) => Reply::status(302).header("Location", format!("{store}{name}")),
        Some(content) => Reply::file(request, content, "\"small\""),
    }
}

fn listing(rest: &str, served: &Served) -> Reply {
    let Some(revision) = rest.strip_prefix("lab/tiny/revision/").and_then(|rest| rest.strip_suffix("?blobs=true"))
    else {
        return Reply::status(404).header("X-Error-Code", "RepoNotFound");
    };
    if !["main", served.commit, "refs%2Fconvert%2Fparquet"].contains(&revision) {
        return Reply::status(404).header("X-Error-Code", "RevisionNotFound");
    }
    let sibling = |(name, content): (&&str, &String)| {
        let sha256 = fedtune_crds::hex(&Sha256::digest(content));
        let lfs = is_large(name).then(|| json!({"sha256": sha256, "size": content.len(), "pointerSize": 130}));
        json!({"rfilename": name, "size": content.len(), "blobId": sha256[..40], "lfs": lfs})
    };
    let siblings: Vec<_> = served.files.iter().map(sibling).collect();
    Reply::body(json!({"id": "lab/tiny", "sha": served.commit, "private": true, "siblings": siblings}).to_string())
}

fn model() -> Hub {
    Hub::new(&[
        ("README.md", "a model"),
        ("config.json", "{}"),
        ("tokenizer.json", "{\"version\": \"1.0\"}"),
        ("model.safetensors", "all the weights"),
        ("pytorch_model.bin", "the weights again"),
    ])
}

fn names(folder: &std::path::Path) -> Vec<String> {
    contents(folder).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_model_is_brought_from_the_commit_that_its_revision_is() {
    let hub = model();
    let folder = hub.desk.fetch(&origin("main", None), Wanted::Model).unwrap();
    assert_eq!(names(&folder), ["config.json", "model.safetensors", "tokenizer.json"]);
    let listing = "/api/models/lab/tiny/revision/main?blobs=true".to_owned();
    let resolved = |name: &str| format!("/lab/tiny/resolve/{COMMIT}/{name}");
    assert_eq!(
        hub.server.targets(),
        [listing.clone(), resolved("config.json"), resolved("model.safetensors"), resolved("tokenizer.json"),]
    );
    assert_eq!(hub.store.targets(), ["/model.safetensors"]);
    // A branch is asked for again, and nothing more.
    assert_eq!(hub.desk.fetch(&origin("main", None), Wanted::Model).unwrap(), folder);
    assert_eq!(hub.server.targets(), [listing]);
}

#[test]
fn of_a_new_commit_only_what_changed_is_brought() {
    let hub = model();
    let folder = hub.desk.fetch(&origin("main", None), Wanted::Model).unwrap();
    hub.server.targets();
    hub.put(OTHER, "config.json", "{\"new\": true}");
    assert_eq!(hub.desk.fetch(&origin("main", None), Wanted::Model).unwrap(), folder);
    assert_eq!(
        hub.server.targets(),
        ["/api/models/lab/tiny/revision/main?blobs=true".to_owned(), format!("/lab/tiny/resolve/{OTHER}/config.json")]
    );
    assert_eq!(contents(&folder)[0].1, "{\"new\": true}");
}

#[test]
fn a_commit_that_is_there_needs_no_network() {
    let hub = model();
    let folder = hub.desk.fetch(&origin(COMMIT, None), Wanted::Model).unwrap();
    hub.server.targets();
    assert_eq!(hub.desk.fetch(&origin(COMMIT, None), Wanted::Model).unwrap(), folder);
    assert_eq!(hub.server.targets(), [""; 0]);
    assert!(hub.desk.notes.lock().unwrap().is_empty());
}

#[test]
fn a_branch_without_a_network_is_what_it_was_and_that_is_said() {
    let hub = model();
    let folder = hub.desk.fetch(&origin("main", None), Wanted::Model).unwrap();
    let Hub { server, desk, .. } = hub;
    drop(server);
    assert_eq!(desk.fetch(&origin("main", None), Wanted::Model).unwrap(), folder);
    let notes = desk.notes.lock().unwrap().join("\n");
    assert!(notes.starts_with("lab/tiny (revision main) cannot be reached: "), "{notes}");
    assert!(notes.ends_with("; what was brought of lab/tiny (revision main) before is used"), "{notes}");
}

#[test]
fn shards_are_brought_by_their_index() {
    let hub = Hub::new(&[
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("model.safetensors.index.json", r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#),
        ("model-1.safetensors", "first"),
        ("model-2.safetensors", "second"),
        ("other.safetensors", "not these"),
    ]);
    let folder = hub.desk.fetch(&origin("main", None), Wanted::Model).unwrap();
    assert_eq!(
        names(&folder),
        ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json", "tokenizer.json"]
    );
}

#[test]
fn the_tables_of_a_data_set_that_fit_a_pattern_are_brought() {
    let hub = Hub::new(&[
        ("README.md", "a data set"),
        ("data/train-0.parquet", "PAR1 first"),
        ("data/train-1.parquet", "PAR1 second"),
        ("data/test-0.parquet", "PAR1 test"),
    ]);
    let folder = hub.desk.fetch(&origin("refs/convert/parquet", Some("data/train-*")), PARQUET).unwrap();
    assert_eq!(names(&folder), ["train-0.parquet", "train-1.parquet"]);
    assert_eq!(hub.server.targets()[0], "/api/datasets/lab/tiny/revision/refs%2Fconvert%2Fparquet?blobs=true");
    let folder = hub.desk.fetch(&origin("main", None), PARQUET).unwrap();
    assert_eq!(names(&folder), ["data--test-0.parquet", "data--train-0.parquet", "data--train-1.parquet"]);
    let file = hub.desk.fetch(&origin("main", Some("data/test-0.parquet")), PARQUET).unwrap();
    assert!(file.ends_with("files/test-0.parquet"), "{}", file.display());
}

#[test]
fn a_file_whose_hash_is_not_what_the_hub_says_is_refused() {
    let hub = model();
    let of_other_bytes = fedtune_crds::hex(&Sha256::digest("all other bytes"));
    // As long as what was listed, but not it.
    let store = Server::start(|request| Reply::file(request, "all other bytes", "\"of the store\""));
    let (served, elsewhere) = (Arc::clone(&hub.served), store.url("/"));
    let server = Server::start(move |request| answer(request, &served.lock().unwrap(), &elsewhere));
    let desk = desk(&server);
    let told = desk.error(&origin("main", None), Wanted::Model);
    let words = format!(
        "model.safetensors of lab/tiny (revision main) is not what it should be: its SHA-256 is {of_other_bytes}, expected "
    );
    assert!(told.starts_with(&words), "{told}");
}

#[test]
fn a_file_of_another_length_than_was_listed_has_changed() {
    let hub = model();
    let store = Server::start(|request| Reply::file(request, "more than all the weights", "\"of the store\""));
    let (served, elsewhere) = (Arc::clone(&hub.served), store.url("/"));
    let server = Server::start(move |request| answer(request, &served.lock().unwrap(), &elsewhere));
    let desk = desk(&server);
    let told = desk.error(&origin("main", None), Wanted::Model);
    assert!(told.starts_with("model.safetensors of lab/tiny (revision main) changed while it was read"), "{told}");
}

#[test]
fn without_a_right_token_it_is_said_how_to_give_one() {
    let mut hub = model();
    hub.desk.access.hub_token = None;
    let told = hub.error("main", None, Wanted::Model);
    assert!(
        told.starts_with("lab/tiny (revision main) may not be read: there is no such repository, or it is not public")
    );
    assert!(told.contains("set HF_TOKEN to a token that may read it"), "{told}");
    hub.desk.access.hub_token = Some("hf_other".to_owned());
    let told = hub.error("main", None, Wanted::Model);
    assert!(told.contains("may not be read: the token in HF_TOKEN may not read it"), "{told}");
    assert!(!told.contains("hf_other"), "{told}");
    hub.desk.access.hub_token = Some("hf\n".to_owned());
    assert!(
        hub.error("main", None, Wanted::Model).starts_with("HF_TOKEN cannot be used: it holds what no token holds")
    );
}

#[test]
fn what_is_missing_is_named_repository_revision_or_file() {
    let hub = model();
    let nowhere = Repository { repo: "lab/nowhere".to_owned(), revision: "main".to_owned(), file: None };
    assert_eq!(
        hub.desk.error(&Origin::Hub(nowhere), Wanted::Model),
        "lab/nowhere (revision main) is not there: the hub has no such repository; check its name"
    );
    assert_eq!(
        hub.error("v2", None, Wanted::Model),
        "lab/tiny (revision v2) is not there: the repository has no such revision; name one of its branches, tags or commits"
    );
    assert!(
        hub.error("main", Some("q4.gguf"), Wanted::Model).contains("holds neither a file nor a folder \"q4.gguf\"")
    );
    assert!(
        hub.error("main", None, PARQUET).starts_with("lab/tiny (revision main) holds no .parquet file; there are ")
    );
}

#[test]
fn who_asks_too_often_without_a_token_is_told_that_one_helps() {
    let server = Server::start(|_| Reply::status(429).header("Retry-After", "300"));
    let mut desk = Desk::new();
    desk.access.hub_endpoint = server.url("");
    assert_eq!(
        desk.error(&origin("main", None), Wanted::Model),
        "lab/tiny (revision main): the server has had too many requests and says to wait 300 s; try again later, or set \
         HF_TOKEN: who has one may ask more often"
    );
}

#[test]
fn an_answer_that_is_no_listing_is_refused() {
    for answer in ["<html>", "{}", r#"{"sha": "../../etc"}"#, r#"{"sha": 1, "siblings": []}"#] {
        let server = Server::start(move |_| Reply::body(answer));
        let mut desk = Desk::new();
        desk.access.hub_endpoint = server.url("");
        let told = desk.error(&origin("main", None), Wanted::Model);
        assert!(told.contains("the server answers what it should not"), "{answer}: {told}");
    }
}
