use super::*;
use crate::{
    export::{Export, write_adapter},
    models::golden::{self, load, query_value},
};

const LABELS: [&str; 3] = ["eggs", "ham", "spam"];

fn labels() -> Vec<String> {
    LABELS.map(str::to_owned).to_vec()
}

fn model(seed: u64) -> Model {
    let base = load(&golden::file("tiny-bert"));
    let lora = query_value(&base);
    Model::new(base, &lora, Head::Classifier(3), seed).unwrap()
}

/// An adapter of a tiny BERT, as a run exports it.
fn exported(above: &Path) -> PathBuf {
    let (folder, model) = (above.join("adapter"), model(7));
    let lora = query_value(model.base());
    let export = Export {
        lora: &lora,
        base: "models/tiny".into(),
        revision: None,
        labels: &labels(),
        pad_id: 2,
        system_prompt: None,
    };
    write_adapter(&folder, &model, &export).unwrap();
    folder
}

/// The adapter with one field of a file changed, and what reading it and putting it on its base says.
fn refused(file: &str, field: &str, value: Value) -> String {
    let above = tempfile::tempdir().unwrap();
    let folder = exported(above.path());
    let mut json: Value = serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap();
    json[field] = value;
    fs::write(folder.join(file), json.to_string()).unwrap();
    let read = AdapterFiles::read(&folder).and_then(|files| files.put_on(&model(0)));
    read.unwrap_err().to_string().replace(&folder.display().to_string(), "DIR")
}

#[test]
fn what_a_run_exports_is_read_back_to_the_last_bit() {
    let above = tempfile::tempdir().unwrap();
    let files = AdapterFiles::read(&exported(above.path())).unwrap();
    assert_eq!(files.base.as_deref(), Some(Path::new("models/tiny")));
    assert_eq!((files.task, files.pad_id), (AdapterTask::Classification, Some(2)));
    assert_eq!((files.labels.clone(), files.lora.clone()), (labels(), query_value(model(0).base())));
    let (other, original) = (model(0), model(7));
    files.put_on(&other).unwrap();
    for (read, written) in other.adapter().parameters().iter().zip(original.adapter().parameters()) {
        assert!(read.tensor.equal(&written.tensor), "{}", read.name);
    }
}

#[test]
fn settings_that_are_not_supported_are_refused_by_name() {
    let config = |field, value| refused(CONFIG, field, value);
    assert_eq!(config("peft_type", "IA3".into()), "the adapter in DIR is of PEFT's type IA3, which is not supported");
    assert_eq!(config("use_dora", true.into()), "the adapter in DIR decomposes weights (DoRA), which is not supported");
    assert!(config("bias", "all".into()).contains("trains biases"));
    assert!(config("rank_pattern", serde_json::json!({"query": 4})).contains("rank_pattern"));
    assert!(config("target_modules", ".*query".into()).contains("by a pattern, \".*query\""));
    assert!(config("task_type", "TOKEN_CLS".into()).contains("trained for the task TOKEN_CLS"));
}

#[test]
fn another_base_is_refused_with_what_does_not_fit() {
    let vocab = refused(MODEL_CONFIG, "vocab_size", 99.into());
    assert!(vocab.contains("made for a vocabulary of 99 tokens, and this base has one of"), "{vocab}");
    let rank = refused(CONFIG, "r", 5.into());
    assert!(rank.contains("lora_A.weight has shape") && rank.contains("[5, 24] is needed"), "{rank}");
    let more = refused(CONFIG, "target_modules", serde_json::json!(["query", "value", "key"]));
    assert!(more.contains("it has no tensor") && more.contains("key.lora_A.weight"), "{more}");
    let fewer = refused(CONFIG, "target_modules", serde_json::json!(["query"]));
    assert!(fewer.contains("has no place in a BERT model of 3 blocks with these settings"), "{fewer}");
}

#[test]
fn a_spec_that_asks_for_another_adapter_is_refused_with_the_field_to_change() {
    let above = tempfile::tempdir().unwrap();
    let files = AdapterFiles::read(&exported(above.path())).unwrap();
    let model = model(0);
    let (own, head) = (files.lora.clone(), Head::Classifier(3));
    let check = |lora: &LoraSettings, head, labels: &[String]| {
        let checked = files.check_settings(model.shape(), lora);
        let checked = checked.and_then(|()| files.check_labels(model.shape(), head, labels));
        checked.map_err(|error| error.to_string().split_once("the spec: ").unwrap().1.to_owned())
    };
    assert_eq!(check(&own, head, &labels()), Ok(()));
    let rank = LoraSettings { rank: 16, ..own.clone() };
    let sentence = format!("it has rank {}, and tuning.lora.rank is 16; set it to {0}", own.rank);
    assert_eq!(check(&rank, head, &labels()), Err(sentence));
    let alpha = LoraSettings { alpha: own.alpha * 2.0, ..own.clone() };
    assert!(check(&alpha, head, &labels()).unwrap_err().contains("another scale would be another model"));
    let targets = LoraSettings { target_modules: vec!["key".to_owned()], ..own.clone() };
    assert!(check(&targets, head, &labels()).unwrap_err().contains("targetModules asks for key"));
    let other = check(&own, Head::Classifier(2), &labels()[..2]).unwrap_err();
    assert_eq!(other, "it ends in a classifier of 3 labels, and the run in a classifier of 2 labels");
    let order = ["ham", "eggs", "spam"].map(str::to_owned);
    assert!(
        check(&own, head, &order)
            .unwrap_err()
            .contains("its labels are eggs, ham, spam, and the run's are ham, eggs, spam")
    );
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let above = tempfile::tempdir().unwrap();
    let folder = exported(above.path());
    let whole = fs::read(folder.join(WEIGHTS)).unwrap();
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(folder.join(WEIGHTS), &whole[..length]).unwrap();
        let refused = AdapterFiles::read(&folder).unwrap_err().to_string();
        assert!(refused.contains("truncated or corrupt"), "{length}: {refused}");
    }
    fs::remove_file(folder.join(WEIGHTS)).unwrap();
    let refused = AdapterFiles::read(&folder).unwrap_err().to_string();
    assert!(
        refused.contains("an adapter is a folder with adapter_config.json and adapter_model.safetensors"),
        "{refused}"
    );
}
