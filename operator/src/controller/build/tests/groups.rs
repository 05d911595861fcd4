//! A group is a trust domain: its data, its certificate and its secrets are in its pods alone.

use serde_json::Value;

use super::fixtures::{built, everything, plain, pod_spec};
use crate::controller::build::{BuildError, Children, Job, children, settings::Settings};

/// Names of what a Job's pods mount or read: claims, Secrets, config maps.
fn refers_to(job: &Job) -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    match (key.as_str(), field) {
                        ("claimName" | "secretName", Value::String(name)) => found.push(name.clone()),
                        ("secretKeyRef", reference) => found.push(reference["name"].as_str().unwrap().to_owned()),
                        (_, field) => collect(field, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    collect(pod_spec(job), &mut found);
    found.sort();
    found.dedup();
    found
}

#[test]
fn a_groups_data_is_mounted_into_its_own_pods_and_no_others() {
    let Children { server, clients, .. } = built(&everything(&[]));
    let [hospital, bank] = &clients[..] else { panic!("{}", clients.len()) };
    assert!(refers_to(hospital).contains(&"hospital-records".to_owned()), "{:?}", refers_to(hospital));
    for other in [&server, bank] {
        assert!(!other.as_json().to_string().contains("records"), "{}", other.as_json());
    }
}

#[test]
fn a_pod_has_its_own_certificate_and_no_other_nor_the_cas_key() {
    let Children { server, clients, .. } = built(&everything(&[]));
    let certificates = |job: &Job| -> Vec<String> {
        let ours = |name: &String| name.starts_with("mail-kd-tls") || name.starts_with("mail-kd-ca");
        refers_to(job).into_iter().filter(|name| ours(name) && !name.ends_with("cache")).collect()
    };
    assert_eq!(certificates(&server), ["mail-kd-tls-server"]);
    assert_eq!(certificates(&clients[0]), ["mail-kd-tls-hospital"]);
    assert_eq!(certificates(&clients[1]), ["mail-kd-tls-bank"]);
}

#[test]
fn a_secret_is_in_the_pods_that_read_what_it_opens() {
    // The hub's token opens the model, which all read; the store holds what all are judged on.
    let Children { server, clients, .. } = built(&everything(&[]));
    for job in [&server, &clients[0], &clients[1]] {
        let found = refers_to(job);
        assert!(found.contains(&"hub".to_owned()) && found.contains(&"s3".to_owned()), "{}: {found:?}", job.name());
    }
    // In FedLLM nobody but the server judges, and only one group's data is in the store.
    let groups = "clients.groups=[{name: a, data: {source: {s3: {url: s3://bucket/a, accessKeyIdSecretRef: {name: of-a, \
                  key: id}, secretAccessKeySecretRef: {name: of-a, key: key}}}}}, {name: b}]";
    let Children { server, clients, .. } = built(&plain(&[groups]));
    let holds = |job: &Job| refers_to(job).contains(&"of-a".to_owned());
    assert_eq!([holds(&server), holds(&clients[0]), holds(&clients[1])], [false, true, false]);
    // The central baseline trains where the server is, on everyone's data.
    let Children { server, .. } = built(&plain(&[groups, "framework={central: {}}"]));
    assert!(holds(&server), "{}", server.as_json());
}

#[test]
fn two_secrets_for_one_variable_are_refused_with_both_places() {
    let run = plain(&[
        "model.source={huggingFace: {repo: a/b, tokenSecretRef: {name: one, key: token}}}",
        "data.source={huggingFace: {repo: c/d, tokenSecretRef: {name: two, key: token}}}",
    ]);
    let error = children(&run, &Settings::new("image", "system")).unwrap_err();
    assert!(matches!(error, BuildError::TwoSecrets { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the server would need two values of HF_TOKEN, for spec.model.source and for spec.data.source; let both name \
         the same Secret"
    );
}

#[test]
fn nobody_but_the_server_works_in_the_central_baseline() {
    let Children { clients, network_policies, .. } = built(&plain(&["framework={central: {}}"]));
    assert_eq!((clients.len(), network_policies.len()), (0, 1));
}

#[test]
fn an_external_group_has_no_job() {
    let names: Vec<String> = built(&everything(&[])).clients.iter().map(|job| job.name().to_owned()).collect();
    assert_eq!(names, ["mail-kd-clients-hospital-2", "mail-kd-clients-bank-2"]);
}
