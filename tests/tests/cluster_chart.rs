//! The chart: what it installs is accepted by a real API server, and values that mean nothing are refused.
//! Must not start the operator.

use std::path::Path;

use fedtune_tests::{Ended, cluster::Cluster};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};
use serde_json::Value;

/// Values that change what is installed, each as `--set` takes it.
const MATRIX: [&[&str]; 7] = [
    &[],
    &["namespaced=true"],
    &["serviceAccount.create=false", "serviceAccount.name=there"],
    &["imagePullSecrets={registry}", "image.repository=registry.example.com:5000/fedtune-operator", "image.tag=v1"],
    &["replicas=2", "log=fedtune_operator=debug\\,info", "logFormat=text", "priorityClassName=system-cluster-critical"],
    &["trainer.image.pullPolicy=Always", "trainer.lingerSeconds=5"],
    &["podLabels.team=ml", "podAnnotations.note=yes", "nodeSelector.pool=cpu", "tolerations[0].operator=Exists"],
];

fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/fedtune").display().to_string()
}

/// What would be installed in `namespace` with these values.
fn template(cluster: &Cluster, namespace: &str, values: &[&str]) -> Ended {
    let chart = chart();
    let sets = values.iter().flat_map(|value| ["--set", value]);
    let words: Vec<&str> = ["template", "fedtune", &chart, "--namespace", namespace].into_iter().chain(sets).collect();
    cluster.helm(&words)
}

#[test]
fn the_definition_in_the_chart_is_the_one_beside_the_types() {
    let file = Path::new(&chart()).join("crds/federatedfinetunes.fedtune.io.yaml");
    let written = std::fs::read_to_string(&file).expect("the chart has the definition");
    assert!(written == fedtune_crds::crd::yaml(), "run `make generate`");
}

#[tokio::test]
async fn helm_has_nothing_to_say_of_the_chart() {
    let cluster = Cluster::shared().await;
    let linted = cluster.helm(&["lint", "--strict", &chart()]).well();
    assert!(!linted.stdout.contains("[WARNING]") && !linted.stdout.contains("[ERROR]"), "{linted:?}");
}

#[tokio::test]
async fn what_the_chart_installs_is_accepted_whatever_the_values() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("chart").await;
    for values in MATRIX {
        let objects = template(cluster, &namespace, values).well().stdout;
        let apply = ["apply", "--dry-run=server", "--validate=strict", "-n", &namespace, "-f", "-"];
        let applied = cluster.kubectl(&apply, &objects);
        assert_eq!((applied.code, applied.stderr.as_str()), (Some(0), ""), "{values:?}:\n{objects}");
        assert!(applied.stdout.contains("deployment.apps/fedtune-operator created"), "{values:?}: {}", applied.stdout);
    }
}

#[tokio::test]
async fn an_install_for_one_namespace_takes_no_right_in_another() {
    let cluster = Cluster::shared().await;
    let objects = template(cluster, "team", &["namespaced=true"]).well().stdout;
    assert!(objects.contains("kind: Role\n") && !objects.contains("kind: ClusterRole"), "{objects}");
}

#[tokio::test]
async fn a_namespace_of_the_restricted_level_takes_the_operators_pod() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("restricted").await;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    let _labelled = cluster.kubectl(&["label", "namespace", &namespace, level], "").well();
    let objects = template(cluster, &namespace, &[]).well().stdout;
    let json = cluster.kubectl(&["create", "--dry-run=client", "-o", "json", "-f", "-"], &objects).well().stdout;
    let listed = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
    let objects = listed.map(|object| object.expect("kubectl writes JSON"));
    let items: Vec<Value> =
        objects.flat_map(|object| object["items"].as_array().cloned().unwrap_or(vec![object])).collect();
    let deployment = items.into_iter().find(|object| object["kind"] == "Deployment").expect("there is a Deployment");
    let deployment: Deployment = serde_json::from_value(deployment).expect("it is one");
    let template = deployment.spec.expect("a Deployment has a spec").template;
    let metadata = ObjectMeta { name: Some("operator".to_owned()), ..template.metadata.unwrap_or_default() };
    let pod = Pod { metadata, spec: template.spec, status: None };
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, &namespace);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    pods.create(&dry_run, &pod).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn values_that_mean_nothing_are_refused_by_name() {
    let cluster = Cluster::shared().await;
    for (value, words) in [
        ("repicas=2", &["repicas"][..]),
        ("image.tga=1", &["image", "tga"]),
        ("replicas=two", &["replicas", "integer"]),
        ("trainer.lingerSeconds=60", &["trainer/lingerSeconds"]),
        ("logFormat=xml", &["logFormat"]),
        ("image.repository=fedtune:1", &["image/repository", "pattern"]),
        ("serviceAccount.create=false", &["serviceAccount.name"]),
        ("monitoring.interval=often", &["monitoring/interval", "pattern"]),
        ("monitoring.podMonitor.enabled=true", &["monitoring.coreos.com/v1", "install them first"]),
    ] {
        let ended = template(cluster, "team", &[value]);
        assert_ne!(ended.code, Some(0), "{value}");
        assert!(words.iter().all(|word| ended.stderr.contains(word)), "{value}: {}", ended.stderr);
    }
}
