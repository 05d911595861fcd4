//! Telemetry as its readers see it: a status that counts its changes, metrics by name, and HTTP over real sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, UNIX_EPOCH},
};

use fedtune_crds::{
    live::{LivePhase, moment},
    report::{Direction, Flops, PayloadKind, Seconds, TokenCount, UpDown},
};
use tokio::runtime::Runtime;

use super::{http::Bounds, *};
use crate::{
    meter::Meter,
    refusal::RefusalReason,
    rounds::Exchange,
    wire::{self, Element, Message, Subject, WireTensor},
};

/// One moment: what depends on time is tested on the figures, which take it as an argument.
fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn facts() -> RunFacts {
    RunFacts {
        namespace: "lab".to_owned(),
        run: "mail-split".to_owned(),
        experiment: "mail".to_owned(),
        framework: FrameworkName::SplitFedLlm,
        rounds: 3,
        clients: vec!["silo/0".to_owned(), "silo/1".to_owned()],
        max_client_series: 100,
    }
}

fn server() -> Telemetry {
    Telemetry::new(facts(), Role::Server, noon)
}

fn client() -> Telemetry {
    Telemetry::new(facts(), Role::Client("silo/1".to_owned()), noon)
}

fn tell(telemetry: &Telemetry, events: impl IntoIterator<Item = Event>) {
    let listener = telemetry.listener();
    events.into_iter().for_each(|event| listener.tell(event));
}

fn listening() -> Event {
    Event::Listening { address: (Ipv4Addr::LOCALHOST, 7443).into() }
}

fn joined(client: &str) -> Event {
    Event::ClientJoined { client: client.to_owned(), joined: 1, of: 2 }
}

fn round_finished(round: u32, accuracy: f64, seconds: f64) -> Event {
    Event::RoundFinished { round, accuracy, loss: 0.5, payload_bytes: 1, seconds }
}

fn waiting_for(clients: &[&str]) -> Event {
    Event::WaitingFor { clients: clients.iter().map(ToString::to_string).collect() }
}

fn refused(reason: RefusalReason) -> Event {
    Event::UploadRefused { client: "silo/1".to_owned(), reason, sentence: "it is wrong".to_owned() }
}

fn finished(error: Option<&str>) -> Event {
    Event::RunFinished { run: "mail-split".to_owned(), error: error.map(str::to_owned) }
}

fn figures(client: &str, train: f64) -> Event {
    let meter = Meter {
        flops: Flops { train, public_forward: 2.0, distill: 3.0, evaluate: 4.0 },
        seconds: Seconds { compute: 0.5, encode: 0.25, network: 0.125, wait: 8.0 },
        steps: 6,
        tokens: TokenCount { real: 70, padding: 30 },
    };
    Event::ClientFigures { client: client.to_owned(), meter, peak_memory_bytes: 1 << 30 }
}

/// Two clients, one of three rounds, one refusal.
fn a_run() -> Vec<Event> {
    vec![
        listening(),
        joined("silo/0"),
        joined("silo/1"),
        Event::RoundStarted { round: 1, steps: 8 },
        waiting_for(&["silo/0", "silo/1"]),
        figures("silo/0", 10.0),
        waiting_for(&["silo/1"]),
        refused(RefusalReason::NotFinite),
        figures("silo/1", 20.0),
        waiting_for(&[]),
        round_finished(1, 0.75, 4.0),
        Event::Checkpointed { round: 1, bytes: 100 },
        Event::RoundStarted { round: 2, steps: 8 },
        waiting_for(&["silo/0", "silo/1"]),
        Event::ClientLeft { client: "silo/0".to_owned() },
    ]
}

#[test]
fn a_status_says_where_the_run_stands() {
    let telemetry = server();
    telemetry.name_run("8a", 2);
    tell(&telemetry, a_run());
    let seq = telemetry.status().seq;
    assert_eq!(
        telemetry.status(),
        LiveStatus {
            uid: "8a".to_owned(),
            epoch: 2,
            seq,
            phase: LivePhase::Running,
            round: 1,
            rounds: 3,
            clients_ready: 1,
            clients: 2,
            accuracy: Some(0.75),
            loss: Some(0.5),
            payload_bytes: 0,
            payload: UpDown::default(),
            wire: UpDown::default(),
            client_flops: 40.0,
            client_seconds: 1.0,
            eta_seconds: Some(8.0),
            waiting_for: vec!["silo/0".to_owned(), "silo/1".to_owned()],
            since: moment(noon()),
            stop_reason: None,
            message: "round 2 of 3".to_owned(),
        }
    );
}

#[test]
fn the_phases_are_those_of_a_run() {
    let telemetry = server();
    let mut phases = vec![telemetry.status().phase];
    for event in [listening(), Event::RoundStarted { round: 1, steps: 1 }, finished(None)] {
        tell(&telemetry, [event]);
        phases.push(telemetry.status().phase);
    }
    assert_eq!(phases, [LivePhase::Starting, LivePhase::Waiting, LivePhase::Running, LivePhase::Succeeded]);
    tell(&telemetry, [finished(Some("QuorumLost: round 2 had no client"))]);
    let LiveStatus { phase, message, .. } = telemetry.status();
    assert_eq!((phase, message.as_str()), (LivePhase::Failed, "QuorumLost: round 2 had no client"));
}

#[test]
fn seq_grows_by_one_with_each_change_and_not_without_one() {
    let telemetry = server();
    let mut seen = telemetry.status();
    for event in [a_run(), vec![Event::StepFinished { worker: "server".to_owned() }, finished(None)]].concat() {
        tell(&telemetry, [event.clone()]);
        let now = telemetry.status();
        let same = LiveStatus { seq: seen.seq, ..now.clone() } == seen;
        assert_eq!(now.seq, seen.seq + u64::from(!same), "{event:?}");
        seen = now;
    }
    assert!(seen.seq > 10);
    tell(&telemetry, [finished(None)]);
    assert_eq!(telemetry.status().seq, seen.seq);
}

#[test]
fn a_loss_that_is_no_number_is_none() {
    let telemetry = server();
    let event = Event::RoundFinished { round: 1, accuracy: 0.5, loss: f64::NAN, payload_bytes: 1, seconds: 1.0 };
    tell(&telemetry, [event.clone(), event]);
    let status = telemetry.status();
    assert_eq!((status.loss, status.seq), (None, 2));
}

#[test]
fn what_is_waited_for_is_waited_for_since_it_changed() {
    let facts = facts();
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let mut figures = LiveFigures::new(at(0));
    for (event, now) in [(waiting_for(&["silo/1"]), 10), (joined("silo/1"), 20), (waiting_for(&["silo/1"]), 30)] {
        figures.take(&event, &facts, at(now));
    }
    assert_eq!(figures.since, at(10));
    figures.take(&waiting_for(&[]), &facts, at(40));
    assert_eq!(figures.since, at(40));
}

#[test]
fn sentences_of_peers_are_cut_and_only_some_clients_are_named() {
    let telemetry = server();
    let ids: Vec<String> = (0..1000).map(|index| format!("silo/{index}")).collect();
    let sentence = "ß".repeat(5000);
    let refused = Event::UploadRefused { client: "silo/1".to_owned(), reason: RefusalReason::Other, sentence };
    tell(&telemetry, [Event::WaitingFor { clients: ids }, refused]);
    let status = telemetry.status();
    assert!(status.message.len() <= 1024);
    assert_eq!(status.waiting_for.len(), LiveStatus::NAMED);
}

#[test]
fn a_finished_run_is_told_again_by_the_next_process() {
    let mut report = crate::report::samples::fedllm();
    report.phase = fedtune_crds::report::RunPhase::Succeeded;
    let telemetry = server();
    telemetry.recall(&report);
    let status = telemetry.status();
    assert_eq!((status.phase, status.uid), (LivePhase::Succeeded, report.uid));
    assert_eq!(status.accuracy, Some(report.final_figures.accuracy));
    assert_eq!(status.payload_bytes, report.totals.payload_bytes.sum());
    assert_eq!((status.payload, status.wire), (report.totals.payload_bytes, report.totals.wire_bytes));
    assert_eq!(status.client_flops.to_bits(), report.totals.client_flops.to_bits());
    assert_eq!(status.client_seconds.to_bits(), report.totals.client_seconds.to_bits());
    assert_eq!(status.stop_reason.as_deref(), Some("rounds"));
}

/// Families of a scrape: name and type.
fn families(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// The value of the series with these labels, whatever their order.
fn sample<'a>(text: &'a str, name: &str, own: &[(&str, &str)]) -> Option<&'a str> {
    let run = [("experiment", "mail"), ("framework", "Split-FedLLM"), ("namespace", "lab"), ("run", "mail-split")];
    let wanted: BTreeSet<String> =
        own.iter().chain(&run).map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    text.lines().find_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("} ")?;
        (labels.split(',').map(str::to_owned).collect::<BTreeSet<_>>() == wanted).then_some(value)
    })
}

/// An upload of so many bytes that counted in round 1.
fn upload(ledger: &Ledger, client: &str, kind: PayloadKind, length: usize) {
    let (shape, bytes) = (vec![length as i64], vec![0; length].into());
    let tensor = WireTensor { name: String::new(), kind, element: Element::U8, shape, bytes };
    let message = Message { attempt: 1, tensors: vec![tensor], ..Message::new(Subject::Upload, 1) };
    ledger.count(client, Direction::Up, &message);
    ledger.settle(client, Exchange { round: 1, index: 0 }, 1);
}

#[test]
fn a_server_exports_the_names_of_the_design_and_no_other() {
    let telemetry = server();
    let ledger = Ledger::new();
    upload(&ledger, "silo/0", PayloadKind::Activation, 7);
    telemetry.watch_ledger(&ledger);
    telemetry.watch_volume(std::env::temp_dir());
    telemetry.set_certificate_expiry(noon());
    tell(&telemetry, a_run());
    let expected = BTreeMap::from([
        ("fedtune_round", "gauge"),
        ("fedtune_rounds", "gauge"),
        ("fedtune_evaluation_accuracy_ratio", "gauge"),
        ("fedtune_evaluation_loss", "gauge"),
        ("fedtune_clients", "gauge"),
        ("fedtune_payload_bytes_total", "counter"),
        ("fedtune_wire_bytes_total", "counter"),
        ("fedtune_retransmitted_bytes_total", "counter"),
        ("fedtune_round_duration_seconds", "histogram"),
        ("fedtune_uploads_refused_total", "counter"),
        ("fedtune_checkpoint_timestamp_seconds", "gauge"),
        ("fedtune_checkpoint_volume_bytes", "gauge"),
        ("fedtune_client_failures_total", "counter"),
        ("fedtune_certificate_expiry_timestamp_seconds", "gauge"),
    ]);
    assert_eq!(families(&telemetry.metrics().unwrap()), expected);
}

#[test]
fn a_client_exports_what_it_did_itself() {
    let telemetry = client();
    tell(&telemetry, [figures("silo/1", 1e20), figures("silo/0", 5.0)]);
    let text = telemetry.metrics().unwrap();
    let expected = BTreeMap::from([
        ("fedtune_client_flops_total", "counter"),
        ("fedtune_client_seconds_total", "counter"),
        ("fedtune_client_tokens_total", "counter"),
        ("fedtune_client_peak_memory_bytes", "gauge"),
    ]);
    assert_eq!(families(&text), expected);
    let of = |name, label, value| sample(&text, name, &[("client", "silo/1"), (label, value)]);
    let flops = of("fedtune_client_flops_total", "phase", "train").unwrap();
    assert_eq!(flops.parse::<f64>().unwrap().to_bits(), 1e20_f64.to_bits());
    assert_eq!(of("fedtune_client_flops_total", "phase", "evaluate"), Some("4"));
    assert_eq!(of("fedtune_client_seconds_total", "activity", "network"), Some("0.125"));
    assert_eq!(of("fedtune_client_tokens_total", "kind", "padding"), Some("30"));
    assert!(!text.contains("silo/0"), "{text}");
}

#[test]
fn a_scrape_has_the_figures_of_the_run() {
    let telemetry = server();
    tell(&telemetry, a_run());
    let text = telemetry.metrics().unwrap();
    let of = |name, own: &[(&str, &str)]| sample(&text, name, own).map(str::to_owned);
    assert_eq!(of("fedtune_round", &[]).as_deref(), Some("1"));
    assert_eq!(of("fedtune_rounds", &[]).as_deref(), Some("3"));
    assert_eq!(of("fedtune_evaluation_accuracy_ratio", &[]).as_deref(), Some("0.75"));
    assert_eq!(of("fedtune_clients", &[("state", "ready")]).as_deref(), Some("1"));
    assert_eq!(of("fedtune_clients", &[("state", "away")]).as_deref(), Some("1"));
    assert_eq!(of("fedtune_uploads_refused_total", &[("reason", "not_finite")]).as_deref(), Some("1"));
    assert_eq!(of("fedtune_uploads_refused_total", &[("reason", "shape")]).as_deref(), Some("0"));
    assert_eq!(of("fedtune_round_duration_seconds_sum", &[]).as_deref(), Some("4"));
    assert_eq!(of("fedtune_round_duration_seconds_bucket", &[("le", "2.5")]).as_deref(), Some("0"));
    assert_eq!(of("fedtune_round_duration_seconds_bucket", &[("le", "5")]).as_deref(), Some("1"));
    assert_eq!(of("fedtune_checkpoint_timestamp_seconds", &[]).as_deref(), Some("1800000000"));
}

#[test]
fn clients_beyond_the_cap_share_one_series_and_no_byte_is_lost() {
    let facts = RunFacts {
        clients: ["silo/0", "silo/1", "silo/2"].map(str::to_owned).to_vec(),
        max_client_series: 1,
        ..facts()
    };
    let telemetry = Telemetry::new(facts, Role::Server, noon);
    let ledger = Ledger::new();
    for (client, bytes) in [("silo/0", 1), ("silo/1", 20), ("silo/2", 300)] {
        upload(&ledger, client, PayloadKind::Label, bytes);
    }
    telemetry.watch_ledger(&ledger);
    let text = telemetry.metrics().unwrap();
    let of = |client| {
        let own = [("client", client), ("direction", "up"), ("kind", "label")];
        sample(&text, "fedtune_payload_bytes_total", &own)
    };
    assert_eq!((of("silo/0"), of("other"), of("silo/1")), (Some("1"), Some("320"), None));
    assert_eq!(telemetry.status().payload_bytes, 321);
}

#[test]
fn who_waits_for_a_change_is_woken_by_it() {
    let (telemetry, runtime) = (server(), wire::runtime().unwrap());
    let waiting = {
        let telemetry = telemetry.clone();
        runtime.spawn(async move { telemetry.status_after(1, Duration::MAX).await })
    };
    tell(&telemetry, [listening()]);
    let woken = runtime.block_on(waiting).unwrap();
    assert_eq!((woken.seq, woken.phase), (2, LivePhase::Waiting));
}

#[test]
fn without_a_change_the_wait_ends_with_what_there_is() {
    let (telemetry, runtime) = (server(), wire::runtime().unwrap());
    assert_eq!(runtime.block_on(telemetry.status_after(1, Duration::ZERO)), telemetry.status());
}

#[test]
fn a_seq_of_an_earlier_process_is_answered_at_once() {
    let (telemetry, runtime) = (server(), wire::runtime().unwrap());
    assert_eq!(runtime.block_on(telemetry.status_after(57, Duration::MAX)).seq, 1);
}

/// Bounds so short that a test need not wait for them.
const SHORT: Bounds = Bounds {
    connections: 2,
    head_within: Duration::from_millis(20),
    connection_within: Duration::from_secs(60),
    longest_wait: Duration::from_millis(1),
};

fn served(bounds: Bounds, telemetry: &Telemetry) -> (Runtime, Http) {
    let runtime = wire::runtime().unwrap();
    let http = Http::bind_within(bounds, (Ipv4Addr::LOCALHOST, 0).into(), telemetry, runtime.handle()).unwrap();
    (runtime, http)
}

/// Status code and body of the answer to these bytes.
fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // One who is refused before all was read may see the connection reset after the answer.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn get(http: &Http, path: &str) -> (u16, String) {
    ask(http.local_addr(), &format!("GET {path} HTTP/1.1\r\nHost: fedtune\r\n\r\n"))
}

const PATIENT: Bounds = Bounds { connections: 4, head_within: Duration::from_secs(60), ..SHORT };

#[test]
fn a_server_is_alive_at_once_and_ready_when_it_listens_and_until_the_run_is_over() {
    let telemetry = server();
    let (_runtime, http) = served(PATIENT, &telemetry);
    assert_eq!(get(&http, "/healthz"), (200, "alive\n".to_owned()));
    assert_eq!(get(&http, "/readyz"), (503, "not ready: it reads the model and the data\n".to_owned()));
    tell(&telemetry, [listening()]);
    assert_eq!(get(&http, "/readyz"), (200, "ready\n".to_owned()));
    tell(&telemetry, [finished(None)]);
    assert_eq!(get(&http, "/readyz"), (503, "not ready: the run is over\n".to_owned()));
}

#[test]
fn a_client_is_ready_while_it_has_a_session() {
    let telemetry = client();
    let (_runtime, http) = served(PATIENT, &telemetry);
    let reason = "waits for the server at http://a:7443".to_owned();
    tell(&telemetry, [Event::Disconnected { reason }]);
    assert_eq!(get(&http, "/readyz"), (503, "not ready: waits for the server at http://a:7443\n".to_owned()));
    tell(&telemetry, [Event::Connected]);
    assert_eq!(get(&http, "/readyz").0, 200);
    assert_eq!(get(&http, "/status"), (404, "a client has no /status; its server has\n".to_owned()));
}

#[test]
fn a_status_over_http_is_the_status() {
    let telemetry = server();
    tell(&telemetry, a_run());
    let (_runtime, http) = served(PATIENT, &telemetry);
    for path in
        ["/status", "/status?after=0", "/status?after=99999", &format!("/status?after={}", telemetry.status().seq)]
    {
        let (code, body) = get(&http, path);
        assert_eq!((code, serde_json::from_str::<LiveStatus>(&body).unwrap()), (200, telemetry.status()), "{path}");
    }
}

#[test]
fn an_after_that_is_no_number_is_refused_with_a_sentence() {
    let (_runtime, http) = served(PATIENT, &server());
    for query in ["after=seven", "after=-1", "after=", "after", "x=1&after=1.5"] {
        let (code, body) = get(&http, &format!("/status?{query}"));
        assert_eq!(code, 400, "{query}");
        assert!(
            body.starts_with("after must be the seq of an earlier answer, as in /status?after=7, and is "),
            "{body}"
        );
    }
}

#[test]
fn metrics_over_http_say_what_format_they_are_in() {
    let (_runtime, http) = served(PATIENT, &server());
    let mut stream = TcpStream::connect(http.local_addr()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: fedtune\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("content-type: text/plain; version=0.0.4\r\n"), "{answer}");
    assert!(answer.contains("# HELP fedtune_round Last finished round.\n"), "{answer}");
}

#[test]
fn whatever_else_is_asked_for_is_not_there_and_the_answer_says_what_is() {
    let (_runtime, http) = served(PATIENT, &server());
    for request in ["GET / HTTP/1.1", "GET /status/1 HTTP/1.1", "POST /status HTTP/1.1", "DELETE /metrics HTTP/1.1"] {
        let (code, body) = ask(http.local_addr(), &format!("{request}\r\nHost: fedtune\r\n\r\n"));
        assert_eq!(code, 404, "{request}");
        assert_eq!(body, "there is GET /healthz, /readyz, /status and /metrics here, and nothing else\n");
    }
}

#[test]
fn peers_that_say_nothing_or_never_end_do_not_keep_others_from_an_answer() {
    let (_runtime, http) = served(SHORT, &server());
    let mut silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(http.local_addr()).unwrap()).collect();
    for stream in silent.iter_mut().step_by(2) {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").unwrap();
    }
    let mut said = Vec::new();
    silent[7].read_to_end(&mut said).unwrap();
    // The last of them was let go, so the first were: there are two places.
    assert!(!String::from_utf8_lossy(&said).contains("alive"));
    assert_eq!(get(&http, "/healthz").0, 200);
}

#[test]
fn a_head_that_is_too_long_is_refused() {
    let (_runtime, http) = served(PATIENT, &server());
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(16 << 10));
    assert_eq!(ask(http.local_addr(), &request).0, 431);
}

#[test]
fn a_port_that_is_taken_is_refused_with_a_sentence() {
    let (taken, runtime) = (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), wire::runtime().unwrap());
    let address = taken.local_addr().unwrap();
    let error = Http::bind(address, &server(), runtime.handle()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("--http {address} cannot be listened on: ")), "{error}");
    assert!(error.ends_with("; choose an address of this machine and a free port"), "{error}");
}
