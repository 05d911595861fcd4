//! A cluster with a node: pods run, find each other by name, and have volumes.
//! Must not test the operator.

use std::{fs, path::Path, time::Duration};

use fedtune_tests::{
    cluster::Cluster,
    doomed::{Doomed, is_doomed, processes_of, wait_for_the_end},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{LogParams, PostParams},
    runtime::wait::{Condition, await_condition},
};
use serde_json::{Value, json};

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
    assert!(said.contains("kind is the text \"Nothing\""), "{said}");
}

#[test]
#[ignore = "it takes root and images: make e2e runs it"]
fn nothing_is_left_of_a_node_when_its_test_is_killed() {
    let doomed = Doomed::start("one_that_is_killed");
    let folder = doomed.folder().to_owned();
    let name = enclosure(&folder).expect("it has an enclosure");
    assert!(!named(&name).is_empty() && processes_of(&folder) != 0);
    doomed.kill();
    assert!(!folder.exists() && processes_of(&folder) == 0, "{} is still there", folder.display());
    assert_eq!((enclosure(&folder), named(&name)), (None, Vec::new()));
}

#[tokio::test]
#[ignore = "started by another test, which kills it"]
async fn one_that_is_killed() {
    if is_doomed() {
        wait_for_the_end(&Cluster::node().await).await;
    }
}

/// The name of the enclosure of the cluster in `folder`: the lock that tells of it.
fn enclosure(folder: &Path) -> Option<String> {
    let locks = Path::new("/run/fedtune").read_dir().expect("a node has a lock");
    let mut locks = locks.map(|lock| lock.expect("a folder can be listed").path());
    let lock = locks.find(|lock| fs::read_to_string(lock).is_ok_and(|of| Path::new(&of) == folder))?;
    Some(lock.file_name().expect("a lock has a name").to_string_lossy().into_owned())
}

/// What the kernel has under the name of an enclosure: its network, this machine's end of the cable, control groups.
fn named(name: &str) -> Vec<String> {
    let groups = Path::new("/sys/fs/cgroup").read_dir().expect("a node has control groups");
    let groups = groups.map(|group| group.expect("a folder can be listed").path()).filter(|group| !group.is_symlink());
    let places = groups.chain(["/run/netns", "/sys/class/net", "/sys/fs/cgroup"].map(Into::into));
    places.map(|place| place.join(name)).filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
}
