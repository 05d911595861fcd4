//! How Jobs treat pods that end, and how pods start the trainer.

use serde_json::{Value, json};

use super::fixtures::{built, everything, plain, pod_spec, settings};
use crate::controller::build::{Children, Job, Settings, children, pod::TRAINER};

fn trainer(job: &Job) -> &Value {
    let trainer = &pod_spec(job)["containers"][0];
    assert_eq!(trainer["name"], TRAINER);
    trainer
}

fn arguments(job: &Job) -> Vec<&str> {
    trainer(job)["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect()
}

fn follows<'a>(arguments: &[&'a str], flag: &str) -> Option<&'a str> {
    let place = arguments.iter().position(|argument| *argument == flag)?;
    arguments.get(place + 1).copied()
}

#[test]
fn a_configuration_error_ends_the_run_at_the_server_and_one_client_at_a_client() {
    let Children { server, clients, .. } = built(&plain(&[]));
    for (job, action) in [(&server, "FailJob"), (&clients[0], "FailIndex")] {
        let rules = &job.as_json()["spec"]["podFailurePolicy"]["rules"];
        let disrupted =
            json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        assert_eq!(rules[0], disrupted, "a pod that makes room is looked at first");
        assert_eq!(rules[1]["action"], action);
        assert_eq!(rules[1]["onExitCodes"], json!({"containerName": TRAINER, "operator": "In", "values": [78]}));
    }
}

#[test]
fn a_failed_client_ends_no_healthy_one() {
    let job = &built(&plain(&["clients.groups=[{name: silo, replicas: 7}]"])).clients[0];
    let spec = &job.as_json()["spec"];
    for (field, value) in [
        ("completionMode", json!("Indexed")),
        ("completions", json!(7)),
        ("parallelism", json!(7)),
        ("backoffLimitPerIndex", json!(20)),
        ("maxFailedIndexes", json!(7)),
        ("podReplacementPolicy", json!("Failed")),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
}

#[test]
fn a_suspended_resource_has_suspended_jobs() {
    for (set, suspended) in [("suspend=true", true), ("suspend=false", false)] {
        let Children { server, clients, .. } = built(&plain(&[set]));
        for job in [&server, &clients[0]] {
            assert_eq!(job.as_json()["spec"]["suspend"], json!(suspended), "{}", job.name());
        }
    }
}

#[test]
fn another_attempt_has_other_jobs_on_the_same_checkpoint() {
    let (first, second) = (built(&plain(&[])), built(&plain(&["attempt=1"])));
    assert_eq!([first.server.name(), second.server.name()], ["mail-server", "mail-server-1"]);
    assert_eq!([first.clients[0].name(), second.clients[0].name()], ["mail-clients-silo", "mail-clients-silo-1"]);
    assert_eq!(first.claims, second.claims);
    assert_eq!(first.services, second.services);
    assert_eq!(follows(&arguments(&second.server), "--set"), Some("attempt=1"), "the report says which attempt it was");
}

#[test]
fn the_deadline_is_the_resources_and_no_jobs() {
    let Children { server, clients, .. } = built(&plain(&["activeDeadlineSeconds=60"]));
    for job in [&server, &clients[0]] {
        assert_eq!(job.as_json()["spec"].get("activeDeadlineSeconds"), None);
        assert_eq!(pod_spec(job).get("activeDeadlineSeconds"), None);
    }
}

#[test]
fn a_client_is_known_by_its_index_and_dials_the_servers_service() {
    let job = &built(&plain(&[])).clients[0];
    let arguments = arguments(job);
    assert_eq!(arguments[..2], ["client", "/etc/fedtune/run/run.json"]);
    assert_eq!(follows(&arguments, "--client"), Some("silo/$(JOB_COMPLETION_INDEX)"));
    assert_eq!(follows(&arguments, "--server"), Some("https://mail-server.team.svc:7443"));
}

#[test]
fn the_server_copies_results_to_a_claim_where_there_is_one() {
    let output = |sets: &[&str]| {
        let server = built(&plain(sets)).server;
        follows(&arguments(&server), "--output").map(str::to_owned)
    };
    assert_eq!(output(&[]), None);
    // The spec tells the trainer of a store.
    assert_eq!(output(&["output={s3: {url: s3://results/mail}}"]), None);
    assert_eq!(output(&["output={volume: {existingClaim: results}}"]).as_deref(), Some("/output"));
}

#[test]
fn the_first_pod_is_the_jobs_own_template() {
    let job = &built(&everything(&[])).clients[0];
    let pod = job.to_pod();
    assert_eq!(pod.metadata.name.as_deref(), Some("mail-kd-clients-hospital-2-0"));
    assert_eq!(pod.metadata.namespace.as_deref(), Some("team"));
    assert_eq!(&pod.data["spec"], pod_spec(job));
    assert_eq!(pod.types.unwrap().kind, "Pod");
    assert_eq!(&job.to_dynamic().data["spec"], &job.as_json()["spec"]);
}

#[test]
fn the_operators_own_template_lies_beneath_the_resources() {
    let template = json!({"spec": {"runtimeClassName": "kata", "imagePullSecrets": [{"name": "mirror"}]}});
    let settings = Settings { template: serde_json::from_value(template).unwrap(), ..settings() };
    let Children { server, clients, .. } = children(&everything(&[]), &settings).unwrap();
    assert_eq!(pod_spec(&server)["runtimeClassName"], "kata");
    assert_eq!(pod_spec(&clients[0])["runtimeClassName"], "nvidia");
    assert_eq!(pod_spec(&clients[0])["imagePullSecrets"], json!([{"name": "mirror"}, {"name": "registry"}]));
}

#[test]
fn no_pod_speaks_to_the_api_server() {
    let Children { server, clients, .. } = built(&everything(&[]));
    for job in [&server, &clients[0], &clients[1]] {
        assert_eq!(pod_spec(job)["automountServiceAccountToken"], json!(false), "{}", job.name());
    }
}
