//! A cluster with a node: pods run, find each other by name, and have volumes.
//! Must not test the operator.

use fedtune_tests::cluster::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{LogParams, PostParams},
    runtime::wait::{Condition, await_condition},
};
use serde_json::{Value, json};
use std::time::Duration;

/// The trainer, as `make images` tags it.
const TRAINER: &str = concat!("localhost/fedtune:", env!("CARGO_PKG_VERSION"));
/// What a pod may take to end; far more than it needs.
const LIMIT: Duration = Duration::from_secs(120);

/// A pod of the `restricted` level that runs the trainer with these words, on these volumes.
fn pod(name: &str, words: &[&str], claims: &[&str]) -> Pod {
    let volumes: Vec<Value> =
        claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
    let mounts: Vec<Value> =
        claims.iter().map(|claim| json!({"name": claim, "mountPath": format!("/volumes/{claim}")})).collect();
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "trainer",
                "image": TRAINER,
                "imagePullPolicy": "IfNotPresent",
                "args": words,
                "volumeMounts": mounts,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
            "volumes": volumes,
        },
    });
    serde_json::from_value(pod).expect("it is written as Kubernetes has it")
}

/// Whether a pod has ended, one way or the other.
fn has_ended() -> impl Condition<Pod> {
    |pod: Option<&Pod>| {
        let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
        phase.is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase))
    }
}

/// Runs a pod to its end in a new namespace; its phase and what it said.
async fn run(cluster: &Cluster, namespace: &str, pod: &Pod) -> (String, String) {
    let name = pod.metadata.name.as_deref().expect("it has a name");
    let pods: Api<Pod> = Api::namespaced(cluster.client().await, namespace);
    pods.create(&PostParams::default(), pod).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    let ended = tokio::time::timeout(LIMIT, await_condition(pods.clone(), name, has_ended())).await;
    let Ok(ended) = ended else {
        panic!("{name} has not ended:\n{}", cluster.kubectl(&["describe", "pod", name, "-n", namespace], "").stdout)
    };
    let ended = ended.expect("a pod can be watched").expect("nobody deletes it");
    let phase = ended.status.and_then(|status| status.phase).expect("it has one");
    (phase, pods.logs(name, &LogParams::default()).await.expect("the kubelet has its log"))
}

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn a_restricted_namespace_runs_the_trainers_image_and_its_volumes_are_its_users() {
    let cluster = Cluster::node().await;
    let namespace = cluster.namespace("restricted").await;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    let _labelled = cluster.kubectl(&["label", "namespace", &namespace, level], "").well();
    let (phase, said) = run(&cluster, &namespace, &pod("version", &["--version"], &[])).await;
    assert_eq!((phase.as_str(), said.trim()), ("Succeeded", concat!("fedtune ", env!("CARGO_PKG_VERSION"))));

    let content = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(content.path().join("broken.yaml"), "kind: Nothing\n").expect("it is ours");
    cluster.claim_filled(&namespace, "specs", content.path()).await;
    let (phase, said) =
        run(&cluster, &namespace, &pod("reads", &["run", "/volumes/specs/broken.yaml"], &["specs"])).await;
    assert_eq!(phase, "Failed");
    assert!(said.contains("kind is Nothing"), "{said}");
}
