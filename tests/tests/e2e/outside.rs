//! Clients that are no pods: they join by a bundle, from outside of the cluster.
//! Must not use anything of the cluster but the bundle and the address in it.

use std::{fs, path::Path, process::Command, time::Duration};

use fedtune_tests::{
    Running,
    cluster::Cluster,
    experiment::{Experiment, has_round, workspace},
    program,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, runtime::wait::await_condition};
use serde_json::json;

const GROUP: &str = "far";

#[tokio::test]
#[ignore = "it takes root and images: make e2e runs it"]
async fn clients_outside_of_the_cluster_join_by_their_bundle_and_the_adapter_is_that_of_a_local_run() {
    let cluster = Cluster::with_operator().await;
    let (namespace, results) = cluster.experiment("outside").await;
    let mut experiment = Experiment::new(cluster, "fedllm", &["shrink"]);
    experiment.set("/spec/clients/groups/0/replicas", json!(2));
    experiment.push("/spec/clients/groups", json!({"name": GROUP, "replicas": 2, "placement": "External"}));
    let node = cluster.address_of_node().expect("the cluster has a node");
    experiment.set("/spec/server/expose", json!({"type": "NodePort", "hosts": [node]}));
    experiment.apply(cluster, &namespace);

    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (spec, bundle) = (folder.path().join("spec.yaml"), folder.path().join("far.join"));
    experiment.write(&spec);
    let secrets: Api<Secret> = Api::namespaced(cluster.client().await, &namespace);
    let name = format!("{}-join-{GROUP}", experiment.name());
    let made = await_condition(secrets, &name, |secret: Option<&Secret>| secret.is_some()).await;
    let secret = made.expect("Secrets can be watched").expect("it is there");
    let join = &secret.data.as_ref().expect("it has a bundle")["join"];
    fs::write(&bundle, &join.0).expect("a temporary folder can be written");
    let clients = [0, 1].map(|index| client(folder.path(), &spec, &bundle, index));
    experiment.wait(cluster, &namespace, has_round(1)).await;
    experiment.succeeds(cluster, &namespace).await;
    for client in clients {
        let _ended = client.wait_within(Duration::from_secs(120)).well();
    }
    experiment.assert_bits_of_a_local_run(&results);
}

/// A client on this machine, which is no node.
fn client(folder: &Path, spec: &Path, bundle: &Path, index: u32) -> Running {
    let mut command = Command::new(program());
    command.arg("client").arg(spec).arg("--join").arg(bundle).arg("--out").arg(folder);
    command.args(["--client", &format!("{GROUP}/{index}")]).current_dir(workspace()).env_remove("RUST_LOG");
    Running::start(&mut command)
}
