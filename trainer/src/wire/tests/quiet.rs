//! Sessions on which nothing is said for long, seen from a relay between the two: it sees probes answered, and can stop.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

use super::*;

/// A connection that is probed all the time, and lost only if nobody ever answers.
const PROBED: KeepAlive = KeepAlive { every: Duration::from_millis(10), within: PATIENCE };

/// Answered probes of each side before a quiet session goes on.
const PROBES: usize = 20;

/// What a client sends before its first HTTP/2 frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Type and flags of the HTTP/2 frame that answers a probe (RFC 9113, 6.7).
const ANSWER: [u8; 2] = [6, 1];

/// Which side answered a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// Passes HTTP/2 frames on between one client and the server, until it is told to stand still.
struct Relay {
    address: SocketAddr,
    answers: Receiver<Side>,
    stands_still: Arc<AtomicBool>,
    /// Dropped with it: then also what stands still ends.
    _alive: [Sender<()>; 2],
}

/// What a direction of the relay tells, and what it is told.
struct Orders {
    side: Side,
    answered: Sender<Side>,
    stands_still: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl Relay {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(ANY_PORT).unwrap();
        let address = listener.local_addr().unwrap();
        let (answered, answers) = channel();
        let stands_still = Arc::new(AtomicBool::new(false));
        let orders = |side| {
            let (alive, ended) = channel();
            let (answered, stands_still) = (answered.clone(), Arc::clone(&stands_still));
            (alive, Orders { side, answered, stands_still, ended })
        };
        let ((up_alive, up), (down_alive, down)) = (orders(Side::Client), orders(Side::Server));
        thread::spawn(move || {
            let (client, server) = (listener.accept().unwrap().0, TcpStream::connect(server).unwrap());
            let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || pass_on(from_server, to_client, &down));
            pass_on(client, server, &up);
        });
        Self { address, answers, stands_still, _alive: [up_alive, down_alive] }
    }

    /// Waits until each side has answered so many more probes.
    fn wait_for_answers(&self, count: usize) {
        let (mut of_client, mut of_server) = (0, 0);
        while of_client < count || of_server < count {
            match self.answers.recv_timeout(PATIENCE).expect("both sides are probed and answer") {
                Side::Client => of_client += 1,
                Side::Server => of_server += 1,
            }
        }
    }

    /// Passes nothing on any more, and keeps the connections: as if each side saw the other frozen.
    fn stand_still(&self) {
        self.stands_still.store(true, Ordering::SeqCst);
    }
}

/// Passes on frame after frame, until one side hangs up.
fn pass_on(mut from: TcpStream, mut to: TcpStream, orders: &Orders) {
    if orders.side == Side::Client {
        let mut preface = [0; PREFACE.len()];
        from.read_exact(&mut preface).unwrap();
        assert_eq!(preface, PREFACE);
        to.write_all(&preface).unwrap();
    }
    let mut head = [0; 9];
    while from.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut frame = head.to_vec();
        let body = (&mut from).take(length.into()).read_to_end(&mut frame);
        if orders.stands_still.load(Ordering::SeqCst) {
            // Neither connection is closed before the relay is dropped.
            let _ = orders.ended.recv();
            return;
        }
        if body.is_err() || to.write_all(&frame).is_err() {
            return;
        }
        if head[3..5] == ANSWER {
            // A test that is over counts no more.
            let _ = orders.answered.send(orders.side);
        }
    }
    // One that hung up first needs no word of it.
    let _ = to.shutdown(Shutdown::Both);
}

/// A session through a relay, in which both sides probe.
fn quiet_session(runtime: &Runtime, keep_alive: KeepAlive) -> (Listener, Relay, Link, Link) {
    let options = ListenOptions { keep_alive, ..terms().into() };
    let mut listener = Listener::bind(ANY_PORT, options, runtime.handle()).unwrap();
    let relay = Relay::to(listener.local_addr());
    let options = ConnectOptions { keep_alive, ..ConnectOptions::plain(terms(), runtime.handle()) };
    let mut client = connect(&url(relay.address), &options).unwrap();
    client.send(join("silo/0")).unwrap();
    let server = accept(&mut listener).link;
    (listener, relay, client, server)
}

#[test]
fn a_session_on_which_nothing_is_said_for_many_probes_is_kept_and_delivers_what_comes_next() {
    let runtime = runtime().unwrap();
    let (_listener, relay, mut client, mut server) = quiet_session(&runtime, PROBED);
    // This thread is both sides' model thread, and is in neither link meanwhile.
    relay.wait_for_answers(PROBES);
    let upload = Message { tensors: adapter(1.0), ..Message::new(Subject::Upload, 1) };
    client.send(upload.clone()).unwrap();
    assert_eq!(server.receive(), Ok(upload));
    relay.wait_for_answers(PROBES);
    let begin = Message { tensors: adapter(2.0), ..Message::new(Subject::Begin, 2) };
    server.send(begin.clone()).unwrap();
    assert_eq!(client.receive(), Ok(begin));
}

#[test]
fn a_session_whose_reader_is_busy_while_a_message_waits_is_kept_and_the_message_arrives_whole() {
    let runtime = runtime().unwrap();
    let (_listener, relay, mut client, mut server) = quiet_session(&runtime, PROBED);
    // More than a connection takes ahead of its reader, so that its sender has to wait.
    let message = large(48);
    client.limits().set(Limits { payload_bytes: 48 << 20, ..terms().limits });
    let sending = thread::spawn({
        let message = message.clone();
        move || server.send(message).map(|()| server)
    });
    relay.wait_for_answers(PROBES);
    assert!(!sending.is_finished(), "48 MiB are on their way to one who reads nothing");
    assert_eq!(client.receive(), Ok(message));
    assert!(sending.join().unwrap().is_ok());
}

#[test]
fn a_peer_that_answers_no_probe_is_gone_for_both_sides() {
    let runtime = runtime().unwrap();
    let keep_alive = KeepAlive { within: Duration::from_secs(3), ..PROBED };
    let (_listener, relay, mut client, mut server) = quiet_session(&runtime, keep_alive);
    relay.wait_for_answers(1);
    relay.stand_still();
    let noticing = thread::spawn(move || server.receive());
    // Each side waits for the other's word, and finds out by itself.
    for error in [client.receive().unwrap_err(), noticing.join().unwrap().unwrap_err()] {
        assert!(matches!(error, LinkError::Closed { .. }), "it should be a lost connection: {error}");
    }
}
