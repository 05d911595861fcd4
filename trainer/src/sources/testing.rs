//! What the tests of this folder share: a server that answers as a test says and breaks off where it says, access
//! without real pauses, a listener.
//! Must not be part of the program.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Access, Fetcher, Origin, SourceError, Wanted};
use crate::events::{Event, Events};

/// Runs a future to its end.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Pauses that were made.
pub(super) type Pauses = Arc<Mutex<Vec<Duration>>>;

/// Access that makes its pauses at once, and the pauses.
pub(super) fn patient() -> (Access, Pauses) {
    let pauses = Pauses::default();
    let kept = Arc::clone(&pauses);
    let mut access = Access::of([]);
    access.pause = Arc::new(move |length| {
        kept.lock().unwrap().push(length);
        Box::pin(std::future::ready(()))
    });
    (access, pauses)
}

/// Events, and the notes among what they were told.
pub(super) fn noted() -> (Events, Arc<Mutex<Vec<String>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&notes);
    let listener = move |event| {
        if let Event::Note { text } = event {
            kept.lock().unwrap().push(text);
        }
    };
    (Events::to(listener), notes)
}

/// A cache, and access to what a test serves.
pub(super) struct Desk {
    pub(super) cache: tempfile::TempDir,
    pub(super) access: Access,
    pub(super) pauses: Pauses,
    pub(super) notes: Arc<Mutex<Vec<String>>>,
    events: Events,
}

impl Desk {
    pub(super) fn new() -> Self {
        let (access, pauses) = patient();
        let (events, notes) = noted();
        Self { cache: tempfile::tempdir().unwrap(), access, pauses, notes, events }
    }

    /// Fetches as a program that was started anew does: nothing is known but the cache.
    pub(super) fn fetch(&self, origin: &Origin, wanted: Wanted) -> Result<PathBuf, SourceError> {
        let cache = Some(self.cache.path().to_owned());
        Fetcher::new(cache, self.access.clone(), self.events.clone()).fetch(origin, wanted)
    }

    /// The sentence of a fetch that fails.
    pub(super) fn error(&self, origin: &Origin, wanted: Wanted) -> String {
        self.fetch(origin, wanted).unwrap_err().to_string()
    }
}

/// Names from `folder` on and contents of all files below it, sorted.
pub(super) fn contents(folder: &Path) -> Vec<(String, String)> {
    fn collect(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    collect(folder, folder, &mut found);
    found.sort();
    found
}

/// A request that came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Path and query.
    pub(super) target: String,
    /// Names in small letters.
    pub(super) headers: HashMap<String, String>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// After so many bytes of the body the connection is closed.
    pub(super) cut: Option<usize>,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(super) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn cut(self, after: usize) -> Self {
        Self { cut: Some(after), ..self }
    }

    /// A file server's answer: ranges with `If-Range`, `If-None-Match`, the tag (RFC 9110, 13 and 14).
    pub(super) fn file(request: &Request, content: &str, etag: &str) -> Self {
        if request.header("if-none-match") == Some(etag) {
            return Self::status(304).header("ETag", etag);
        }
        let from =
            request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let valid = request.header("if-range").is_none_or(|guard| guard == etag);
        let whole = Self::body(content).header("ETag", etag);
        match from.filter(|_| valid) {
            None => whole,
            Some(from) if from >= content.len() => Self::status(416),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
                let body = content.as_bytes()[from..].to_vec();
                Self { status: 206, body, ..whole }.header("Content-Range", range)
            }
        }
    }
}

/// A server on loopback that answers each request as it is told; gone with its owner.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    listening: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Plain HTTP.
    pub(super) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(answer, |stream| Ok(Box::new(stream)))
    }

    /// HTTP over what `wrap` makes of a connection.
    pub(super) fn start_with(
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        wrap: impl Fn(TcpStream) -> io::Result<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stopped) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (kept, over) = (Arc::clone(&requests), Arc::clone(&stopped));
        let serve = Arc::new((answer, wrap));
        let listening = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (serve, kept, stream) = (Arc::clone(&serve), Arc::clone(&kept), stream.unwrap());
                // One that breaks off is the client's business.
                thread::spawn(move || serve.1(stream).and_then(|stream| answer_one(stream, &serve.0, &kept)));
            }
        });
        Self { address, requests, stopped, listening: Some(listening) }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests so far, which are forgotten.
    pub(super) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// Paths of all requests so far, which are forgotten, sorted.
    pub(super) fn targets(&self) -> Vec<String> {
        let mut targets: Vec<String> = self.requests().into_iter().map(|request| request.target).collect();
        targets.sort();
        targets
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
        let _ = self.listening.take().map(thread::JoinHandle::join);
    }
}

/// A connection.
pub(super) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

fn answer_one(
    mut stream: Box<dyn Stream>,
    answer: &impl Fn(&Request) -> Reply,
    requests: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let request = read_request(&mut stream)?;
    requests.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    write!(stream, "HTTP/1.1 {} x\r\nContent-Length: {}\r\nConnection: close\r\n", reply.status, reply.body.len())?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
    stream.flush()
}

fn read_request(stream: &mut Box<dyn Stream>) -> io::Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Request { target, headers })
}
