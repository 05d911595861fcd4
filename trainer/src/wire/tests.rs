//! Real sessions over loopback, with a thread for each side.

use std::{
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use fedtune_crds::report::{Direction, PayloadKind};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use tokio::runtime::Runtime;

use super::{
    client::{ConnectError, ConnectOptions, connect},
    server::{Arrival, ListenOptions, Listener},
    *,
};
use crate::{identity::testing::Office, rounds::Exchange};

mod quiet;
mod strangers;

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(30);

fn terms() -> Terms {
    Terms { run: "run-a".to_owned(), limits: Limits { tensors: 64, payload_bytes: 16 << 20 } }
}

fn listen(runtime: &Runtime) -> Listener {
    Listener::bind(ANY_PORT, terms(), runtime.handle()).unwrap()
}

fn listen_with(runtime: &Runtime, office: &Office) -> Listener {
    let options = ListenOptions { identity: Some(office.server()), ..terms().into() };
    Listener::bind(ANY_PORT, options, runtime.handle()).unwrap()
}

fn options(runtime: &Runtime) -> ConnectOptions {
    ConnectOptions::plain(terms(), runtime.handle())
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn join(client: &str) -> Message {
    Message { fields: json!({ "client": client }), ..Message::new(Subject::Join, 0) }
}

fn accept(listener: &mut Listener) -> Arrival {
    let arrival = listener.accept_until(Instant::now() + PATIENCE).expect("the client joins");
    arrival.link.limits().set(terms().limits);
    arrival
}

/// A client's link and the server's, of a session whose join was taken.
fn session(runtime: &Runtime) -> (Listener, Link, Link) {
    let mut listener = listen(runtime);
    let mut client = connect(&url(listener.local_addr()), &options(runtime)).unwrap();
    client.send(join("silo/0")).unwrap();
    let server = accept(&mut listener).link;
    (listener, client, server)
}

// The adapter of MiniLM, r = 8 on query and value, with a head of 77 classes: 413,492 bytes of F32 in all.
fn adapter(value: f64) -> Vec<WireTensor> {
    let tensor = |name: String, kind, shape: &[i64]| {
        let tensor = Tensor::full(shape, value, (Kind::Float, Device::Cpu));
        WireTensor::from_tensor(name, kind, &tensor, Element::F32).unwrap()
    };
    let layers = (0..6).flat_map(|layer| ["query", "value"].map(|module| format!("layer.{layer}.{module}")));
    let mut tensors: Vec<_> = layers
        .flat_map(|module| [(format!("{module}.lora_A"), [8, 384]), (format!("{module}.lora_B"), [384, 8])])
        .map(|(name, shape)| tensor(name, PayloadKind::Adapter, &shape))
        .collect();
    tensors.push(tensor("classifier.weight".to_owned(), PayloadKind::Head, &[77, 384]));
    tensors.push(tensor("classifier.bias".to_owned(), PayloadKind::Head, &[77]));
    tensors
}

/// An upload of `mebibytes` that differ from their neighbours.
fn large(mebibytes: usize) -> Message {
    let bytes: bytes::Bytes = (0..=255).collect::<Vec<u8>>().repeat(mebibytes << 12).into();
    let shape = vec![bytes.len() as i64];
    let tensor = WireTensor { name: "t".into(), kind: PayloadKind::Logits, element: Element::U8, shape, bytes };
    Message { tensors: vec![tensor], ..Message::new(Subject::Upload, 1) }
}

#[test]
fn two_clients_exchange_adapters_and_every_byte_is_accounted_for() {
    let runtime = runtime().unwrap();
    let listener = listen(&runtime);
    let address = url(listener.local_addr());
    exchange_adapters(listener, &address, &options(&runtime), 1.02);
}

#[test]
fn two_clients_exchange_adapters_by_tls_and_every_byte_is_accounted_for() {
    let (runtime, office) = (runtime().unwrap(), Office::new());
    let listener = listen_with(&runtime, &office);
    let address = format!("https://{}", listener.local_addr());
    let options = ConnectOptions { identity: Some(office.client("silo")), ..options(&runtime) };
    exchange_adapters(listener, &address, &options, 1.02);
}

/// One round of two clients at `address`; wire by payload stays below `most`.
fn exchange_adapters(mut listener: Listener, address: &str, options: &ConnectOptions, most: f64) {
    let ledger = Ledger::new();
    thread::scope(|scope| {
        for index in 0..2 {
            scope.spawn(move || train_one_round(address, options, index));
        }
        for _ in 0..2 {
            let arrival = accept(&mut listener);
            let client = arrival.join.fields["client"].as_str().unwrap().to_owned();
            let ledger = &ledger;
            scope.spawn(move || serve_one_round(arrival.link, ledger, &client));
        }
    });
    let counts = ledger.round(1);
    // Two clients, two directions, adapter and head.
    assert_eq!(counts.len(), 8);
    for client in ["silo/0", "silo/1"] {
        for direction in [Direction::Up, Direction::Down] {
            let of_it =
                |count: &&fedtune_crds::report::ByteCount| count.client == client && count.direction == direction;
            let payload: u64 = counts.iter().filter(of_it).map(|count| count.payload).sum();
            let wire: u64 = counts.iter().filter(of_it).map(|count| count.wire).sum();
            // 12 modules of 2 x 8 x 384 numbers, a head of 77 x 384 + 77.
            assert_eq!(payload, 413_492);
            let overhead = wire as f64 / payload as f64;
            println!("{client} {direction:?}: {wire} bytes by wire, {overhead:.4} of its payload");
            assert!((1.0..most).contains(&overhead), "{client} {direction:?}: wire/payload is {overhead}");
        }
    }
    assert_eq!(ledger.total().payload.sum(), 4 * 413_492);
    let wire: u64 = counts.iter().map(|count| count.wire).sum();
    let total = ledger.total().wire.sum();
    // What belongs to no round: connections, joins, and where there is TLS, handshakes.
    assert!(wire < total && total < wire + 12_288, "the rounds have {wire} of {total} bytes");
    listener.shutdown(PATIENCE);
}

fn train_one_round(address: &str, options: &ConnectOptions, index: u32) {
    let mut link = connect(address, options).unwrap();
    link.send(join(&format!("silo/{index}"))).unwrap();
    let begin = link.receive().unwrap();
    assert_eq!((begin.subject, begin.round, &begin.tensors), (Subject::Begin, 1, &adapter(0.5)));
    let tensors = adapter(f64::from(index));
    link.send(Message { tensors, attempt: begin.attempt, ..Message::new(Subject::Upload, 1) }).unwrap();
    assert_eq!(link.receive().unwrap(), Message::new(Subject::Finish, 1));
}

fn serve_one_round(mut link: Link, ledger: &Ledger, client: &str) {
    link.count_into(ledger, client);
    link.send(Message { tensors: adapter(0.5), attempt: 1, ..Message::new(Subject::Begin, 1) }).unwrap();
    let upload = link.receive().unwrap();
    ledger.count(client, Direction::Up, &upload);
    ledger.settle(client, Exchange { round: 1, index: 0 }, 1);
    let index = client.strip_prefix("silo/").unwrap().parse().unwrap();
    assert_eq!((upload.subject, upload.tensors), (Subject::Upload, adapter(index)));
    link.send(Message::new(Subject::Finish, 1)).unwrap();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let runtime = runtime().unwrap();
    let free = TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
    assert_eq!(
        connect(&url(free), &options(&runtime)).unwrap_err().to_string(),
        format!("no server answers at http://{free}: Connection refused (os error 111)")
    );
}

#[test]
fn an_address_that_is_none_is_refused_at_once() {
    let runtime = runtime().unwrap();
    for odd in ["", "localhost", "http://localhost", "ftp://localhost:7443", "http://a b:1"] {
        let error = connect(odd, &options(&runtime)).unwrap_err();
        assert_eq!(error, ConnectError::Address { url: odd.to_owned(), scheme: "http" });
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let runtime = runtime().unwrap();
    let other = TcpListener::bind(ANY_PORT).unwrap();
    let address = other.local_addr().unwrap();
    assert_eq!(
        Listener::bind(address, terms(), runtime.handle()).unwrap_err().to_string(),
        format!("port {} on 127.0.0.1 is taken: stop the program that uses it, or choose another port", address.port())
    );
}

#[test]
fn a_client_of_another_run_is_told_and_the_next_one_is_served() {
    let runtime = runtime().unwrap();
    let mut listener = listen(&runtime);
    let stranger = ConnectOptions { terms: Terms { run: "run-b".into(), ..terms() }, ..options(&runtime) };
    let mut link = connect(&url(listener.local_addr()), &stranger).unwrap();
    link.send(join("silo/0")).unwrap();
    let LinkError::Rejected { reason } = link.receive().unwrap_err() else { panic!("it should be refused") };
    assert!(reason.starts_with("the message belongs to run \"run-b\", this is run \"run-a\"; spec, "), "{reason}");
    let mut next = connect(&url(listener.local_addr()), &options(&runtime)).unwrap();
    next.send(join("silo/1")).unwrap();
    assert_eq!(accept(&mut listener).join, join("silo/1"));
}

#[test]
fn a_client_that_does_not_say_who_it_is_is_told() {
    let runtime = runtime().unwrap();
    let listener = listen(&runtime);
    let mut rude = connect(&url(listener.local_addr()), &options(&runtime)).unwrap();
    rude.send(Message::new(Subject::Upload, 1)).unwrap();
    let reason = "upload came where join was expected".to_owned();
    assert_eq!(rude.receive().unwrap_err(), LinkError::Rejected { reason });
    let mut heavy = connect(&url(listener.local_addr()), &options(&runtime)).unwrap();
    heavy.send(Message { tensors: adapter(0.0), ..join("silo/0") }).unwrap();
    let reason = "the message announces 26 tensors, at most 0 are allowed here".to_owned();
    assert_eq!(heavy.receive().unwrap_err(), LinkError::Rejected { reason });
}

#[test]
fn a_client_that_sends_too_much_is_told_even_while_it_sends() {
    let runtime = runtime().unwrap();
    let (_listener, mut client, mut server) = session(&runtime);
    let sending = thread::spawn(move || client.send(large(64)));
    let error = WireError::TooManyBytes { allowed: 16 << 20 };
    assert_eq!(server.receive().unwrap_err(), LinkError::Refused(error.clone()));
    assert_eq!(sending.join().unwrap().unwrap_err(), LinkError::Rejected { reason: error.to_string() });
}

#[test]
fn what_was_sent_arrives_though_the_sender_has_left() {
    let runtime = runtime().unwrap();
    let message = large(12);
    let (listener, mut client, mut server) = session(&runtime);
    let sending = thread::spawn({
        let message = message.clone();
        move || server.send(message)
    });
    assert_eq!(client.receive().unwrap(), message);
    sending.join().unwrap().unwrap();
    assert_eq!(client.receive().unwrap_err().to_string(), "the session is closed: the other side ended it");
    drop(client);
    listener.shutdown(PATIENCE);

    let (_listener, mut client, mut server) = session(&runtime);
    let sending = thread::spawn({
        let message = message.clone();
        move || client.send(message)
    });
    assert_eq!(server.receive().unwrap(), message);
    sending.join().unwrap().unwrap();
    assert_eq!(server.receive().unwrap_err().to_string(), "the session is closed: the other side ended it");
}

#[test]
fn a_server_that_dies_is_noticed() {
    let servers = runtime().unwrap();
    let clients = runtime().unwrap();
    let mut listener = listen(&servers);
    let mut client = connect(&url(listener.local_addr()), &options(&clients)).unwrap();
    client.send(join("silo/0")).unwrap();
    let server = accept(&mut listener);
    servers.shutdown_timeout(PATIENCE);
    assert!(matches!(client.receive(), Err(LinkError::Closed { .. })));
    drop(server);
}
