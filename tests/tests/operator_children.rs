//! What the operator builds of a resource, shown to a real API server: it takes all of it without a warning, and refuses
//! what a template gets wrong in its own words.
//! Must not run the operator: this is about objects.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{fs, path::Path};

use fedtune_operator::{
    authority::{Authority, Bundle, Name, new_key},
    controller::build::{
        Children, Run, Settings, children, groups, names,
        overlay::{Keys, LISTS, LISTS_OF_CONTAINERS},
        secret,
    },
};
use fedtune_tests::cluster::Cluster;
use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// A resource of the operator's own tests, in a namespace that lets in only what is `restricted`.
async fn resource(cluster: &Cluster, name: &str, sets: &[&str]) -> Run {
    let namespace = cluster.namespace("children").await;
    let levels = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}=restricted"));
    let _labelled = cluster.kubectl(&["label", "namespace", &namespace, &levels[0], &levels[1]], "").well();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/src/controller/build/tests");
    let yaml = fs::read_to_string(folder.join(name).with_extension("yaml")).unwrap();
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let mut run = fedtune_crds::load(&yaml, &sets).unwrap();
    run.metadata.namespace = Some(namespace);
    run
}

fn built(run: &Run) -> Children {
    children(run, &Settings::new("registry.example.com/fedtune:default", "fedtune-system")).unwrap()
}

/// Each object that the operator would create, and the pods that are shown first.
fn objects(run: &Run) -> Vec<Value> {
    let Children { config_map, claims, services, network_policies, server, clients } = built(run);
    let mut objects = vec![json!(config_map)];
    objects.extend(claims.iter().map(|claim| json!(claim)));
    objects.extend(services.iter().map(|service| json!(service)));
    objects.extend(network_policies.iter().map(|policy| json!(policy)));
    for job in [server].iter().chain(&clients) {
        objects.push(json!(job.to_dynamic()));
        objects.push(json!(job.to_pod()));
    }
    objects.extend(secrets(run));
    objects
}

fn secrets(run: &Run) -> Vec<Value> {
    let now = std::time::SystemTime::now();
    let uid = run.metadata.uid.clone().unwrap();
    let authority = Authority::new(new_key().unwrap(), now).unwrap();
    let leaf = |name: &Name, hosts: &[String]| authority.certify(name, hosts, &new_key().unwrap(), now).unwrap();
    let of_group = |group: &str| leaf(&Name::Group { run: uid.clone(), group: group.to_owned() }, &[]);
    let server = leaf(&Name::Server { run: uid.clone() }, &names::server_hosts(run));
    let mut secrets = vec![secret::ca(run, &authority), secret::server(run, &authority, &server)];
    for (_, group) in groups::managed(run) {
        secrets.push(secret::group(run, &group.name, &authority, &of_group(&group.name)));
    }
    for (_, group) in groups::external(run) {
        let bundle = Bundle::new(&uid, &group.name, ("fedtune.example.com", 7443), &authority, &of_group(&group.name));
        secrets.push(secret::join(run, &group.name, &bundle.to_json()));
    }
    secrets.iter().map(|secret| json!(secret)).collect()
}

/// What the API server makes of an object: warnings, or why it is refused.
type Answer = Result<Vec<String>, String>;

/// Shows an object to the API server as the operator does: nothing unknown in it is passed over, and nothing is kept.
async fn show(client: &Client, object: &Value) -> Answer {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
    let version = text("/apiVersion");
    let group = if version.contains('/') { "apis" } else { "api" };
    let kind = text("/kind").to_lowercase().replace("policy", "policie") + "s";
    let namespace = text("/metadata/namespace");
    let path = format!("/{group}/{version}/namespaces/{namespace}/{kind}?dryRun=All&fieldValidation=Strict");
    let request =
        Request::post(path).header("Content-Type", "application/json").body(object.to_string().into_bytes().into());
    let answer = client.send(request.unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect_bytes().await.unwrap();
    if parts.status.is_success() {
        let warnings = parts.headers.get_all("warning").iter();
        return Ok(warnings.map(|warning| warning.to_str().unwrap().to_owned()).collect());
    }
    let status: Value = serde_json::from_slice(&body).unwrap();
    Err(status["message"].as_str().unwrap().to_owned())
}

/// What pods of the resource with everything refer to.
fn prepare(cluster: &Cluster) {
    let priority = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1});
    let runtime = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "nvidia"}, "handler": "nvidia"});
    let classes = json!({"apiVersion": "v1", "kind": "List", "items": [priority, runtime]}).to_string();
    let _applied = cluster.kubectl(&["apply", "--filename=-"], &classes).well();
}

#[tokio::test]
async fn all_children_are_taken_without_a_warning_where_only_restricted_pods_are_let_in() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    prepare(cluster);
    for name in ["plain", "everything", "longest"] {
        let run = resource(cluster, name, &[]).await;
        for object in objects(&run) {
            assert_eq!(show(&client, &object).await, Ok(Vec::new()), "{name}: {object}");
        }
    }
}

#[tokio::test]
async fn what_a_template_gets_wrong_is_refused_in_the_api_servers_words() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    for (template, words) in [
        ("{spec: {nodeSelektor: {pool: gpu}}}", "unknown field \"spec.template.spec.nodeSelektor\""),
        (
            "{spec: {containers: [{name: trainer, image: x, $patch: delete}]}}",
            "unknown field \"spec.template.spec.containers[0].$patch\"",
        ),
        (
            "{spec: {nodeSelector: [pool]}}",
            "cannot unmarshal array into Go struct field PodSpec.spec.template.spec.nodeSelector",
        ),
        (
            "{spec: {containers: [{name: Trainer_2, image: x}]}}",
            "spec.template.spec.containers[1].name: Invalid value: \"Trainer_2\"",
        ),
        (
            "{spec: {containers: [{name: trainer, resources: {limits: {memory: lots}}}]}}",
            "quantities must match the regular expression",
        ),
    ] {
        let run = resource(cluster, "plain", &[&format!("server.template={template}")]).await;
        let refused = show(&client, &json!(built(&run).server.to_dynamic())).await.expect_err(template);
        assert!(refused.contains(words), "{template}: {refused}");
    }
}

#[tokio::test]
async fn a_class_that_is_not_there_is_seen_at_the_pod_and_not_at_the_job() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    for (field, words) in [
        ("priorityClassName", "no PriorityClass with name missing was found"),
        ("runtimeClassName", "RuntimeClass \"missing\" not found"),
    ] {
        let run = resource(cluster, "plain", &[&format!("server.template={{spec: {{{field}: missing}}}}")]).await;
        let server = built(&run).server;
        assert_eq!(show(&client, &json!(server.to_dynamic())).await, Ok(Vec::new()));
        let refused = show(&client, &json!(server.to_pod())).await.expect_err(field);
        assert!(refused.contains(words), "{refused}");
    }
}

/// What our own check refuses, the API server does, too: it forbids nothing that the level lets in.
#[tokio::test]
async fn what_is_refused_as_not_restricted_the_api_server_would_not_let_in() {
    let cluster = Cluster::shared().await;
    let client = cluster.client().await;
    let run = resource(cluster, "plain", &[]).await;
    let pod = json!(built(&run).server.to_pod());
    for (pointer, value) in [
        ("/spec/hostNetwork", json!(true)),
        ("/spec/hostPID", json!(true)),
        ("/spec/hostIPC", json!(true)),
        ("/spec/volumes/0", json!({"name": "fedtune-run", "hostPath": {"path": "/"}})),
        ("/spec/volumes/0", json!({"name": "fedtune-run", "nfs": {"server": "a", "path": "/"}})),
        ("/spec/securityContext/runAsUser", json!(0)),
        ("/spec/securityContext/runAsNonRoot", json!(false)),
        ("/spec/securityContext/seccompProfile", json!({"type": "Unconfined"})),
        ("/spec/securityContext/appArmorProfile", json!({"type": "Unconfined"})),
        ("/spec/securityContext/seLinuxOptions", json!({"type": "spc_t"})),
        ("/spec/securityContext/seLinuxOptions", json!({"role": "x"})),
        ("/spec/securityContext/sysctls", json!([{"name": "kernel.msgmax", "value": "1"}])),
        ("/spec/containers/0/securityContext/privileged", json!(true)),
        ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/spec/containers/0/securityContext/capabilities", json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
        ("/spec/containers/0/securityContext/capabilities", json!({"drop": ["KILL"]})),
        ("/spec/containers/0/securityContext/procMount", json!("Unmasked")),
        ("/spec/containers/0/ports", json!([{"containerPort": 1, "hostPort": 1}])),
        ("/spec/containers/0/livenessProbe", json!({"httpGet": {"port": 1, "host": "example.com"}})),
    ] {
        let mut pod = pod.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = pod.pointer_mut(parent).unwrap();
        match field.parse::<usize>() {
            Ok(index) => parent[index] = value,
            Err(_) => parent[field] = value,
        }
        let refused = show(&client, &pod).await.expect_err(pointer);
        assert!(refused.contains("violates PodSecurity") || refused.contains("is invalid"), "{pointer}: {refused}");
    }
}

#[tokio::test]
async fn templates_are_merged_by_the_keys_that_the_api_server_publishes() {
    let cluster = Cluster::shared().await;
    let ended = cluster.kubectl(&["get", "--raw", "/openapi/v3/api/v1"], "").well();
    let document: Value = serde_json::from_str(&ended.stdout).unwrap();
    let schemas = &document["components"]["schemas"];
    let published = |kind: &str| merged_lists(schemas, &format!("io.k8s.api.core.v1.{kind}"), "");
    let mut lists = published("PodSpec");
    // A Job makes no such containers.
    lists.retain(|(path, _)| path != "ephemeralContainers");
    assert_eq!(sorted(lists), known(&LISTS, "spec."));
    assert_eq!(sorted(published("Container")), known(&LISTS_OF_CONTAINERS, ""));
}

/// Lists of a schema that are merged by keys, those of objects within it included, those of entries of lists not.
fn merged_lists(schemas: &Value, name: &str, path: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (field, schema) in schemas[name]["properties"].as_object().into_iter().flatten() {
        let place = format!("{path}{field}");
        if schema["x-kubernetes-list-type"] == "map" {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().unwrap();
            found.push((place, keys.iter().map(|key| key.as_str().unwrap().to_owned()).collect()));
        } else if let Some(reference) = schema["allOf"][0]["$ref"].as_str().or(schema["$ref"].as_str()) {
            let name = reference.rsplit('/').next().unwrap();
            found.extend(merged_lists(schemas, name, &format!("{place}.")));
        }
    }
    found
}

fn known(lists: &[(&str, Keys)], prefix: &str) -> Vec<(String, Vec<String>)> {
    let strip = |path: &str| path.strip_prefix(prefix).unwrap().to_owned();
    let keys = |keys: Keys| keys.iter().map(|(key, _)| (*key).to_owned()).collect();
    sorted(lists.iter().map(|(path, of)| (strip(path), keys(of))).collect())
}

fn sorted(mut lists: Vec<(String, Vec<String>)>) -> Vec<(String, Vec<String>)> {
    lists.sort();
    lists
}
