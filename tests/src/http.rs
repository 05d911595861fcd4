//! One GET over plain HTTP/1.
//! Must not follow, keep or decode anything: what is tested is what was sent.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// What any one answer may take: longer than the longest poll.
const LIMIT: Duration = Duration::from_secs(120);

/// Status code and body of the answer of `address` to a GET of `path`.
pub fn get(address: &str, path: &str) -> (u16, String) {
    ask(address, path, "1.1")
}

/// The same by HTTP/1.0, in which a long answer comes in one piece too.
pub fn get_whole(address: &str, path: &str) -> (u16, String) {
    ask(address, path, "1.0")
}

fn ask(address: &str, path: &str, version: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address} does not answer: {error}"));
    stream.set_read_timeout(Some(LIMIT)).expect("a limit may be set");
    write!(stream, "GET {path} HTTP/{version}\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("a request can be sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{path} of {address} breaks off: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head and a body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an answer has a status code");
    (code, body.to_owned())
}
