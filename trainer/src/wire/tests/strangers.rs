//! Connections that come to nothing: silent, slow, greedy. None of them keeps an honest client out.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
};

use tokio_stream::pending;
use tonic::Code;

use super::*;
use crate::{
    client::{Dial, dialer::Dialer},
    protocol::{Frame, federation_client::FederationClient},
};

const SOON: Duration = Duration::from_millis(200);

/// A server at which one has to join soon, with few places for those that have not.
fn hasty(runtime: &Runtime, office: Option<&Office>) -> Listener {
    let identity = office.map(Office::server);
    let options = ListenOptions { identity, join_within: SOON, strangers: 16, ..terms().into() };
    Listener::bind(ANY_PORT, options, runtime.handle()).unwrap()
}

/// Waits until the server closes the connection, and reads nothing that means something meanwhile.
fn wait_for_end(mut stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the connection is still open"),
            // A connection may be reset as well as closed.
            Err(_) => return,
        }
    }
}

#[test]
fn ten_thousand_connections_that_say_nothing_do_not_keep_a_client_out() {
    const WAVES: usize = 100;
    const WAVE: usize = 100;
    let runtime = runtime().unwrap();
    let mut listener = hasty(&runtime, None);
    let address = listener.local_addr();
    let wave = || (0..WAVE).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>();
    // All places are taken before the client comes, and taken again as they become free.
    let mut silent = wave();
    thread::scope(|scope| {
        let options = options(&runtime);
        let client = scope.spawn(move || {
            // All places may be taken when it comes.
            let mut link = Dialer::new(&url(address), options, PATIENCE, 1).open(None).unwrap();
            link.send(join("silo/0")).unwrap();
            link.receive().unwrap()
        });
        let listener = &mut listener;
        scope.spawn(move || {
            let mut arrival = accept(listener);
            arrival.link.count_into(&Ledger::new(), "silo/0");
            arrival.link.send(Message::new(Subject::Welcome, 0)).unwrap();
            assert!(matches!(arrival.link.receive(), Err(LinkError::Closed { .. })));
        });
        for _ in 1..WAVES {
            let next = wave();
            silent = next;
        }
        assert_eq!(client.join().unwrap(), Message::new(Subject::Welcome, 0));
    });
    silent.iter().for_each(wait_for_end);
}

/// HTTP/2 that is right and never asks for anything: a preface, settings, and pings for ever.
fn endless_http2() -> impl Iterator<Item = u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied().chain(SETTINGS).chain(PING.into_iter().cycle())
}

/// Sends byte after byte until the server closes the connection.
fn dribble(address: SocketAddr, bytes: impl Iterator<Item = u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    for byte in bytes {
        if stream.write_all(&[byte]).is_err() {
            return;
        }
        match stream.read(&mut [0; 64]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        assert!(Instant::now() < deadline, "the connection is still open");
    }
    wait_for_end(&stream);
}

#[test]
fn a_connection_that_dribbles_is_closed() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let plain = hasty(&runtime, None);
    dribble(plain.local_addr(), endless_http2());
    let tls = hasty(&runtime, Some(&office));
    // The beginning of a handshake record of 16 KiB.
    dribble(tls.local_addr(), [0x16, 3, 1, 0x40, 0].into_iter().chain([1, 0, 0x3f, 0]).chain(std::iter::repeat(0)));
    // One that begins a handshake and then says nothing.
    let mut silent = TcpStream::connect(tls.local_addr()).unwrap();
    silent.write_all(&[0x16, 3, 1]).unwrap();
    wait_for_end(&silent);
}

#[test]
fn a_session_without_a_join_is_told_and_its_connection_closed() {
    let runtime = runtime().unwrap();
    let listener = hasty(&runtime, None);
    let status = runtime.block_on(async {
        let mut client = FederationClient::connect(url(listener.local_addr())).await.unwrap();
        let mut answers = client.session(pending::<Frame>()).await.unwrap().into_inner();
        answers.message().await.unwrap_err()
    });
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "no join came in time"));
}

#[test]
fn a_connection_has_one_session() {
    let runtime = runtime().unwrap();
    let listener = listen(&runtime);
    let status = runtime.block_on(async {
        let mut client = FederationClient::connect(url(listener.local_addr())).await.unwrap();
        let _first = client.session(pending::<Frame>()).await.unwrap();
        client.session(pending::<Frame>()).await.unwrap_err()
    });
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "this connection has had its session; open another connection");
}
