//! Servers on loopback that the program fetches from: one that serves files over HTTP, and an S3 store.
//! Must not know what is in the files.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::runtime::{Builder, Runtime};

/// Serves the files of a folder, each with a tag that is its length; gone when it is dropped.
#[derive(Debug)]
pub struct FileServer {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl FileServer {
    /// Serves what is in `folder`.
    pub fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let stopped = Arc::new(AtomicBool::new(false));
        let (folder, over) = (folder.to_owned(), Arc::clone(&stopped));
        let listening = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                // A client that goes away is its own business.
                let _ = stream.and_then(|stream| answer(stream, &folder));
            }
        });
        Self { address, stopped, listening: Some(listening) }
    }

    /// The address of a file.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }
}

impl Drop for FileServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let name = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let Ok(content) = fs::read(folder.join(name)) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let tag = format!("\"{}\"", content.len());
    let known = headers.iter().any(|line| line.eq_ignore_ascii_case(&format!("if-none-match: {tag}")));
    let (status, body) = if known { ("304 Not Modified", &[][..]) } else { ("200 OK", &content[..]) };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nETag: {tag}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(body)
}

/// An S3 store that keeps objects as files: each folder of its own folder is a bucket. Gone when it is dropped.
#[derive(Debug)]
pub struct Store {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Store {
    /// The key that its one user signs with: id and secret.
    pub const KEY: (&str, &str) = ("key-of-the-test", "secret-of-the-test");

    /// A store of the buckets in `folder`.
    pub fn start(folder: &Path) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads can be had");
        let address = runtime.block_on(serve(folder.to_owned()));
        Self { address, _runtime: runtime }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn serve(folder: PathBuf) -> SocketAddr {
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).expect("the folder is there"));
    builder.set_auth(SimpleAuth::from_single(Store::KEY.0, Store::KEY.1));
    let service = builder.build().into_shared();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    address
}
