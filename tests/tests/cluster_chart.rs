//! The chart: what it installs is accepted by a real API server, and values that mean nothing are refused.
//! Must not start the operator.

use std::path::Path;

use fedtune_tests::{
    Ended,
    cluster::{Cluster, operated::RUN},
};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};
use serde_json::Value;

/// Values that change what is installed, each as `--set` takes it.
const MATRIX: [&[&str]; 9] = [
    &[],
    &["namespaced=true"],
    &["serviceAccount.create=false", "serviceAccount.name=there"],
    &["imagePullSecrets={registry}", "image.repository=registry.example.com:5000/fedtune-operator", "image.tag=v1"],
    &[
        "replicas=1",
        "aggregatedRoles=false",
        "log=fedtune_operator=debug\\,info",
        "logFormat=text",
        "priorityClassName=system-cluster-critical",
    ],
    &["trainer.image.pullPolicy=Always", "trainer.lingerSeconds=5"],
    &["trainer.template.spec.runtimeClassName=nvidia", "podAnnotations.note=yes"],
    &["trainer.readWriteOncePod=true", "trainer.prometheusLabels.app=prometheus", "trainer.prometheusLabels.team=ml"],
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
async fn nodes_are_emptied_one_operator_at_a_time_where_there_are_two() {
    let cluster = Cluster::shared().await;
    let has_budget = |values: &[&str]| template(cluster, "team", values).well().stdout.contains("PodDisruptionBudget");
    assert!(has_budget(&[]) && !has_budget(&["replicas=1"]));
}

/// The roles that the API server has anyway, joined by label: a controller outside of it copies the rules over.
#[tokio::test]
async fn the_clusters_own_roles_have_their_rights_on_runs() {
    let cluster = Cluster::shared().await;
    let rules = |role: &str| {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}=true");
        let objects = template(cluster, "team", &[]).well().stdout;
        let words = ["create", "--dry-run=client", "-o", "json", "-f", "-", "--selector", &label];
        let json = cluster.kubectl(&words, &objects).well().stdout;
        let found: Value = serde_json::from_str(&json).expect("kubectl writes JSON");
        found["rules"].clone()
    };
    let of = |resources: &[&str], verbs: &[&str]| serde_json::json!([{"apiGroups": ["fedtune.io"], "resources": resources, "verbs": verbs}]);
    assert_eq!(rules("view"), of(&["federatedfinetunes", "federatedfinetunes/status"], &["get", "list", "watch"]));
    let changes = ["create", "update", "patch", "delete", "deletecollection"];
    assert_eq!(rules("edit"), of(&["federatedfinetunes"], &changes));
    assert!(!template(cluster, "team", &["aggregatedRoles=false"]).well().stdout.contains("aggregate-to"));
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

/// Flags as the operator takes them: what it does with them is its own tests' to say.
#[tokio::test]
async fn what_all_trainers_share_is_handed_to_the_operator() {
    let cluster = Cluster::shared().await;
    let values = [
        "trainer.template.spec.runtimeClassName=nvidia",
        "trainer.prometheusLabels.app=prometheus,trainer.prometheusLabels.team=ml",
    ];
    let objects = template(cluster, "team", &values).well().stdout;
    for words in [
        "template.yaml: |\n    spec:\n      runtimeClassName: nvidia\n",
        "value: /etc/fedtune/trainer/template.yaml",
        "mountPath: /etc/fedtune/trainer,",
        "value: app=prometheus,team=ml",
    ] {
        assert!(objects.contains(words), "{words} is not in {objects}");
    }
}

#[tokio::test]
async fn a_second_operator_is_refused_where_it_would_look_at_the_same_runs() {
    // Of its own: whatever else is installed in a cluster is looked at.
    let cluster = Cluster::control_plane().await;
    let [first, second] = [cluster.namespace("first").await, cluster.namespace("second").await];
    let chart = chart();
    let helm = |verb: &str, release: &str, namespace: &str, value: &str| {
        cluster.helm(&[verb, release, &chart, "--namespace", namespace, "--set", value])
    };
    let refused = |ended: Ended, words: [&str; 2]| {
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert!(words.iter().all(|word| ended.stderr.contains(word)), "{words:?}: {}", ended.stderr);
    };
    let _installed = helm("install", "fedtune", &first, "namespaced=false").well();
    let _upgraded = helm("upgrade", "fedtune", &first, "log=debug").well();
    let elsewhere = ["another fedtune operator is installed already", &format!("in the namespace {first}")];
    refused(helm("install", "fedtune", &second, "namespaced=false"), elsewhere);
    let here = ["another fedtune operator is installed in this namespace", "fedtune-operator"];
    refused(helm("install", "other", &first, "namespaced=true"), here);
    let _removed = cluster.helm(&["uninstall", "fedtune", "--namespace", &first]).well();
    let _installed = helm("install", "fedtune", &second, "namespaced=true").well();
    let _beside = helm("install", "fedtune", &first, "namespaced=true").well();
}

/// Definitions of the Prometheus operator's own release: what they do not know they refuse.
#[tokio::test]
async fn what_is_installed_for_monitoring_is_what_the_prometheus_operator_defines() {
    let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools/monitoring");
    if !definitions.exists() {
        eprintln!("skipped: there are no definitions of the Prometheus operator; make test brings them");
        return;
    }
    let cluster = Cluster::control_plane().await;
    let definitions = definitions.display().to_string();
    let _defined = cluster.kubectl(&["apply", "--server-side", "--filename", &definitions], "").well();
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
    let _waited = cluster.kubectl(&established, "").well();
    let namespace = cluster.namespace("monitored").await;
    let switches = ["podMonitor", "serviceMonitor", "prometheusRule", "dashboards"];
    let values = switches.map(|switch| format!("monitoring.{switch}.enabled=true")).join(",");
    let values = format!("{values},monitoring.labels.release=prometheus");
    let chart = chart();
    let _installed = cluster.helm(&["install", "fedtune", &chart, "--namespace", &namespace, "--set", &values]).well();
    let kinds = "podmonitors,servicemonitors,prometheusrules";
    let words = ["get", kinds, "--namespace", &namespace, "--selector", "release=prometheus", "--output=name"];
    let mut there: Vec<String> = cluster.kubectl(&words, "").well().stdout.lines().map(str::to_owned).collect();
    there.sort();
    let expected = [
        "podmonitor.monitoring.coreos.com/fedtune-operator-runs",
        "prometheusrule.monitoring.coreos.com/fedtune-operator",
        "servicemonitor.monitoring.coreos.com/fedtune-operator",
    ];
    assert_eq!(there, expected);
    // The whole object again, by an API server that takes no field it does not know.
    let objects = cluster.helm(&["get", "manifest", "fedtune", "--namespace", &namespace]).well().stdout;
    let strict = ["apply", "--dry-run=server", "--validate=strict", "--namespace", &namespace, "--filename", "-"];
    let applied = cluster.kubectl(&strict, &objects);
    assert_eq!(applied.code, Some(0), "{}", applied.stderr);
}

#[tokio::test]
async fn runs_outlive_an_upgrade_a_rollback_and_an_uninstall() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("outlived").await;
    let helm = |words: &[&str]| {
        let all: Vec<&str> = words.iter().chain(&["--namespace", &namespace]).copied().collect();
        cluster.helm(&all).well()
    };
    let log = || {
        let path = "--output=jsonpath={..env[?(@.name=='RUST_LOG')].value}";
        cluster.kubectl(&["get", "deployment", "fedtune-operator", "--namespace", &namespace, path], "").well().stdout
    };
    let chart = chart();
    helm(&["install", "fedtune", &chart, "--set", "namespaced=true"]);
    let _applied = cluster.kubectl(&["apply", "--namespace", &namespace, "--filename", "-"], RUN).well();
    helm(&["upgrade", "fedtune", &chart, "--reuse-values", "--set", "log=debug"]);
    assert_eq!(log(), "debug");
    helm(&["rollback", "fedtune", "1"]);
    assert_eq!(log(), "info");
    helm(&["uninstall", "fedtune"]);
    let left =
        cluster.kubectl(&["get", "fft,deployments", "--namespace", &namespace, "--output=name"], "").well().stdout;
    assert_eq!(left, "federatedfinetune.fedtune.io/mail\n");
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
        ("trainer.template.spek.runtimeClassName=nvidia", &["trainer/template", "spek"]),
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
