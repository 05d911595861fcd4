use std::path::Path;

use super::*;
use crate::{
    data::{
        Columns, Corpus, DataPlan, Format, GroupPlan, HeldOut, Partition, Scope, Source, load,
        testing::{loaded, notes, nowhere, recorded, write},
    },
    events::Events,
    models::{ChatTemplate, LoadedTokenizer},
    sources::Origin,
};

/// Words of the tiny tokenizer around each message: `w900 user-or-assistant`, the content, `w999`.
const TEMPLATE: &str = "{% for message in messages %}{{ 'w900 ' + ('w902' if message.role == 'assistant' else 'w901') + ' ' \
    + message.content + ' w999' }}{{ ' w903 ' }}{% endfor %}{% if add_generation_prompt %}{{ 'w900 w902' }}{% endif %}";

const OPEN: u32 = 910;
const USER: u32 = 911;
const ASSISTANT: u32 = 912;
const BETWEEN: u32 = 913;
const END: u32 = 1009;

fn tokenizer() -> LoadedTokenizer {
    let chat = ChatTemplate { source: TEMPLATE.into(), bos_token: None, eos_token: Some("w999".into()) };
    LoadedTokenizer { chat: Some(chat), eos_id: Some(END), ..loaded(false) }
}

fn plan(source: Source<Origin>) -> DataPlan {
    DataPlan {
        source,
        partition: Partition::Iid,
        labels: Vec::new(),
        public: None,
        evaluation: HeldOut::OfSource { examples: 1 },
        clients_evaluate: false,
        groups: vec![GroupPlan { name: "silo".into(), replicas: 1, source: None, partition: None, max_examples: None }],
        language: Some(LanguagePlan { system_prompt: None, long_response: LongResponse::Truncate }),
        max_sequence_length: 32,
        seed: 1,
    }
}

fn jsonl(folder: &Path, lines: &[&str], columns: Columns) -> DataPlan {
    plan(Source { path: write(folder, "rows.jsonl", lines.join("\n")).into(), format: Format::Jsonl, columns })
}

fn prompts() -> Columns {
    Columns::Prompt { prompt: "ask".into(), response: Some("answer".into()), choices: None }
}

fn loaded_from(plan: &DataPlan) -> Corpus {
    load(plan, Scope::Everything, &tokenizer(), &nowhere(), None, &Events::silent()).unwrap()
}

fn error(plan: &DataPlan) -> String {
    load(plan, Scope::Everything, &tokenizer(), &nowhere(), None, &Events::silent()).unwrap_err().to_string()
}

/// Every record, whoever has it, in the order of its tokens.
fn all(corpus: &Corpus) -> Vec<Record> {
    let mut records = [corpus.clients.concat(), corpus.evaluation.clone()].concat();
    records.sort_by(|a, b| a.tokens.cmp(&b.tokens));
    records
}

/// The tokens that are to be said.
fn said(record: &Record) -> Vec<u32> {
    let answer = record.answer.as_ref().unwrap();
    assert_eq!(answer.said.len(), record.tokens.len());
    record.tokens.iter().zip(&answer.said).filter(|(_, said)| **said).map(|(token, _)| *token).collect()
}

#[test]
fn of_a_prompt_and_a_response_the_response_and_its_end_are_to_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [r#"{"ask": "w1 w2", "answer": "w3"}"#, r#"{"ask": "w5", "answer": "w6 w7"}"#];
    let records = all(&loaded_from(&jsonl(folder.path(), &rows, prompts())));
    assert_eq!(records[0].tokens, [OPEN, USER, 11, 12, END, BETWEEN, OPEN, ASSISTANT, 13, END]);
    assert_eq!(said(&records[0]), [13, END]);
    assert_eq!(said(&records[1]), [16, 17, END]);
}

#[test]
fn a_long_prompt_loses_its_own_end_and_nothing_of_the_template_or_the_response() {
    let folder = tempfile::tempdir().unwrap();
    let long: Vec<String> = (0..100).map(|word| format!("w{word}")).collect();
    let row = format!(r#"{{"ask": "{}", "answer": "w3"}}"#, long.join(" "));
    let mut plan = jsonl(folder.path(), &[&row, r#"{"ask": "w800", "answer": "w6"}"#], prompts());
    plan.max_sequence_length = 12;
    let record = &all(&loaded_from(&plan))[0];
    assert_eq!(record.tokens, [OPEN, USER, 10, 11, 12, 13, END, BETWEEN, OPEN, ASSISTANT, 13, END]);
}

#[test]
fn a_long_response_is_cut_and_counted_or_refused_by_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [r#"{"ask": "w1", "answer": "w3 w4 w5 w6 w7 w8"}"#, r#"{"ask": "w800", "answer": "w6"}"#];
    let mut plan = jsonl(folder.path(), &rows, prompts());
    plan.max_sequence_length = 10;
    let (events, told) = recorded();
    let corpus = load(&plan, Scope::Everything, &tokenizer(), &nowhere(), None, &events).unwrap();
    assert_eq!(said(&all(&corpus)[1]), [13, 14, 15, 16], "no prompt is left, and four of seven fit");
    assert_eq!(notes(&told), ["1 responses were cut to fit into maxSequenceLength 10"]);
    plan.language = Some(LanguagePlan { system_prompt: None, long_response: LongResponse::Refuse });
    let told = error(&plan);
    assert!(told.starts_with("line 1 of ") && told.contains("its response takes 7 tokens and 4 fit"), "{told}");
}

#[test]
fn a_template_that_fills_the_window_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [r#"{"ask": "w1", "answer": "w3"}"#, r#"{"ask": "w800", "answer": "w6"}"#];
    let mut plan = jsonl(folder.path(), &rows, prompts());
    plan.max_sequence_length = 6;
    let told = error(&plan);
    assert!(told.contains("maxSequenceLength is 6, but the chat template alone takes 6 tokens"), "{told}");
}

#[test]
fn every_answer_of_a_conversation_is_to_be_said_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let turn = |role: &str, content: &str| format!(r#"{{"role": "{role}", "content": "{content}"}}"#);
    let turns = [turn("user", "w1"), turn("assistant", "w2"), turn("user", "w3"), turn("assistant", "w4")].join(",");
    let row = format!(r#"{{"talk": [{turns}]}}"#);
    let other = row.replace("w1", "w800");
    let columns = Columns::Messages { messages: "talk".into() };
    let record = &all(&loaded_from(&jsonl(folder.path(), &[&row, &other], columns)))[0];
    let (asked, answered) = ([OPEN, USER, 11, END, BETWEEN, OPEN, ASSISTANT], [12, END]);
    let (again, last) = ([BETWEEN, OPEN, USER, 13, END, BETWEEN, OPEN, ASSISTANT], [14, END]);
    assert_eq!(record.tokens, [&asked[..], &answered, &again, &last].concat());
    assert_eq!(said(record), [12, END, 14, END]);
}

#[test]
fn a_plain_text_is_said_whole_with_its_end_and_the_first_token_has_nothing_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [r#"{"text": "w1 w2"}"#, r#"{"text": "w5"}"#];
    let columns = Columns::Text { text: "text".into() };
    let record = &all(&loaded_from(&jsonl(folder.path(), &rows, columns)))[0];
    assert_eq!(record.tokens, [11, 12, END]);
    let example = crate::data::encode(std::slice::from_ref(record), &crate::data::Labels::new(Vec::new())).unwrap();
    assert_eq!(example[0].next_tokens().collect::<Vec<_>>(), [(0, 12), (1, END)]);
}

#[test]
fn held_out_rows_have_every_choice_in_the_place_of_the_response_and_clients_rows_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<String> =
        (0..4).map(|k| format!(r#"{{"ask": "w{k}", "answer": "w51", "of": ["w50", "w51"]}}"#)).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let columns = Columns::Prompt { prompt: "ask".into(), response: Some("answer".into()), choices: Some("of".into()) };
    let corpus = loaded_from(&jsonl(folder.path(), &rows, columns));
    let answer = corpus.evaluation[0].answer.clone().unwrap();
    assert_eq!((answer.choices, answer.right), (vec![vec![60, END], vec![61, END]], 1));
    assert!(corpus.clients[0].iter().all(|record| record.answer.as_ref().unwrap().choices.is_empty()));
}

#[test]
fn the_labels_of_the_run_are_the_choices_where_a_row_names_none() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [r#"{"ask": "w1", "answer": "w3"}"#, r#"{"ask": "w2", "answer": "w4"}"#];
    let mut plan = jsonl(folder.path(), &rows, prompts());
    plan.labels = vec!["w3".into(), "w4".into()];
    let evaluation = loaded_from(&plan).evaluation;
    let answer = evaluation[0].answer.clone().unwrap();
    assert_eq!(answer.choices, [[13, END], [14, END]]);
    assert_eq!(evaluation[0].label.as_deref(), Some(["w3", "w4"][answer.right]));
}

/// Else how much of a prompt is left, or which examples share a batch, would tell the answer in training alone.
#[test]
fn a_prompt_that_is_too_long_is_cut_alike_whatever_answer_follows() {
    let folder = tempfile::tempdir().unwrap();
    let long = vec!["w1"; 40].join(" ");
    let rows: Vec<String> = ["w3", "w4 w5 w6", "w3", "w4 w5 w6"]
        .iter()
        .enumerate()
        .map(|(k, answer)| format!(r#"{{"ask": "w{k} {long}", "answer": "{answer}"}}"#))
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let mut plan = jsonl(folder.path(), &rows, prompts());
    plan.labels = vec!["w3".into(), "w4 w5 w6".into()];
    let corpus = loaded_from(&plan);
    let records = [corpus.clients.concat(), corpus.evaluation].concat();
    let start = |record: &Record| record.answer.as_ref().unwrap().said.iter().position(|said| *said).unwrap();
    assert_eq!(records.iter().map(start).collect::<Vec<_>>(), [28; 4]);
    let mut lengths: Vec<usize> = records.iter().map(|record| record.tokens.len()).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [30, 30, 32, 32]);
    let examples = crate::data::encode(&records, &crate::data::Labels::new(plan.labels.clone())).unwrap();
    assert!(examples.iter().all(|example| example.batch_length() == 32));
}

#[test]
fn a_system_prompt_stands_before_every_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [r#"{"ask": "w1", "answer": "w3"}"#, r#"{"ask": "w2", "answer": "w4"}"#];
    let mut plan = jsonl(folder.path(), &rows, prompts());
    plan.language = Some(LanguagePlan { system_prompt: Some("w77".into()), long_response: LongResponse::Refuse });
    assert!(all(&loaded_from(&plan)).iter().all(|record| record.tokens[2] == 87));
}

#[test]
fn a_prompt_to_be_answered_has_the_tokens_that_it_has_before_a_response() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [r#"{"ask": "w1 w2", "answer": "w3"}"#, r#"{"ask": "w800", "answer": "w6"}"#];
    let plan = jsonl(folder.path(), &rows, prompts());
    let record = &all(&loaded_from(&plan))[0];
    let prompt = prompt_tokens(&tokenizer(), plan.language.as_ref().unwrap(), "w1 w2", 32, 4).unwrap();
    assert_eq!(prompt, record.tokens[..prompt.len()]);
    assert_eq!(prompt.len(), record.tokens.len() - 2);
}

#[test]
fn rows_from_which_nothing_can_be_learnt_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let good = r#"{"ask": "w1", "answer": "w3", "of": ["w3", "w4"], "talk": [{"role": "assistant", "content": "w1"}]}"#;
    let refused = |row: &str, columns: Columns| error(&jsonl(folder.path(), &[good, row], columns));
    let told = refused(r#"{"ask": "w1", "answer": ""}"#, prompts());
    assert!(told.starts_with("line 2 of ") && told.contains("the response is empty"), "{told}");
    let chosen =
        || Columns::Prompt { prompt: "ask".into(), response: Some("answer".into()), choices: Some("of".into()) };
    let told = refused(r#"{"ask": "w1", "answer": "w9", "of": ["w3", "w4"]}"#, chosen());
    assert!(told.contains("the response `w9` is not one of its choices: `w3`, `w4`"), "{told}");
    let told = refused(r#"{"ask": "w1", "answer": "w9", "of": "w9"}"#, chosen());
    assert!(told.contains("`of` is not a list of texts"), "{told}");
    let talk = || Columns::Messages { messages: "talk".into() };
    let told = refused(r#"{"talk": [{"role": "user", "content": "w1"}]}"#, talk());
    assert!(told.contains("no message of role assistant"), "{told}");
    let told = refused(r#"{"talk": "hello"}"#, talk());
    assert!(told.contains("is not a list of messages"), "{told}");
}

#[test]
fn a_template_that_fails_on_a_row_is_a_sentence_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let plan =
        jsonl(folder.path(), &[r#"{"ask": "w1", "answer": "w3"}"#, r#"{"ask": "w2", "answer": "w3"}"#], prompts());
    let chat = ChatTemplate { source: "{{ raise_exception('no') }}".into(), bos_token: None, eos_token: None };
    let tokenizer = LoadedTokenizer { chat: Some(chat), ..loaded(false) };
    let told = load(&plan, Scope::Everything, &tokenizer, &nowhere(), None, &Events::silent()).unwrap_err().to_string();
    assert!(told.starts_with("line ") && told.ends_with("the tokenizer's chat template fails on it: no"), "{told}");
}
