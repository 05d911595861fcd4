//! What is kept, where, and for how long.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

use super::fixtures::{built, everything, plain, pod_spec, settings};
use crate::controller::build::{Children, Job, Settings, children};

fn mount<'a>(job: &'a Job, path: &str) -> &'a Value {
    let mounts = pod_spec(job)["containers"][0]["volumeMounts"].as_array().unwrap();
    mounts.iter().find(|mount| mount["mountPath"] == path).unwrap_or(&Value::Null)
}

fn volume<'a>(job: &'a Job, path: &str) -> &'a Value {
    let volumes = pod_spec(job)["volumes"].as_array().unwrap();
    volumes.iter().find(|volume| volume["name"] == mount(job, path)["name"]).unwrap_or(&Value::Null)
}

fn access_modes(claim: &PersistentVolumeClaim) -> Vec<String> {
    claim.spec.clone().unwrap().access_modes.unwrap()
}

#[test]
fn a_checkpoint_goes_with_its_resource_unless_it_is_to_be_retained() {
    let owners =
        |set: &str| built(&plain(&[set])).claims[0].metadata.owner_references.clone().unwrap_or_default().len();
    assert_eq!(owners("retentionPolicy=Delete"), 1);
    assert_eq!(owners("retentionPolicy=Retain"), 0);
}

#[test]
fn an_existing_claim_is_mounted_and_none_is_made() {
    let sets = ["server.checkpoint.existingClaim=earlier", "cache={existingClaim: shared}"];
    let Children { claims, server, clients, .. } = built(&plain(&sets));
    assert_eq!(claims, []);
    assert_eq!(volume(&server, "/var/lib/fedtune")["persistentVolumeClaim"]["claimName"], "earlier");
    for job in [&server, &clients[0]] {
        assert_eq!(volume(job, "/var/cache/fedtune")["persistentVolumeClaim"]["claimName"], "shared");
    }
}

#[test]
fn a_checkpoint_has_one_pod_where_the_driver_can_see_to_it_and_a_cache_has_many() {
    let run = plain(&["cache={volumeClaim: {}}"]);
    let modes = |settings: &Settings| -> Vec<Vec<String>> {
        children(&run, settings).unwrap().claims.iter().map(access_modes).collect()
    };
    assert_eq!(modes(&settings()), [["ReadWriteOnce"], ["ReadWriteMany"]]);
    let able = Settings { read_write_once_pod: true, ..settings() };
    assert_eq!(modes(&able), [["ReadWriteOncePod"], ["ReadWriteMany"]]);
    let wish = plain(&["server.checkpoint.volumeClaim={accessMode: ReadWriteMany}"]);
    assert_eq!(access_modes(&children(&wish, &able).unwrap().claims[0]), ["ReadWriteMany"]);
}

#[test]
fn a_clients_state_is_in_the_pod_or_in_a_folder_of_its_own() {
    let job = &built(&plain(&[])).clients[0];
    assert_eq!(volume(job, "/var/lib/fedtune")["emptyDir"], json!({}));
    let job = &built(&everything(&[])).clients[0];
    assert_eq!(volume(job, "/var/lib/fedtune")["persistentVolumeClaim"]["claimName"], "kd-state");
    let folder = "0b6e7a1c-2f6b-4d0e-9c3a-5a1f2e3d4c5b/hospital/$(JOB_COMPLETION_INDEX)";
    assert_eq!(mount(job, "/var/lib/fedtune")["subPathExpr"], folder);
}

#[test]
fn a_run_that_goes_on_from_another_finds_its_clients_states() {
    let uid = "11111111-2222-3333-4444-555555555555";
    let sets = [&format!("resumeFrom={{uid: {uid}}}"), "server.checkpoint={existingClaim: earlier}"];
    let job = &built(&everything(&sets)).clients[0];
    let folder = mount(job, "/var/lib/fedtune")["subPathExpr"].as_str().unwrap();
    assert!(folder.starts_with(&format!("{uid}/hospital/")), "{folder}");
}

#[test]
fn results_go_to_a_folder_of_their_claim_which_only_the_server_mounts() {
    let Children { server, clients, .. } = built(&everything(&[]));
    assert_eq!(volume(&server, "/output")["persistentVolumeClaim"]["claimName"], "results");
    assert_eq!(mount(&server, "/output")["subPath"], "runs/mail");
    assert!(clients.iter().all(|job| mount(job, "/output").is_null()));
    let server = built(&plain(&["output={volume: {existingClaim: results}}"])).server;
    assert_eq!(mount(&server, "/output")["subPath"], "mail", "by default the resource's name");
}

#[test]
fn a_renewed_certificate_arrives_in_a_running_pod() {
    let Children { server, clients, .. } = built(&everything(&[]));
    for job in [&server, &clients[0], &clients[1]] {
        let mount = mount(job, "/etc/fedtune/tls");
        assert_eq!(mount.get("subPath").or(mount.get("subPathExpr")), None, "a sub-path is never updated: {mount}");
    }
}
