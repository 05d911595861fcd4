//! The chart's dashboards, asked of a real Prometheus that scrapes a real run.
//! Must not draw anything: what a panel would show is what its questions are answered with.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use fedtune_crds::{live::LiveStatus, load, report::RunReport};
use fedtune_operator::{
    controller::{decide::Stand, observe::Observed, status::status},
    metrics::Metrics,
};
use fedtune_tests::{
    Bench, Running,
    dashboards::{Panel, compared, folder, panels, value_is, value_of},
    prometheus::Prometheus,
    scraped::{NAMESPACE, start_client, start_server},
};
use k8s_openapi::jiff::Timestamp;
use kube::{
    core::DeserializeGuard,
    runtime::{reflector, watcher::Event},
};
use serde_json::Value;

/// What a user has chosen above the panels.
const VARIABLES: [(&str, &str); 3] = [("$namespace", NAMESPACE), ("$experiment", "tiny"), ("$run", "tiny")];

/// What a run without TLS, broken links and failures has no series for, or may have none.
const MAY_BE_EMPTY: [&str; 3] = ["Certificates", "Refused and failed", "Sent again"];

/// A run as three processes, seen to its end, and a Prometheus that has scraped all three since.
struct Scraped {
    _processes: Vec<Running>,
    prometheus: Prometheus,
    report: RunReport,
    words: LiveStatus,
    bench: Bench,
}

fn a_run_and_its_prometheus(framework: &str) -> Option<Scraped> {
    let bench = Bench::new();
    let spec = bench.spec("tiny", framework);
    let (mut server, address, listens) = start_server(&bench, &spec);
    let clients = ["silo/0", "silo/1"].map(|id| start_client(&bench, &spec, id, &listens));
    let mut targets = vec![address];
    targets.extend(clients.iter().map(|(_, address)| address.clone()));
    let Some(prometheus) = Prometheus::start(&targets) else {
        eprintln!("skipped: there is no prometheus; make test brings it where apt-get can");
        return None;
    };
    server.wait_for(&["the termination message is written"]);
    let mut processes: Vec<Running> = clients.into_iter().map(|(client, _)| client).collect();
    for client in &mut processes {
        client.wait_for(&["tiny: done"]);
    }
    processes.push(server);
    // Each has been scraped often enough since for rates too.
    prometheus.until("min(count_over_time(fedtune_round{run=\"tiny\"}[5s]) >= 4 and fedtune_round == 2)", |found| {
        !found.is_empty()
    });
    prometheus.until("count(count_over_time(fedtune_client_peak_memory_bytes[5s]) >= 4)", |found| value_of(found, 2.0));
    let words = serde_json::from_slice(&bench.read("last-words")).unwrap();
    let report = bench.report("apart", "tiny");
    Some(Scraped { _processes: processes, prometheus, report, words, bench })
}

#[test]
fn each_panel_has_a_unit_a_description_and_words_for_no_data() {
    for name in ["fedtune-compare", "fedtune-run", "fedtune-operator"] {
        let text = fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(dashboard["uid"], name);
        for panel in dashboard["panels"].as_array().unwrap() {
            let defaults = &panel["fieldConfig"]["defaults"];
            for said in [&panel["title"], &panel["description"], &defaults["unit"], &defaults["noValue"]] {
                assert!(said.as_str().is_some_and(|said| !said.is_empty()), "{name}: {panel:#}");
            }
        }
    }
}

#[test]
fn the_run_dashboard_shows_what_the_pods_say() {
    let Some(Scraped { prometheus, report, .. }) = &a_run_and_its_prometheus("fedLLM: {}") else { return };
    for Panel { title, queries, .. } in panels("fedtune-run", &VARIABLES) {
        for (legend, query) in queries {
            let shown = prometheus.query(&query);
            let may_be_empty = MAY_BE_EMPTY.contains(&title.as_str());
            assert!(may_be_empty || !shown.is_empty(), "{title} ({legend}) shows nothing: {query}");
            let expected = match title.as_str() {
                "Round" | "of rounds" | "Clients ready" => 2.0,
                "Accuracy" => report.final_figures.accuracy,
                "Loss" => report.final_figures.loss,
                "Clients away" => 0.0,
                _ => continue,
            };
            assert!(value_of(&shown, expected), "{title} shows {shown:?} and not {expected}");
        }
    }
    for (client, shown) in report.clients.iter().map(|client| {
        let query = format!("fedtune_client_flops_total{{client=\"{}\", phase=\"train\"}}", client.client);
        (client, prometheus.query(&query))
    }) {
        assert!(value_of(&shown, client.flops.train), "{}: {shown:?}", client.client);
    }
}

#[test]
fn compare_shows_the_figures_of_results_json_to_the_last_digit_and_operator_is_answered() {
    let Some(run) = a_run_and_its_prometheus("fedLLM: {}") else { return };
    let prometheus = Prometheus::start(&[serve(metrics_of_the_operator(&run))]).unwrap();
    prometheus.until("fedtune_run_loss", |found| !found.is_empty());
    for Panel { title, queries, .. } in panels("fedtune-compare", &VARIABLES) {
        for (legend, query) in queries {
            let shown = prometheus.query(&query);
            match compared(&title, &legend, &run.report, 60.0) {
                Some(expected) => {
                    assert!(value_of(&shown, expected), "{title} ({legend}) shows {shown:?} and not {expected}");
                }
                None => assert!(shown.is_empty(), "{shown:?}"),
            }
        }
    }
    the_operator_dashboard_is_answered(&prometheus);
}

/// The operator that is scraped has looked at no run: what it has of durations is no number yet, and of errors nothing.
fn the_operator_dashboard_is_answered(prometheus: &Prometheus) {
    prometheus.until("count_over_time(fedtune_operator_leader[5s]) >= 4", |found| !found.is_empty());
    for Panel { title, queries, .. } in panels("fedtune-operator", &VARIABLES) {
        for (legend, query) in queries {
            let shown = prometheus.query(&query);
            match title.as_str() {
                "Leaders" => assert!(value_of(&shown, 1.0), "{shown:?}"),
                "Runs" | "Runs over time" => {
                    let ended = shown.iter().filter(|(_, runs)| value_is(*runs, 1.0));
                    let phases: Vec<_> = ended.map(|(labels, _)| labels["phase"].as_str()).collect();
                    assert_eq!((phases, shown.len()), (vec!["Succeeded"], 6), "{title}");
                }
                "Errors" => assert!(shown.is_empty(), "{shown:?}"),
                _ => assert!(!shown.is_empty(), "{title} ({legend}) shows nothing: {query}"),
            }
        }
    }
}

/// The operator's page once the run has ended: its status is made of the server's last words, a minute after it began.
fn metrics_of_the_operator(run: &Scraped) -> String {
    let yaml = String::from_utf8(run.bench.read("tiny.yaml")).unwrap();
    let mut resource = load(&yaml, &[]).unwrap();
    resource.metadata.namespace = Some(NAMESPACE.to_owned());
    let begun = Timestamp::UNIX_EPOCH;
    resource.status = Some(fedtune_operator::controller::status::begun(&resource, "hash", begun));
    let stand = Stand::Succeeded(Box::new(run.words.clone()));
    let ended = Timestamp::from_second(60).unwrap();
    resource.status = Some(status(&resource, &Observed::default(), &stand, ended));
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Apply(DeserializeGuard(Ok(resource))));
    let metrics = Metrics::new().unwrap();
    metrics.leads(store);
    metrics.page().unwrap()
}

/// Answers each request with this page; gives the address.
fn serve(page: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _asked = stream.read(&mut request);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                page.len()
            );
            let _sent = stream.write_all((head + &page).as_bytes());
        }
    });
    address
}
