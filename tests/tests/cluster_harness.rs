//! The harness itself: what it starts is a control plane, and nothing of it outlives its test.
//! Must not test the operator.

use fedtune_tests::{
    cluster::Cluster,
    doomed::{Doomed, is_doomed, processes_of, wait_for_the_end},
};

#[tokio::test]
async fn two_control_planes_run_at_once_and_know_nothing_of_each_other() {
    let (one, other) = tokio::join!(Cluster::control_plane(), Cluster::control_plane());
    let namespace = one.namespace("only-here").await;
    assert!(one.kubectl(&["get", "namespace", &namespace], "").well().stdout.contains(&namespace));
    let ended = other.kubectl(&["get", "namespace", &namespace], "");
    assert!(ended.stderr.contains("NotFound"), "{ended:?}");
}

#[tokio::test]
async fn what_was_asked_of_the_api_server_stands_in_the_audit_log() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("audited").await;
    let asked = |event: &&serde_json::Value| event["verb"] == "create" && event["objectRef"]["name"] == *namespace;
    assert_eq!(cluster.audit().iter().filter(asked).count(), 1);
}

#[tokio::test]
async fn a_cluster_is_gone_when_it_is_dropped() {
    let cluster = Cluster::control_plane().await;
    let folder = cluster.kubeconfig().parent().expect("it lies in a folder").to_owned();
    assert_ne!(processes_of(&folder), 0);
    drop(cluster);
    assert!(!folder.exists() && processes_of(&folder) == 0, "{} is still there", folder.display());
}

#[test]
fn a_cluster_is_gone_when_its_test_is_killed() {
    let doomed = Doomed::start("one_that_is_killed");
    let folder = doomed.folder().to_owned();
    assert_ne!(processes_of(&folder), 0);
    doomed.kill();
    assert!(!folder.exists() && processes_of(&folder) == 0, "{} is still there", folder.display());
}

#[tokio::test]
#[ignore = "started by another test, which kills it"]
async fn one_that_is_killed() {
    if is_doomed() {
        wait_for_the_end(&Cluster::control_plane().await).await;
    }
}
