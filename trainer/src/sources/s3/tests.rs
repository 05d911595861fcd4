//! Against s3s-fs on loopback, an S3 server that checks signatures and keeps objects as files of a folder.
//! It lists without tags and does not know `If-Match`: so it is lengths, times and the tags of answers that tell here.

use std::{
    fs::{self, FileTimes},
    io::Write,
    net::{SocketAddr, TcpListener},
    path::Path as FilePath,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::{
    events::Events,
    sources::{
        Origin,
        testing::{Desk, block_on, contents},
    },
};

const CSV: Wanted = Wanted::Table("csv");
const TEXT: &str = "text,label\nfine,good\n";

/// Requests as `GET /lab/a.csv`, with `bytes=7-` behind it where only a part is wanted.
type Log = Arc<Mutex<Vec<String>>>;
/// Is shown each request before it is answered.
type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// A store with the bucket `lab`, and a user `key` whose word is `word`.
struct Shop {
    folder: TempDir,
    address: SocketAddr,
    log: Log,
    desk: Desk,
    runtime: Runtime,
}

impl Shop {
    fn new() -> Self {
        Self::with(|_: &FilePath, _: &str| ())
    }

    /// `hook` is shown the bucket's folder and each request before it is answered.
    fn with(hook: impl Fn(&FilePath, &str) + Send + Sync + 'static) -> Self {
        let folder = TempDir::new().unwrap();
        let bucket = folder.path().join("lab");
        fs::create_dir(&bucket).unwrap();
        let log = Log::default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let hook: Hook = Arc::new(move |request: &str| hook(&bucket, request));
        let address = serve(&runtime, folder.path(), &log, &hook);
        let mut desk = Desk::new();
        let variables = [
            ("aws_access_key_id", "key"),
            ("aws_secret_access_key", "word"),
            ("aws_endpoint_url", &format!("http://{address}")),
        ];
        desk.access.s3 = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { folder, address, log, desk, runtime }
    }

    fn put(&self, key: &str, content: &str) {
        put(&self.folder.path().join("lab"), key, content);
    }

    fn requests(&self) -> Vec<String> {
        let mut requests = std::mem::take(&mut *self.log.lock().unwrap());
        requests.sort();
        requests
    }
}

/// Whoever writes a file anew here does it at another time than before, by the second.
fn put(bucket: &FilePath, key: &str, content: &str) {
    let path = bucket.join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let age = Duration::from_secs(1000 - content.len() as u64);
    let file = fs::File::create(&path).unwrap();
    (&file).write_all(content.as_bytes()).unwrap();
    file.set_times(FileTimes::new().set_modified(SystemTime::now() - age)).unwrap();
}

fn serve(runtime: &Runtime, root: &FilePath, log: &Log, hook: &Hook) -> SocketAddr {
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(SimpleAuth::from_single("key", "word"));
    let service = builder.build().into_shared();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (log, hook) = (Arc::clone(log), Arc::clone(hook));
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (service, log, hook) = (service.clone(), Arc::clone(&log), Arc::clone(&hook));
            let logged = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let range = request.headers().get("range").map(|range| format!(" {}", range.to_str().unwrap()));
                let line = format!("{} {}{}", request.method(), request.uri().path(), range.unwrap_or_default());
                hook(&line);
                log.lock().unwrap().push(line);
                hyper::service::Service::call(&service, request)
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), logged);
            tokio::spawn(connection);
        }
    });
    address
}

fn store(key: &str) -> Store {
    Store { bucket: "lab".to_owned(), key: key.to_owned(), endpoint: None, region: None }
}

fn origin(key: &str) -> Origin {
    Origin::S3(Box::new(store(key)))
}

#[test]
fn what_lies_below_a_prefix_is_brought_once_and_then_only_listed() {
    let shop = Shop::new();
    for key in ["mail/a.csv", "mail/more/b.csv", "mail/notes.md", "mailbox/c.csv"] {
        shop.put(key, TEXT);
    }
    let folder = shop.desk.fetch(&origin("mail"), CSV).unwrap();
    assert_eq!(contents(&folder), [("a.csv".to_owned(), TEXT.to_owned()), ("more--b.csv".to_owned(), TEXT.to_owned())]);
    assert_eq!(shop.requests(), ["GET /lab", "GET /lab/mail/a.csv", "GET /lab/mail/more/b.csv"]);
    assert_eq!(shop.desk.fetch(&origin("mail"), CSV).unwrap(), folder);
    assert_eq!(shop.requests(), ["GET /lab"]);
}

#[test]
fn one_object_is_brought_by_its_key() {
    let shop = Shop::new();
    shop.put("mail/a.csv", TEXT);
    let file = shop.desk.fetch(&origin("mail/a.csv"), CSV).unwrap();
    assert!(file.ends_with("files/a.csv"), "{}", file.display());
    assert_eq!(fs::read_to_string(file).unwrap(), TEXT);
}

#[test]
fn a_model_and_texts_in_folders_are_brought_from_their_prefixes() {
    let shop = Shop::new();
    for key in ["model/config.json", "model/tokenizer.json", "model/model.safetensors", "model/optimizer.pt"] {
        shop.put(key, key);
    }
    let names = |folder: &FilePath| contents(folder).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let folder = shop.desk.fetch(&origin("model/"), Wanted::Model).unwrap();
    assert_eq!(names(&folder), ["config.json", "model.safetensors", "tokenizer.json"]);
    for key in ["texts/ham/1.txt", "texts/spam/1.txt", "texts/README.txt"] {
        shop.put(key, key);
    }
    assert_eq!(names(&shop.desk.fetch(&origin("texts"), Wanted::Folders).unwrap()), ["ham/1.txt", "spam/1.txt"]);
}

#[test]
fn what_changed_or_went_since_is_brought_anew_or_removed() {
    let shop = Shop::new();
    shop.put("mail/a.csv", TEXT);
    shop.put("mail/b.csv", TEXT);
    let folder = shop.desk.fetch(&origin("mail"), CSV).unwrap();
    shop.put("mail/a.csv", "text,label\nnew,good\n");
    fs::remove_file(shop.folder.path().join("lab/mail/b.csv")).unwrap();
    shop.requests();
    assert!(shop.desk.fetch(&origin("mail"), CSV).unwrap().ends_with("files/a.csv"));
    assert_eq!(contents(&folder), [("a.csv".to_owned(), "text,label\nnew,good\n".to_owned())]);
    assert_eq!(shop.requests(), ["GET /lab", "GET /lab/mail/a.csv"]);
}

#[test]
fn an_object_that_changes_under_a_read_is_refused() {
    let shop = Shop::with(|bucket, request| {
        if request == "GET /lab/mail/a.csv" {
            put(bucket, "mail/a.csv", "text,label\nsomebody,wrote\n");
        }
    });
    shop.put("mail/a.csv", TEXT);
    assert_eq!(
        shop.desk.error(&origin("mail"), CSV),
        "s3://lab/mail/a.csv changed while it was read; run again once nobody writes to it"
    );
}

#[test]
fn a_download_that_broke_off_goes_on_unless_the_object_is_another_now() {
    for (now, served) in [(TEXT, "GET /lab/mail/a.csv bytes=7-"), ("text,label\nlonger,bad\n", "GET /lab/mail/a.csv")] {
        let shop = Shop::new();
        shop.put("mail/a.csv", TEXT);
        let (store, events) = (store("mail/a.csv"), Events::silent());
        let errand = Errand { cache: shop.desk.cache.path(), access: &shop.desk.access, events: &events };
        {
            // What a process that was killed leaves.
            let objects = Objects::new(&store, &shop.desk.access).unwrap();
            let listed = block_on(objects.list()).unwrap();
            let item = choose(&listed, CSV).unwrap().items.remove(0);
            let ask = Ask { from: 0, part: &Version::default(), known: None };
            let Ok(Answer::Content { version, .. }) = block_on(objects.open(&item, &ask)) else { panic!("no content") };
            let hold = hold(&store, CSV, &errand).unwrap();
            hold.part("a.csv").begin(&version).unwrap().write_all(&TEXT.as_bytes()[..7]).unwrap();
        }
        if now != TEXT {
            shop.put("mail/a.csv", now);
        }
        shop.requests();
        let file = shop.desk.fetch(&Origin::S3(Box::new(store)), CSV).unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), now);
        assert_eq!(shop.requests(), ["GET /lab", served, "HEAD /lab/mail/a.csv"]);
    }
}

#[test]
fn without_a_right_key_it_is_said_how_to_give_one() {
    let mut shop = Shop::new();
    shop.put("mail/a.csv", TEXT);
    shop.desk.access.s3.retain(|(name, _)| name != "aws_secret_access_key");
    shop.desk.access.s3.push(("aws_secret_access_key".to_owned(), "wrong".to_owned()));
    for key in ["mail", "mail/a.csv"] {
        let told = shop.desk.error(&origin(key), CSV);
        assert!(told.starts_with(&format!("s3://lab/{key} may not be read: set AWS_ACCESS_KEY_ID and ")), "{told}");
        assert!(!told.contains("wrong"), "{told}");
    }
    assert_eq!(shop.desk.pauses.lock().unwrap().len(), 0);
}

#[test]
fn what_is_not_there_is_named() {
    let shop = Shop::new();
    let told = shop.desk.error(&origin("mail/"), CSV);
    assert!(told.starts_with("s3://lab/mail/ is not there: check the bucket lab, the key, and the endpoint"), "{told}");
    assert!(shop.desk.error(&origin("mail.csv"), CSV).starts_with("s3://lab/mail.csv is not there"), "{told}");
    let other = Store { bucket: "nowhere".to_owned(), ..store("mail") };
    let told = shop.desk.error(&Origin::S3(Box::new(other)), CSV);
    assert!(told.starts_with("s3://nowhere/mail is not there: check the bucket nowhere"), "{told}");
}

#[test]
fn the_specs_endpoint_counts_before_the_environments() {
    let mut shop = Shop::new();
    shop.put("a.csv", TEXT);
    let endpoint = Some(format!("http://{}", shop.address));
    for (_, value) in shop.desk.access.s3.iter_mut().filter(|(name, _)| name == "aws_endpoint_url") {
        *value = "http://127.0.0.1:1".to_owned();
    }
    let store = Store { endpoint, region: Some("eu-central-1".to_owned()), ..store("") };
    assert!(shop.desk.fetch(&Origin::S3(Box::new(store)), CSV).unwrap().ends_with("files/a.csv"));
}

#[test]
fn a_store_that_is_away_is_given_up_at_once_where_all_of_it_was_brought_before() {
    let shop = Shop::new();
    shop.put("a.csv", TEXT);
    let file = shop.desk.fetch(&origin("a.csv"), CSV).unwrap();
    let Shop { desk, runtime, .. } = shop;
    drop(runtime);
    assert_eq!(desk.fetch(&origin("a.csv"), CSV).unwrap(), file);
    let notes = desk.notes.lock().unwrap().join("\n");
    assert!(notes.starts_with("s3://lab/a.csv cannot be reached: "), "{notes}");
    assert_eq!(desk.pauses.lock().unwrap().len(), 0);
    let told = desk.error(&origin("b.csv"), CSV);
    assert!(told.starts_with("s3://lab/b.csv cannot be reached: "), "{told}");
    assert_eq!(desk.pauses.lock().unwrap().len(), 5);
}

/// Files of this machine with their names in the store.
fn files<'a>(folder: &FilePath, named: &[(&str, &'a FilePath)]) -> Vec<(String, &'a FilePath)> {
    named
        .iter()
        .map(|(name, path)| ((*name).to_owned(), *path))
        .inspect(|(_, path)| assert!(path.starts_with(folder)))
        .collect()
}

#[test]
fn results_are_put_below_a_prefix_in_their_order_large_ones_in_parts() {
    let (shop, here) = (Shop::new(), TempDir::new().unwrap());
    let (small, large) = (here.path().join("results.json"), here.path().join("weights"));
    fs::write(&small, "{}").unwrap();
    let content: Vec<u8> = (0..(16 << 20) + 5).map(|index: u32| (index % 251) as u8).collect();
    fs::write(&large, &content).unwrap();
    let files = files(here.path(), &[("adapter/weights", &large), ("results.json", &small)]);
    block_on(upload(&store("runs/mail/"), &shop.desk.access, &files)).unwrap();
    let bucket = shop.folder.path().join("lab/runs/mail");
    assert!(fs::read(bucket.join("adapter/weights")).unwrap() == content, "the parts are put together");
    assert_eq!(fs::read_to_string(bucket.join("results.json")).unwrap(), "{}");
    assert_eq!(shop.log.lock().unwrap().last().unwrap(), "PUT /lab/runs/mail/results.json");
    assert_eq!(shop.requests().iter().filter(|request| request.starts_with("PUT")).count(), 3);
}

#[test]
fn who_may_not_write_is_told_which_keys_are_asked_for() {
    let (mut shop, here) = (Shop::new(), TempDir::new().unwrap());
    let file = here.path().join("results.json");
    fs::write(&file, "{}").unwrap();
    let wrong = ("FEDTUNE_OUTPUT_AWS_SECRET_ACCESS_KEY".to_owned(), "another".to_owned());
    shop.desk.access.s3_output = Access::of([wrong]).s3_output;
    let files = files(here.path(), &[("results.json", &file)]);
    let told = block_on(upload(&store(""), &shop.desk.access.of_output(), &files)).unwrap_err().to_string();
    assert!(told.starts_with("s3://lab/results.json may not be written: set AWS_ACCESS_KEY_ID and"), "{told}");
    block_on(upload(&store(""), &shop.desk.access, &files)).unwrap();
    assert!(shop.folder.path().join("lab/results.json").is_file());
}
