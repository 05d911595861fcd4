//! The definition of `FederatedFineTune` on a real API server: what it accepts, refuses, explains and shows.
//! Must not test the operator, nor rules by an evaluator of our own: `crds/tests` does.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use fedtune_crds::{FederatedFineTune, crd, documents, load};
use fedtune_tests::cluster::Cluster;
use kube::{
    Api, Error,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, response::StatusCause},
};
use serde_json::{Value, json};

#[path = "../../crds/tests/rules/table.rs"]
mod table;

use table::{BROKEN, KEPT, SMALLEST};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds the crate")
}

/// Resources in `namespace`, as whatever JSON they are.
async fn resources(cluster: &Cluster, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::erase::<FederatedFineTune>(&());
    Api::namespaced_with(cluster.client().await, namespace, &resource)
}

fn object(document: &Value) -> DynamicObject {
    serde_json::from_value(document.clone()).expect("it has a kind and a name")
}

/// Nothing is kept.
fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// The one document of `yaml` after the overrides `sets`.
fn document(yaml: &str, sets: &[&str]) -> Value {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    documents(yaml, &sets).expect("it is YAML").remove(0)
}

/// Why the API server refuses something, cause by cause.
fn causes<T: std::fmt::Debug>(answer: Result<T, Error>, what: &str) -> Vec<StatusCause> {
    match answer {
        Err(Error::Api(status)) => status.details.unwrap_or_else(|| panic!("{what}: {}", status.message)).causes,
        other => panic!("{what} should be refused: {other:?}"),
    }
}

/// What the rules below `schema` say.
fn messages(schema: &Value, into: &mut BTreeSet<String>) {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    into.extend(rules.filter_map(|rule| rule["message"].as_str()).map(str::to_owned));
    let fields = schema["properties"].as_object().into_iter().flat_map(|fields| fields.values());
    for schema in fields.chain([&schema["items"], &schema["additionalProperties"]]).filter(|schema| schema.is_object())
    {
        messages(schema, into);
    }
}

#[test]
fn kubectl_applies_the_file_beside_the_types() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let cluster = runtime.block_on(Cluster::shared());
    let file = root().join("crds/federatedfinetunes.fedtune.io.yaml");
    let applied = cluster.kubectl(&["apply", "-f", &file.to_string_lossy()], "").well();
    assert!(
        applied.stdout.starts_with("customresourcedefinition.apiextensions.k8s.io/federatedfinetunes"),
        "{applied:?}"
    );
}

#[tokio::test]
async fn the_api_server_has_no_objection_to_the_definition() {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let client = Cluster::shared().await.client().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let stored = definitions.get("federatedfinetunes.fedtune.io").await.expect("the harness installed it");
    let conditions = stored.status.and_then(|status| status.conditions).expect("the API server has looked at it");
    let objections: Vec<_> = conditions.iter().filter(|condition| condition.type_ == "NonStructuralSchema").collect();
    assert_eq!(objections, Vec::<&_>::new());
    let holds = |kind: &str| conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True");
    assert!(holds("Established") && holds("NamesAccepted"), "{conditions:?}");
}

#[tokio::test]
async fn kubectl_explain_teaches_every_field_of_the_spec() {
    let cluster = Cluster::shared().await;
    let explained = cluster.kubectl(&["explain", "fft.spec.framework"], "").well().stdout;
    for framework in ["fedLLM", "kdFedLLM", "splitFedLLM", "central", "localOnly"] {
        assert!(explained.contains(framework), "{framework} is not in\n{explained}");
    }
    // A terminal's line ends in the midst of a sentence.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let schema = crd::schema();
    let spec = schema["properties"]["spec"]["properties"].as_object().expect("the spec has fields");
    let explained = words(&cluster.kubectl(&["explain", "fft.spec"], "").well().stdout);
    for (field, schema) in spec {
        let description = words(schema["description"].as_str().expect("every field has a description"));
        assert!(explained.contains(&description), "{field}: {description}\nis not in\n{explained}");
    }
}

#[tokio::test]
async fn the_api_server_refuses_what_breaks_a_rule_in_the_words_of_fedtune_run() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("broken").await;
    let resources = resources(cluster, &namespace).await;
    let mut rules = BTreeSet::new();
    messages(&crd::schema(), &mut rules);
    for (sets, sentence) in BROKEN {
        let answer = resources.create(&dry_run(), &object(&document(SMALLEST, sets))).await;
        let causes = causes(answer, sentence);
        let rule = rules.iter().filter(|rule| sentence.ends_with(rule.as_str())).max_by_key(|rule| rule.len());
        let rule = rule.unwrap_or_else(|| panic!("no rule says {sentence}"));
        let says_so = |cause: &&StatusCause| cause.message.ends_with(rule.as_str());
        let same: Vec<&StatusCause> = causes.iter().filter(says_so).collect();
        assert_eq!(same.len(), 1, "{sets:?}: {causes:?} should have: {sentence}");
        // A rule of the whole resource has no path, and says itself where it is broken.
        let is_there = sentence == rule || sentence.starts_with(same[0].field.as_str());
        assert!(is_there, "{sets:?}: {:?} is not where {sentence}", same[0].field);
        // A name that is no DNS name is refused once more, by Kubernetes' own rule.
        let others = causes.iter().filter(|cause| !says_so(cause) && cause.field != "metadata.name");
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&StatusCause>::new(), "{sets:?}");
    }
}

#[tokio::test]
async fn the_api_server_accepts_what_keeps_the_rules() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("kept").await;
    let resources = resources(cluster, &namespace).await;
    for sets in KEPT {
        let answer = resources.create(&dry_run(), &object(&document(SMALLEST, sets))).await;
        answer.unwrap_or_else(|error| panic!("{sets:?}: {error}"));
    }
}

#[tokio::test]
async fn a_field_that_is_not_there_is_refused_by_its_path() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("unknown").await;
    let mut document = document(SMALLEST, &[]);
    document["spec"]["training"] = json!({"round": 3});
    let ended = cluster.kubectl(&["apply", "--dry-run=server", "-n", &namespace, "-f", "-"], &document.to_string());
    assert!(ended.stderr.contains("unknown field \"spec.training.round\""), "{ended:?}");
}

/// All YAML files in `folder`, sorted.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|ending| ending == "yaml")).collect();
    files.sort();
    files
}

#[tokio::test]
async fn every_manifest_is_accepted_and_gets_the_defaults_of_fedtune_run() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("manifests").await;
    let resources = resources(cluster, &namespace).await;
    let files = yaml_files(&root().join("manifests"));
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let yaml = fs::read_to_string(&file).expect("a manifest can be read");
        let answer = resources.create(&dry_run(), &object(&document(&yaml, &[]))).await;
        let stored = answer.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let here = load(&yaml, &[]).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let there: FederatedFineTune = serde_json::from_value(serde_json::to_value(&stored).expect("plain data"))
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(here.spec, there.spec, "{}", file.display());
    }
}

/// Objects as earlier versions wrote them: none may be lost, whatever a later definition says.
#[tokio::test]
async fn objects_of_earlier_versions_are_accepted_and_read() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("golden").await;
    let resources = resources(cluster, &namespace).await;
    let files = yaml_files(&root().join("tests/golden/objects"));
    assert!(!files.is_empty(), "there are golden objects");
    for file in files {
        let name = file.display();
        let yaml = fs::read_to_string(&file).expect("a golden object can be read");
        let document = document(&yaml, &[]);
        let created = resources.create(&PostParams::default(), &object(&document)).await;
        let created = created.unwrap_or_else(|error| panic!("{name}: {error}"));
        let status = json!({"status": document["status"]});
        let own = created.metadata.name.as_deref().expect("it has a name");
        let patched = resources.patch_status(own, &PatchParams::default(), &Patch::Merge(&status)).await;
        let stored =
            serde_json::to_value(patched.unwrap_or_else(|error| panic!("{name}: {error}"))).expect("plain data");
        assert!(is_within(&document["spec"], &stored["spec"]), "{name}: the API server drops fields of\n{document:#}");
        let typed: FederatedFineTune =
            serde_json::from_value(stored.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = serde_json::to_value(&typed).expect("plain data");
        assert!(is_within(&document["spec"], &again["spec"]), "{name}: our types drop fields of\n{document:#}");
        assert!(is_within(&document["status"], &again["status"]), "{name}: our types drop fields of\n{document:#}");
    }
}

/// Whether all that `part` says is said by `whole`, which may say more.
fn is_within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(field, value)| whole.get(field).is_some_and(|other| is_within(value, other)))
        }
        (Value::Array(part), Value::Array(whole)) => {
            part.len() == whole.len() && part.iter().zip(whole).all(|(one, other)| is_within(one, other))
        }
        (part, whole) => part == whole,
    }
}

#[tokio::test]
async fn a_started_run_keeps_every_field_but_the_free_ones() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("frozen").await;
    let resources = resources(cluster, &namespace).await;
    let full = document(include_str!("../../crds/tests/full.yaml"), &[]);
    let created = resources.create(&PostParams::default(), &object(&full)).await.expect("full.yaml is accepted");
    let name = created.metadata.name.as_deref().expect("it has a name").to_owned();
    let running = json!({"status": {"phase": "Running"}});
    let running = resources.patch_status(&name, &PatchParams::default(), &Patch::Merge(&running)).await;
    let running = serde_json::to_value(running.expect("a status may be written")).expect("plain data");
    let schema = crd::schema();
    let fields = schema["properties"]["spec"]["properties"].as_object().expect("the spec has fields");
    let required = schema["properties"]["spec"]["required"].as_array().expect("some fields are required");
    let smallest = document(SMALLEST, &[]);
    for field in fields.keys() {
        let mut changed = running.clone();
        // A field that must be there cannot be left out: it gets another value.
        let other = smallest["spec"].get(field).filter(|_| required.contains(&json!(field)));
        let spec = changed["spec"].as_object_mut().expect("an object");
        match other {
            Some(other) => spec.insert(field.clone(), other.clone()),
            None => spec.remove(field),
        };
        let refused = format!("{field} is fixed once the run has started; give a new resource the new value");
        let answer = resources.replace(&name, &dry_run(), &object(&changed)).await;
        let is_frozen = match answer {
            Ok(_) => false,
            Err(Error::Api(status)) => {
                let causes = status.details.map(|details| details.causes).unwrap_or_default();
                let path = format!("spec.{field}");
                causes.iter().any(|cause| cause.field == path && cause.message.ends_with(&refused))
            }
            Err(error) => panic!("{field}: {error}"),
        };
        assert_eq!(is_frozen, !crd::FREE_AFTER_START.contains(&field.as_str()), "{field}");
    }
}

#[tokio::test]
async fn kubectl_get_shows_where_a_run_stands() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace("columns").await;
    let resources = resources(cluster, &namespace).await;
    resources.create(&PostParams::default(), &object(&document(SMALLEST, &[]))).await.expect("it keeps the rules");
    let status = json!({"status": {
        "framework": "FedLLM", "phase": "Running", "progress": "7/10", "clientsReady": "4/4", "accuracy": "0.861",
        "bytes": "1.2 GB", "loss": "0.41", "clientFlops": "3.1e15", "eta": "12m", "message": "round 8 is under way",
    }});
    let written = resources.patch_status("mail", &PatchParams::default(), &Patch::Merge(&status)).await;
    written.expect("a status may be written");
    let get = |words: &[&str]| {
        let table = cluster.kubectl(&[&["get", "fft", "-n", &namespace], words].concat(), "").well().stdout;
        let mut lines = table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()));
        let mut next = || lines.next().expect("a head and a row").map(str::to_owned).collect::<Vec<_>>();
        (next(), next())
    };
    let (head, mut row) = get(&[]);
    let age = row.pop().expect("there is an age");
    assert_eq!(head, ["NAME", "FRAMEWORK", "PHASE", "PROGRESS", "CLIENTS", "ACCURACY", "BYTES", "AGE"]);
    assert_eq!(row, ["mail", "FedLLM", "Running", "7/10", "4/4", "0.861", "1.2 GB"]);
    assert!(age.ends_with('s'), "{age}");
    let (head, row) = get(&["-o", "wide"]);
    assert_eq!(head[8..], ["EXPERIMENT", "LOSS", "FLOPS", "ETA", "MESSAGE"]);
    assert_eq!(row[8..], ["default", "0.41", "3.1e15", "12m", "round 8 is under way"]);
}
