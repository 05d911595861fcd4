//! A real Prometheus scrapes the pods of runs and the operators: live figures are the pods', final ones those of `results.json`.
//! Must not find the pods in another way than the chart's monitors do: by their labels, and by the port's name.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use fedtune_tests::{
    cluster::Cluster,
    dashboards::{Panel, compared, folder, panels, value_of},
    experiment::{Experiment, has_round, note, workspace},
    exposition::{Scrape, promtool_accepts},
    http, pictures,
    prometheus::{Prometheus, tool},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

/// What `spec.experiment` of these says.
const EXPERIMENT: &str = "mail";
const FRAMEWORKS: [&str; 3] = ["fedllm", "kd", "split-v1"];

/// As the chart's monitors select.
const PODS: &str = "app.kubernetes.io/name=fedtune,app.kubernetes.io/managed-by=fedtune-operator";
const OPERATORS: &str = "app.kubernetes.io/name=fedtune-operator";

/// What grows on while a server waits to be scraped once more.
const MOVES_ON: &str = "fedtune_checkpoint_volume_bytes";

/// Where the ports named `http` of these pods are.
async fn targets(cluster: &Cluster, namespace: Option<&str>, labels: &str) -> Vec<String> {
    let client = cluster.client().await;
    let pods: Api<Pod> =
        namespace.map_or_else(|| Api::all(client.clone()), |name| Api::namespaced(client.clone(), name));
    let pods = pods.list(&ListParams::default().labels(labels)).await.expect("pods can be listed");
    let address = |pod: &Pod| {
        let ports = pod.spec.as_ref()?.containers.iter().flat_map(|container| container.ports.iter().flatten());
        let port = ports.into_iter().find(|port| port.name.as_deref() == Some("http"))?.container_port;
        Some(format!("{}:{port}", pod.status.as_ref()?.pod_ip.as_deref()?))
    };
    pods.iter().filter_map(address).collect()
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn dashboards_show_what_pods_say_and_what_results_json_says() {
    if tool("prometheus").is_none() {
        eprintln!("skipped: there is no prometheus; make test brings it where apt-get can");
        return;
    }
    let cluster = Cluster::with_operator().await;
    // So long a server that has ended can still be scraped; runs of other tests do not wait for that.
    cluster.upgrade_operator(&["trainer.lingerSeconds=20"]);
    let (namespace, results) = cluster.experiment("scraped").await;
    let operators = targets(cluster, None, OPERATORS).await;
    let prometheus = Prometheus::start(&operators).expect("there is one");
    let began = seconds_since_1970();
    let mut experiments = FRAMEWORKS.map(|manifest| Experiment::new(cluster, manifest, &["shrink"]));
    // The one that is drawn is seen on its way, too.
    experiments[0].set("/spec/training/rounds", json!(12));
    for experiment in &experiments {
        experiment.apply(cluster, &namespace);
        experiment.wait(cluster, &namespace, has_round(1)).await;
        let of_run = format!("{PODS},app.kubernetes.io/instance={}", experiment.name());
        let pods = targets(cluster, Some(&namespace), &of_run).await;
        prometheus.scrape(&[operators.clone(), pods.clone()].concat());
        assert_live(&prometheus, experiment.name(), &pods);
        experiment.succeeds(cluster, &namespace).await;
        assert_alerts_are_answered(&prometheus);
    }
    for experiment in &experiments {
        assert_compared(&prometheus, experiment, &namespace, &results);
    }
    draw(&prometheus, &namespace, experiments[0].name(), (began, seconds_since_1970()));
    cluster.upgrade_operator(&["trainer.lingerSeconds=0"]);
}

/// The run's server still serves what it ended with: each series is at Prometheus what it is there.
fn assert_live(live: &Prometheus, run: &str, pods: &[String]) {
    let is_over = format!("fedtune_round{{run=\"{run}\"}} == fedtune_rounds");
    live.until(&is_over, |found| !found.is_empty());
    let ended: Vec<String> = live.query(&is_over).iter().map(|(labels, _)| labels["instance"].clone()).collect();
    let [server] = ended.as_slice() else { panic!("{ended:?} of {pods:?} are servers") };
    let (code, page) = http::get_whole(server, "/metrics");
    assert_eq!(code, 200, "{page}");
    let _checked = promtool_accepts(&page);
    let scrape = Scrape::of(&page);
    for (name, labels, value) in scrape.samples.iter().filter(|(name, ..)| name != MOVES_ON) {
        let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let value: f64 = value.parse().expect("a sample is a number");
        live.until(&format!("{name}{{{}}}", labels.join(",")), |found| value_of(found, value));
    }
}

/// What *Compare* shows of a run once its pods are gone or soon will be, to the last digit.
fn assert_compared(operators: &Prometheus, experiment: &Experiment, namespace: &str, results: &Path) {
    let (name, report) = (experiment.name(), experiment.report(results));
    operators
        .until(&format!("fedtune_run_loss{{namespace=\"{namespace}\", run=\"{name}\"}}"), |found| !found.is_empty());
    let duration = format!("fedtune_run_duration_seconds{{namespace=\"{namespace}\", run=\"{name}\"}}");
    let seconds = operators.query(&duration)[0].1;
    assert!(seconds > 0.0, "{name} took {seconds} s");
    let variables = [("$namespace", namespace), ("$experiment", &*report.experiment)];
    for Panel { title, queries, .. } in panels("fedtune-compare", &variables) {
        for (legend, query) in queries {
            let mut shown = operators.query(&query);
            shown.retain(|(labels, _)| labels["run"] == name);
            match compared(&title, &legend, &report, seconds) {
                Some(expected) => assert!(
                    value_of(&shown, expected),
                    "{title} ({legend}) shows {shown:?} of {name}, and results.json says {expected}"
                ),
                None => assert!(shown.is_empty(), "{title} shows {shown:?}"),
            }
        }
    }
}

/// Leaves the three dashboards as pages to look at, as they stood from the first run's begin to the last one's end.
fn draw(prometheus: &Prometheus, namespace: &str, run: &str, span: (f64, f64)) {
    let folder = workspace().join("target/dashboards");
    fs::create_dir_all(&folder).expect("the build's folder can be written");
    for dashboard in ["fedtune-compare", "fedtune-run", "fedtune-operator"] {
        let variables = [("$namespace", namespace), ("$experiment", EXPERIMENT), ("$run", run)];
        let page = pictures::page(dashboard, &panels(dashboard, &variables), prometheus, span);
        let file = folder.join(dashboard).with_extension("html");
        fs::write(&file, page).expect("the build's folder can be written");
        note(format_args!("{dashboard} is drawn in {}", file.display()));
    }
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is later than 1970").as_secs_f64()
}

/// Each alert's question is one that Prometheus understands, of series that are there.
fn assert_alerts_are_answered(prometheus: &Prometheus) {
    let file = folder().join("../monitoring/alerts.yaml");
    let alerts = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let alerts: Value = serde_yaml::from_str(&alerts).expect("alerts are YAML");
    let rules = alerts["groups"]
        .as_array()
        .expect("alerts are in groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("a group has rules"));
    let asked: BTreeSet<&str> = rules.map(|rule| rule["expr"].as_str().expect("a rule asks something")).collect();
    assert!(asked.len() >= 9, "there are {} alerts", asked.len());
    for question in asked {
        let _firing = prometheus.query(question);
    }
}
