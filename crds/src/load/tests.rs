use super::*;
use crate::{framework::Variant, model::Precision, training::LocalWork};

const SMALLEST: &str = "
apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {name: mail}
spec:
  framework: {splitFedLLM: {}}
  model: {source: {path: model}}
  data: {source: {path: data}}
";

/// `SMALLEST` with `spec` for its spec.
fn with_spec(spec: &str) -> String {
    format!("apiVersion: fedtune.io/v1alpha1\nkind: FederatedFineTune\nmetadata: {{name: mail}}\nspec: {spec}\n")
}

fn sentences_of(yaml: &str, sets: &[&str]) -> Vec<String> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load_all(yaml, &sets).expect_err("something is wrong").sentences()
}

fn set(sets: &[&str]) -> FederatedFineTune {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    load(SMALLEST, &sets).unwrap_or_else(|error| panic!("{sets:?}: {error}"))
}

#[test]
fn the_smallest_resource_is_filled_with_defaults() {
    let spec = load(SMALLEST, &[]).expect("it loads").spec;
    assert_eq!(spec.tuning.lora.rank, 8);
    assert_eq!(spec.training.local_work(), LocalWork::Steps(10));
    assert_eq!(spec.clients.count(), 2);
    assert_eq!(spec.data.evaluation.examples, Some(200));
    assert!(spec.data.partition.iid.is_some());
    assert!(spec.training.optimizer.adam_w.is_some());
    assert_eq!(spec.participation.round_timeout.duration().as_secs(), 7200);
    assert_eq!(spec.framework.split_fed_llm.expect("it is set").variant, Variant::V1);
}

#[test]
fn a_resource_written_out_with_its_defaults_loads_as_itself() {
    let resource = load(SMALLEST, &[]).expect("it loads");
    let yaml = serde_yaml::to_string(&resource).expect("plain data");
    assert_eq!(load(&yaml, &[]).expect("it loads again"), resource);
}

#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let resource = load(SMALLEST, &[]).expect("it loads");
    let document: Value = serde_yaml::from_str(SMALLEST).expect("YAML");
    let by_serde: FederatedFineTune = serde_json::from_value(document).expect("it reads");
    assert_eq!(by_serde, resource);
}

#[test]
fn a_chosen_union_member_replaces_the_default_one() {
    let spec = set(&["data.partition.dirichlet.alpha=0.1", "training.optimizer.sgd.learningRate=0.1"]).spec;
    assert!(spec.data.partition.iid.is_none());
    assert!(spec.training.optimizer.adam_w.is_none());
    assert_eq!(spec.data.partition.dirichlet.expect("it is set").over, "label");
}

#[test]
fn a_misspelt_field_is_refused_with_the_nearest_right_one() {
    let spec = "{framework: {splitFedLM: {}}, model: {source: {path: a}, precison: BF16}, data: {source: {path: b}}, tuning: {lora: {rnak: 4}}, zzz: 1}";
    let found = sentences_of(&with_spec(spec), &[]);
    assert_eq!(found.len(), 4, "{found:#?}");
    assert_eq!(found[0], "spec.framework.splitFedLM is not a field; did you mean splitFedLLM?");
    assert_eq!(found[1], "spec.model.precison is not a field; did you mean precision?");
    assert_eq!(found[2], "spec.tuning.lora.rnak is not a field; did you mean rank?");
    assert!(found[3].starts_with("spec.zzz is not a field; the fields here are activeDeadlineSeconds, attempt,"));
}

#[test]
fn a_field_where_there_are_none_is_refused() {
    let spec = "{framework: {central: {rounds: 1}}, model: {source: {path: a}}, data: {source: {path: b}}}";
    assert_eq!(
        sentences_of(&with_spec(spec), &[]),
        ["spec.framework.central.rounds is not a field; there are no fields here"]
    );
}

#[test]
fn a_word_outside_of_its_list_is_refused_with_the_list() {
    assert_eq!(
        sentences_of(SMALLEST, &["framework.splitFedLLM.variant=V3"]),
        ["spec.framework.splitFedLLM.variant is V3; it is one of V1, V2"]
    );
    assert_eq!(sentences_of(SMALLEST, &["model.precision=Q4"]), ["spec.model.precision is Q4; it is one of F32, BF16"]);
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_the_right_one() {
    let spec = "{framework: {central: {}}, model: {source: {path: a}}, data: {source: {path: b}, labels: spam},
        tuning: {lora: {alpha: 16, rank: '8'}}, training: {rounds: 2.5, optimizer: adamW}, suspend: yes please, stop: {maxBytes: [1]}}";
    assert_eq!(
        sentences_of(&with_spec(spec), &[]),
        [
            "spec.data.labels is the text \"spam\"; expected a list",
            "spec.stop.maxBytes is a list; expected a whole number, or one with a unit such as 10Gi",
            "spec.suspend is the text \"yes please\"; expected true or false",
            "spec.training.optimizer is the text \"adamW\"; expected an object with fields",
            "spec.training.rounds is the number 2.5; expected a whole number",
            "spec.tuning.lora.alpha is the number 16; write it in quotes, \"16\"",
            "spec.tuning.lora.rank is the text \"8\"; write it without quotes, 8",
        ]
    );
}

#[test]
fn what_is_missing_is_named_with_what_it_is() {
    assert_eq!(
        sentences_of(&with_spec("{framework: {central: {}}, model: {}}"), &[]),
        [
            "spec.model.source is missing (A folder or repository with `config.json`, `*.safetensors` and `tokenizer.json`, or a GGUF file)",
            "spec.data is missing (The examples)",
        ]
    );
}

#[test]
fn another_kind_of_object_is_refused() {
    let yaml = "apiVersion: batch/v1\nkind: Job\nmetadata: {}\n";
    let found = sentences_of(yaml, &[]);
    assert_eq!(found[0], "apiVersion is the text \"batch/v1\"; expected fedtune.io/v1alpha1");
    assert_eq!(found[1], "kind is the text \"Job\"; expected FederatedFineTune");
    assert!(found.contains(&"metadata.name is missing (The resource's name)".to_owned()), "{found:#?}");
    assert_eq!(
        sentences_of("just text", &[])[2],
        "the resource is the text \"just text\"; expected an object with fields"
    );
}

#[test]
fn lengths_and_duplicates_are_refused() {
    let long = format!("model.source.path={}", "a".repeat(1025));
    assert_eq!(sentences_of(SMALLEST, &[&long]), ["spec.model.source.path has 1025 characters; it has at most 1024"]);
    assert_eq!(
        sentences_of(SMALLEST, &["model.source.path="]),
        ["spec.model.source.path has 0 characters; it has at least 1"]
    );
    assert_eq!(
        sentences_of(SMALLEST, &["clients.groups=[]"]),
        ["spec.clients.groups has 0 entries; it has at least 1"]
    );
    assert_eq!(
        sentences_of(SMALLEST, &["clients.groups=[{name: a}, {name: a}]"]),
        ["spec.clients.groups has two entries with the name \"a\"; each has its own"]
    );
    assert_eq!(
        sentences_of(SMALLEST, &["data.labels=[a, b, a]"]),
        ["spec.data.labels has two entries with the value \"a\"; each has its own"]
    );
}

#[test]
fn shape_and_rules_are_reported_together() {
    let found = sentences_of(SMALLEST, &["tuning.lora.rank=0", "training.threads=0", "model.precision=BF"]);
    assert_eq!(
        found,
        [
            "spec.model.precision is BF; it is one of F32, BF16; did you mean BF16?",
            "spec.training.threads is 0; a number of threads is a whole number from 1 to 256",
            "spec.tuning.lora.rank is 0; a LoRA rank is a whole number from 1 to 1024",
        ]
    );
}

#[test]
fn an_empty_field_counts_as_absent() {
    let spec =
        "{framework: {central: {}}, model: {source: {path: a}, precision: }, data: {source: {path: b}, public: }}";
    let spec = load(&with_spec(spec), &[]).expect("it loads").spec;
    assert_eq!(spec.model.precision, Precision::F32);
    assert_eq!(spec.data.public, None);
}

#[test]
fn status_and_other_metadata_are_let_through() {
    let yaml = SMALLEST
        .replace("{name: mail}", "{name: mail, labels: {team: a}, uid: x}\nstatus: {phase: Running, anything: 1}");
    assert_eq!(load(&yaml, &[]).expect("it loads").status, None);
}

#[test]
fn overrides_work_with_and_without_the_prefix() {
    let resource =
        set(&["spec.training.rounds=7", "tuning.lora.alpha=32", "metadata.name=other", "data.labels=[ham, spam]"]);
    assert_eq!(resource.spec.training.rounds, 7);
    assert_eq!(resource.spec.tuning.lora.alpha.value().to_bits(), 32_f64.to_bits());
    assert_eq!(resource.metadata.name.as_deref(), Some("other"));
    assert_eq!(resource.spec.data.labels, ["ham", "spam"]);
}

#[test]
fn overrides_reach_into_lists_and_maps() {
    let spec = set(&[
        "clients.groups[0].replicas=5",
        "clients.groups.0.maxExamples=10",
        "data.format=Folders",
        "data.labelMap.spam-1=spam",
        "server.template.spec.priorityClassName=high",
    ])
    .spec;
    assert_eq!((spec.clients.groups[0].replicas, spec.clients.groups[0].max_examples), (5, Some(10)));
    assert_eq!(spec.data.label_map.expect("it is set")["spam-1"], "spam");
    assert_eq!(spec.server.template.expect("it is set").0["spec"], json!({"priorityClassName": "high"}));
}

#[test]
fn an_override_with_null_takes_a_field_away() {
    let spec = set(&["framework.splitFedLLM=null", "framework.central={}"]).spec;
    assert!(spec.framework.split_fed_llm.is_none() && spec.framework.central.is_some());
}

#[test]
fn an_override_that_cannot_be_applied_says_why() {
    for (set, sentence) in [
        ("tuning.lora.rnak=4", "spec.tuning.lora.rnak is not a field; did you mean rank?"),
        ("training.rounds", "there is no =; write path=value, as in training.rounds=5"),
        ("training..rounds=5", "a part of the path is empty; write it as in clients.groups[0].replicas"),
        ("clients.groups[x].rank=5", "an index is a number in [], as in clients.groups[0].replicas"),
        ("clients.groups[3].rank=5", "spec.clients.groups has 1 entries, counted from 0; there is no [3]"),
        ("clients.groups.rank=5", "spec.clients.groups is a list; say which entry, as in spec.clients.groups[0].rank"),
        ("seed.a=5", "spec.seed is one value, without fields or entries"),
        ("seed[0]=5", "spec.seed is one value, without fields or entries"),
    ] {
        assert_eq!(sentences_of(SMALLEST, &[set]), [format!("--set {set}: {sentence}")]);
    }
    assert!(
        sentences_of(SMALLEST, &["data.labels=[a"])[0].starts_with("--set data.labels=[a: the value is not YAML: ")
    );
}

#[test]
fn a_file_may_hold_several_resources() {
    let second = SMALLEST.replace("name: mail", "name: second");
    let resources = load_all(&format!("{SMALLEST}---\n---{second}"), &[]).expect("both load");
    let names: Vec<_> = resources.iter().filter_map(|resource| resource.metadata.name.as_deref()).collect();
    assert_eq!(names, ["mail", "second"]);
    assert!(matches!(load(&format!("{SMALLEST}---{second}"), &[]), Err(LoadError::Several(2))));
}

#[test]
fn problems_of_several_resources_say_whose_they_are() {
    let second = SMALLEST.replace("name: mail", "name: second").replace("{path: model}", "{}");
    let third = SMALLEST.replace("metadata: {name: mail}", "metadata: {}");
    let found = sentences_of(&format!("{SMALLEST}---{second}---{third}"), &[]);
    assert_eq!(
        found,
        [
            "second: spec.model.source: set exactly one of path, huggingFace, http, s3",
            "resource 3: metadata.name is missing (The resource's name)",
        ]
    );
}

#[test]
fn text_that_is_no_yaml_and_no_text_are_refused() {
    assert!(matches!(load("a: [", &[]), Err(LoadError::Yaml(_))));
    assert!(matches!(load("a: 1\na: 2", &[]), Err(LoadError::Yaml(_))), "a key that is there twice");
    assert!(matches!(load("", &[]), Err(LoadError::Empty)));
    assert!(matches!(load("# only a comment\n---\n", &[]), Err(LoadError::Empty)));
}

#[test]
fn a_few_lines_that_stand_for_millions_of_values_are_refused() {
    let list = |item: &str| vec![item; 1000].join(", ");
    let told = sentences_of(&format!("a: &a [{}]\nb: [{}]\n", list("1"), list("*a")), &[]);
    assert!(told[0].starts_with("this is not YAML: ") && told[0].contains("more than 100000 values"), "{told:?}");
}

#[test]
fn a_value_with_a_tag_is_counted_and_read_like_any_other() {
    let told = sentences_of("kind: !odd [1, {a: !more 2}]\n", &[]);
    assert!(!told[0].contains("values"), "{told:?}");
}

#[test]
fn merge_keys_are_resolved() {
    let spec = "{framework: {central: {}}, model: {source: &place {path: a}}, data: {source: {<<: *place}}}";
    assert_eq!(load(&with_spec(spec), &[]).expect("it loads").spec.data.source.path.as_deref(), Some("a"));
}

#[test]
fn no_text_makes_the_loader_panic() {
    // Cut anywhere and with any one byte replaced: an error or a resource, never a panic.
    for cut in 0..SMALLEST.len() {
        let _ = load(&SMALLEST[..cut], &[]);
    }
    for (at, _) in SMALLEST.char_indices() {
        for byte in ['{', '-', ':', '!', '&', '\0', '9'] {
            let mut text = SMALLEST.to_owned();
            text.replace_range(at..=at, &byte.to_string());
            let _ = load(&text, &[]);
        }
    }
    for set in [
        "",
        "=",
        ".=",
        "[0]=1",
        "a[=1",
        "metadata=1",
        "spec=1",
        "spec.clients.groups=1",
        "0.1=2",
        "metadata.labels.a.b=1",
    ] {
        let _ = load(SMALLEST, &[set.to_owned()]);
    }
}
