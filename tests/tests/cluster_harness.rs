//! The harness itself: what it starts is a control plane, and nothing of it outlives its test.
//! Must not test the operator.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use fedtune_tests::cluster::Cluster;

/// Set in a test that is to be killed.
const DOOMED: &str = "FEDTUNE_TEST_DOOMED";
/// How long a cluster may take to be gone; far more than it needs.
const LIMIT: Duration = Duration::from_secs(60);

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
    let this = env::current_exe().expect("a test has a path");
    let mut again = Command::new(this);
    again.args(["--exact", "one_that_is_killed", "--ignored", "--nocapture"]).env(DOOMED, "1");
    again.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut doomed = again.spawn().expect("a test can be started");
    let mut lines = BufReader::new(doomed.stdout.take().expect("it is piped")).lines();
    let folder = lines.find_map(|line| line.expect("a pipe can be read").strip_prefix("in ").map(PathBuf::from));
    let folder = folder.expect("it says where its cluster is");
    assert_ne!(processes_of(&folder), 0);
    doomed.kill().expect("a child may be killed");
    doomed.wait().expect("a child can be waited for");
    // Its keeper holds it open, too, until the cluster is gone.
    let mut stderr = doomed.stderr.take().expect("it is piped");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(stderr.read_to_end(&mut Vec::new())));
    receiver.recv_timeout(LIMIT).expect("its keeper ends soon").expect("a pipe can be read");
    assert!(!folder.exists() && processes_of(&folder) == 0, "{} is still there", folder.display());
}

/// Says where its cluster is, and waits to be killed.
#[tokio::test]
#[ignore = "started by another test, which kills it"]
async fn one_that_is_killed() {
    if env::var_os(DOOMED).is_some() {
        let cluster = Cluster::control_plane().await;
        println!("\nin {}", cluster.kubeconfig().parent().expect("it lies in a folder").display());
        std::future::pending::<()>().await;
    }
}

/// How many processes name `folder` in their command line.
fn processes_of(folder: &Path) -> usize {
    let name = folder.to_str().expect("a temporary folder's name is plain").as_bytes();
    let processes = Path::new("/proc").read_dir().expect("Linux has /proc");
    // A process may end while it is looked at.
    let lines = processes.filter_map(|process| std::fs::read(process.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(name.len()).any(|part| part == name)).count()
}
