//! What a person can get wrong: each ends with its exit code and a sentence that says what would be right.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{fs, net::TcpListener, path::Path};

use fedtune_tests::{Bench, Ended, tiny};
use serde_json::{Value, json};

/// A run failed.
const FAILED: i32 = 1;
/// The spec, the model, the data or the machine's set-up is at fault.
const CONFIGURATION: i32 = 78;

/// Asserts that the program ended with this code and these words, and not by accident.
fn refused(ended: &Ended, code: i32, words: &str) {
    assert_eq!(ended.code, Some(code), "{ended:#?}");
    assert!(ended.stderr.contains(words), "{words:?} is not in\n{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("fedtune: "), "the last line should be the error's: {last:?}");
    assert!(!ended.stderr.contains("panicked at"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "nothing was compared");
}

/// A FedLLM spec run with these overrides is refused with these words, and leaves no folder that claims to be a run's.
fn sets_are_refused(sets: &[&str], words: &str) {
    let bench = Bench::new();
    refused_without_a_trace(&bench, &bench.spec("tiny", "fedLLM: {}"), sets, words);
}

fn refused_without_a_trace(bench: &Bench, spec: &str, sets: &[&str], words: &str) {
    let arguments: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    refused(&bench.run(spec, &arguments), CONFIGURATION, words);
    assert_eq!(bench.files("out"), [""; 0]);
}

/// YAML with `from` written as `to` is refused with these words.
fn edit_is_refused(from: &str, to: &str, words: &str) {
    let bench = Bench::new();
    let yaml = bench.yaml("tiny", "fedLLM: {}");
    assert!(yaml.contains(from), "{from:?} is not in the spec");
    let spec = bench.write("tiny.yaml", yaml.replace(from, to)).display().to_string();
    refused_without_a_trace(&bench, &spec, &[], words);
}

/// A model spoilt in this way is refused with these words.
fn model_is_refused(spoil: impl FnOnce(&Path), words: &str) {
    let bench = Bench::new();
    spoil(&bench.path("model"));
    refused_without_a_trace(&bench, &bench.spec("tiny", "fedLLM: {}"), &[], words);
}

fn edit_config(model: &Path, edit: impl FnOnce(&mut Value)) {
    let path = model.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(path, config.to_string()).unwrap();
}

fn edit_weights(model: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let path = model.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

// The spec.

#[test]
fn an_unknown_field_is_refused_with_the_fields_that_there_are() {
    edit_is_refused("  seed: 42", "  colour: blue", "tiny.yaml: spec.colour is not a field; the fields here are ");
}

#[test]
fn a_misspelt_field_is_refused_with_the_nearest_right_one() {
    edit_is_refused(
        "localSteps: 3",
        "locelSteps: 3",
        "spec.training.locelSteps is not a field; did you mean localSteps?",
    );
}

#[test]
fn a_misspelt_word_is_refused_with_the_nearest_right_one() {
    edit_is_refused(
        "precision: F32",
        "precision: BF61",
        "spec.model.precision is BF61; it is one of F32, BF16; did you mean BF16?",
    );
}

#[test]
fn a_misspelt_framework_is_refused_with_the_nearest_right_one() {
    edit_is_refused("fedLLM: {}", "fedLlm: {}", "spec.framework.fedLlm is not a field; did you mean fedLLM?");
}

#[test]
fn every_problem_of_a_spec_is_said_at_once() {
    let bench = Bench::new();
    let yaml = bench.yaml("tiny", "fedLLM: {}").replace("rank: 2", "rnak: 2").replace("format: CSV", "format: CVS");
    let spec = bench.write("tiny.yaml", yaml).display().to_string();
    let ended = bench.run(&spec, &[]);
    refused(&ended, CONFIGURATION, "spec.tuning.lora.rnak is not a field; did you mean rank?");
    refused(&ended, CONFIGURATION, "spec.data.format is CVS; it is one of ");
}

#[test]
fn rank_0_is_refused() {
    sets_are_refused(&["tuning.lora.rank=0"], "spec.tuning.lora.rank is 0");
}

#[test]
fn yaml_that_is_not_yaml_is_refused_with_its_line() {
    edit_is_refused("  framework:\n", "  framework: {\n", "tiny.yaml: this is not YAML: ");
}

#[test]
fn a_file_without_a_resource_is_refused() {
    let bench = Bench::new();
    let spec = bench.write("empty.yaml", "# nothing yet\n").display().to_string();
    refused_without_a_trace(
        &bench,
        &spec,
        &[],
        "there is no resource; one begins with apiVersion: fedtune.io/v1alpha1",
    );
}

#[test]
fn a_spec_file_that_is_missing_is_named() {
    let bench = Bench::new();
    refused_without_a_trace(&bench, "nowhere.yaml", &[], "nowhere.yaml: No such file or directory");
}

#[test]
fn two_specs_of_one_name_are_refused_before_either_runs() {
    let bench = Bench::new();
    let first = bench.spec("tiny", "fedLLM: {}");
    let second = bench.write("other.yaml", bench.yaml("tiny", "central: {}")).display().to_string();
    let ended = bench.fedtune(&["run", &first, &second]);
    refused(&ended, CONFIGURATION, "two specs are named tiny; each run needs a metadata.name");
    assert_eq!(bench.files("out"), [""; 0]);
}

#[test]
fn one_wrong_spec_of_two_stops_both() {
    let bench = Bench::new();
    let right = bench.spec("right", "fedLLM: {}");
    let wrong = bench.spec("wrong", "fedLLM: {uplode: Parameters}");
    refused(&bench.fedtune(&["run", &right, &wrong]), CONFIGURATION, "uplode is not a field; did you mean upload?");
    assert_eq!(bench.files("out"), [""; 0]);
}

#[test]
fn an_override_of_an_unknown_path_is_refused_with_the_nearest_right_one() {
    sets_are_refused(
        &["training.round=5"],
        "--set training.round=5: spec.training.round is not a field; did you mean rounds?",
    );
}

#[test]
fn an_override_without_a_value_is_refused() {
    sets_are_refused(&["training.rounds"], "there is no =; write path=value, as in training.rounds=5");
}

#[test]
fn a_language_model_without_a_vocabulary_is_refused() {
    sets_are_refused(
        &["model.task=CausalLM", "data.labels=[]", "data.columns={prompt: text, response: mood}"],
        "this BERT model has no layer over the vocabulary, which task CausalLM reads; use a decoder such as Llama",
    );
}

#[test]
fn prompts_for_a_classifier_are_refused() {
    sets_are_refused(
        &["data.columns={prompt: text, response: mood}"],
        "spec.model.task is \"SequenceClassification\"; prompts, messages and systemPrompt are for language models",
    );
}

#[test]
fn a_model_of_several_files_behind_one_address_is_refused_before_anything_is_asked_for() {
    let bench = Bench::new();
    let yaml = bench.yaml("tiny", "fedLLM: {}");
    let path = format!("source: {{path: {}}}", bench.path("model").display());
    let http = "source: {http: {url: 'https://me:secret@models.invalid/model.safetensors'}}";
    assert!(yaml.contains(&path));
    let spec = bench.write("tiny.yaml", yaml.replace(&path, http)).display().to_string();
    let words = "https://models.invalid/model.safetensors is one file, so a model there is a .gguf file";
    refused_without_a_trace(&bench, &spec, &[], words);
}

// The model.

#[test]
fn a_cut_layer_past_the_model_is_refused() {
    let bench = Bench::new();
    for cut in [tiny::BLOCKS, 40] {
        let spec = bench.spec("tiny", &format!("splitFedLLM: {{cutLayer: {cut}}}"));
        let words =
            format!("clients of group silo are to hold {cut} blocks, and the model has 3; the group's cutLayer, or ");
        refused_without_a_trace(&bench, &spec, &[], &words);
    }
}

#[test]
fn a_target_module_that_the_model_lacks_is_refused_with_those_it_has() {
    sets_are_refused(
        &["tuning.lora.targetModules=[query, q_proj]"],
        "LoRA target \"q_proj\" is no linear layer of this BERT model; it has ",
    );
}

#[test]
fn texts_longer_than_the_model_takes_are_refused() {
    sets_are_refused(
        &["training.maxSequenceLength=17"],
        "training.maxSequenceLength is 17, and the model takes 16 tokens; set at most 16",
    );
}

#[test]
fn a_model_folder_that_is_missing_is_named() {
    model_is_refused(|model| fs::remove_dir_all(model).unwrap(), "/model cannot be read: No such file or directory");
}

#[test]
fn a_tokenizer_and_a_model_that_disagree_are_refused() {
    let words: Vec<String> = (0..tiny::VOCABULARY - 3).map(|number| format!("w{number}")).collect();
    let words: Vec<&str> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].into_iter().chain(words.iter().map(String::as_str)).collect();
    model_is_refused(
        |model| tiny::write_tokenizer(model, &words),
        "tokenizer and model disagree: the tokenizer's largest token id is 61, the model's embedding has 61 rows",
    );
}

#[test]
fn a_model_without_a_tokenizer_is_refused() {
    model_is_refused(|model| fs::remove_file(model.join("tokenizer.json")).unwrap(), "tokenizer.json cannot be read: ");
}

#[test]
fn truncated_safetensors_are_refused() {
    model_is_refused(
        |model| edit_weights(model, |bytes| bytes.truncate(bytes.len() - 4)),
        "model.safetensors is truncated or corrupt: its header describes ",
    );
}

#[test]
fn a_safetensors_header_that_lies_is_refused() {
    model_is_refused(
        |model| edit_weights(model, |bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes())),
        "model.safetensors is truncated or corrupt: its header claims 18446744073709551615 bytes, the file has ",
    );
}

#[test]
fn weights_that_are_not_as_the_configuration_says_are_refused() {
    model_is_refused(
        |model| edit_config(model, |config| config["intermediate_size"] = json!(44)),
        "the configuration asks for [44, 24]",
    );
}

/// A GGUF of version 3 that claims this many tensors and one metadata entry.
fn gguf(tensors: u64) -> Vec<u8> {
    let (key, value) = ("general.architecture", "llama");
    let mut bytes = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &tensors.to_le_bytes(), &1u64.to_le_bytes()].concat();
    bytes.extend((key.len() as u64).to_le_bytes());
    bytes.extend(key.as_bytes());
    bytes.extend(8u32.to_le_bytes());
    bytes.extend((value.len() as u64).to_le_bytes());
    bytes.extend(value.as_bytes());
    bytes
}

fn gguf_is_refused(bytes: &[u8], words: &str) {
    let bench = Bench::new();
    let set = format!("model.source.path={}", bench.write("model.gguf", bytes).display());
    refused_without_a_trace(&bench, &bench.spec("tiny", "fedLLM: {}"), &[&set], words);
}

#[test]
fn a_truncated_gguf_is_refused() {
    let whole = gguf(0);
    gguf_is_refused(
        &whole[..whole.len() - 3],
        "model.gguf is truncated or corrupt: it claims 5 characters of text, but only 2 bytes are left",
    );
}

#[test]
fn a_gguf_header_that_lies_is_refused() {
    gguf_is_refused(
        &gguf(u64::MAX),
        "model.gguf is truncated or corrupt: it claims 18446744073709551615 tensors, but only ",
    );
}

#[test]
fn a_model_of_an_architecture_that_is_lacking_is_refused_with_those_there_are() {
    model_is_refused(
        |model| {
            edit_config(model, |config| {
                config["model_type"] = json!("gpt_neox");
                config["architectures"] = json!(["GPTNeoXForCausalLM"]);
            });
        },
        "config.json describes a model of architecture gpt_neox; supported are BERT, GPT-2, Llama (also SmolLM2 and TinyLlama), Mistral and Qwen2",
    );
}

// The data.

#[test]
fn a_column_that_is_missing_is_refused_with_those_there_are() {
    sets_are_refused(&["data.columns.label=category"], "reviews.csv has no column `category`; the columns there are ");
}

#[test]
fn a_client_without_an_example_is_refused_with_what_would_help() {
    sets_are_refused(
        &["data.partition={dirichlet: {alpha: \"0.0001\", over: label}}", "clients.groups[0].replicas=8"],
        " has no example after the partition; an alpha larger than 0.0001, fewer clients, or another seed would help",
    );
}

#[test]
fn more_clients_than_examples_are_refused() {
    sets_are_refused(
        &["clients.groups[0].replicas=80"],
        " has no example after the partition; fewer clients, or smaller held-out sets, would leave some for each",
    );
}

#[test]
fn more_held_out_examples_than_there_are_are_refused() {
    sets_are_refused(&["data.evaluation.examples=500"], "the evaluation set wants 500 examples, but only 120 of 120");
}

#[test]
fn a_label_in_evaluation_that_no_client_trains_on_is_refused() {
    for framework in ["fedLLM: {}", "kdFedLLM: {}", "splitFedLLM: {cutLayer: 1}", "central: {}", "localOnly: {}"] {
        let bench = Bench::new();
        let own = bench.write("held-out.csv", "text,mood\nthe lamp was fine,good\nthe lamp was and was,strange\n");
        let sets = [format!("data.evaluation.source.path={}", own.display()), "data.evaluation.examples=2".to_owned()];
        let ended = bench.run(&bench.spec("tiny", framework), &["--set", &sets[0], "--set", &sets[1]]);
        let words =
            "the label `strange` is in evaluation or public data but no client trains on it (they have `bad`, `good`)";
        refused(&ended, CONFIGURATION, words);
    }
}

// The machine.

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_round_and_client() {
    let bench = Bench::new();
    let optimizer = ["--set", "training.optimizer={sgd: {learningRate: \"1e30\"}}"];
    let ended = bench.run(&bench.spec("tiny", "fedLLM: {}"), &optimizer);
    refused(&ended, FAILED, "the loss of silo/");
    let sentence = ended.stderr.lines().last().unwrap();
    assert!(sentence.contains(" in round 1, step "), "{sentence}");
    let report = bench.report("out", "tiny");
    assert_eq!(report.phase, fedtune_crds::report::RunPhase::Failed);
    assert!(sentence.ends_with(&report.stop_reason), "{}", report.stop_reason);
    let files = bench.files("out");
    let results = files.iter().filter(|file| !file.starts_with("tiny/checkpoint/"));
    assert!(results.eq(["tiny/report.html", "tiny/results.json", "tiny/rounds.csv", "tiny/run.json"]), "{files:?}");
}

#[test]
fn an_output_folder_of_another_spec_is_left_alone() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let _run = bench.run(&spec, &[]).well();
    let before = bench.read("out/tiny/results.json");
    let ended = bench.run(&spec, &["--set", "seed=43"]);
    refused(
        &ended,
        CONFIGURATION,
        "out/tiny holds a run of another spec; choose another --out or metadata.name, or --fresh",
    );
    assert_eq!(bench.read("out/tiny/results.json"), before);
}

#[test]
fn a_folder_that_is_no_runs_is_left_alone_also_by_a_fresh_run() {
    let bench = Bench::new();
    bench.write("out/tiny/thesis.txt", "three years of work");
    let spec = bench.spec("tiny", "fedLLM: {}");
    for arguments in [&[][..], &["--fresh"]] {
        let words = "out/tiny is there already and is no run's folder; choose another --out or metadata.name";
        refused(&bench.run(&spec, arguments), CONFIGURATION, words);
        assert_eq!(bench.files("out"), ["tiny/thesis.txt"]);
    }
}

#[test]
fn a_run_that_was_refused_does_not_stand_in_the_way_of_the_corrected_one() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let ended = bench.run(&spec, &["--set", "data.columns.label=category"]);
    refused(&ended, CONFIGURATION, "has no column `category`");
    let _corrected = bench.run(&spec, &[]).well();
}

#[test]
fn an_output_folder_that_cannot_be_written_is_named() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    // Below a file, and in a file system that takes no folders: there root may not write either.
    for out in ["reviews.csv", "/proc/fedtune"] {
        let ended = bench.run(&spec, &["--out", out]);
        refused(&ended, CONFIGURATION, &format!("{out}/tiny cannot be written: "));
        refused(&ended, CONFIGURATION, "choose an --out that this user may write to");
    }
}

#[test]
fn a_port_that_is_taken_is_said() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let ended = bench.fedtune(&["server", &spec, "--listen", &address.to_string()]);
    let words =
        format!("port {} on 127.0.0.1 is taken: stop the program that uses it, or choose another", address.port());
    refused(&ended, CONFIGURATION, &words);
    assert_eq!(bench.files("out"), [""; 0]);
}

#[test]
fn cuda_where_there_is_none_is_refused() {
    let bench = Bench::new();
    let spec = bench.spec("tiny", "fedLLM: {}");
    let mut command = bench.command(&["run", &spec, "--set", "training.device=CUDA"]);
    let ended = fedtune_tests::Running::start(command.env("CUDA_VISIBLE_DEVICES", "")).wait();
    refused(&ended, CONFIGURATION, "training.device is CUDA, and this libtorch has no CUDA, or no GPU is visible");
    assert_eq!(bench.files("out"), [""; 0]);
}

#[test]
fn a_report_of_nothing_is_refused() {
    let bench = Bench::new();
    refused(&bench.fedtune(&["report", "model"]), CONFIGURATION, "model holds no results: expected results.json in it");
}
