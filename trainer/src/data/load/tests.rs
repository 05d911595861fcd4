use std::collections::BTreeSet;

use super::*;
use crate::data::{
    Format, GroupPlan, HeldOut, Partition, Source,
    testing::{folders, loaded, notes, nowhere, planned, recorded, write},
};
use crate::sources::{Address, Origin};

/// 120 mails in three folders; each text of `c` stands there twice.
fn mail(folder: &Path) -> Source<Origin> {
    for (name, first) in [("a", 0), ("b", 40), ("c", 80)] {
        for number in 0..40 {
            let word = if name == "c" { first + number % 20 } else { first + number };
            write(folder, &format!("{name}/{number:02}.txt"), format!("w{word}"));
        }
    }
    planned(folder, folders())
}

fn group(name: &str, replicas: usize) -> GroupPlan {
    GroupPlan { name: name.into(), replicas, source: None, partition: None, max_examples: None }
}

fn plan(source: Source<Origin>) -> DataPlan {
    DataPlan {
        source,
        partition: Partition::Dirichlet { alpha: 5.0, over: "folder".into() },
        labels: vec![],
        public: Some(HeldOut::OfSource { examples: 20 }),
        evaluation: HeldOut::OfSource { examples: 30 },
        clients_evaluate: false,
        groups: vec![group("silo-a", 2), group("silo-b", 1)],
        language: None,
        max_sequence_length: 16,
        seed: 42,
    }
}

fn load_silently(plan: &DataPlan, scope: Scope) -> Corpus {
    load(plan, scope, &loaded(true), &nowhere(), None, &Events::silent()).unwrap()
}

fn error(plan: &DataPlan, scope: Scope) -> String {
    load(plan, scope, &loaded(true), &nowhere(), None, &Events::silent()).unwrap_err().to_string()
}

fn texts(records: &[Record]) -> BTreeSet<Vec<u32>> {
    records.iter().map(|record| record.tokens.clone()).collect()
}

/// A CSV of these words, all of them ham.
fn csv(folder: &Path, name: &str, words: std::ops::Range<usize>) -> Source<Origin> {
    let lines: Vec<String> = words.map(|word| format!("w{word},ham")).collect();
    planned(write(folder, name, format!("text,label\n{}\n", lines.join("\n"))), Format::Csv)
}

#[test]
fn everything_is_dealt_and_no_text_is_on_two_sides() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = load_silently(&plan(mail(folder.path())), Scope::Everything);
    assert_eq!([corpus.evaluation.len(), corpus.public.len(), corpus.clients.concat().len()], [30, 20, 70]);
    let sides = [texts(&corpus.evaluation), texts(&corpus.public), texts(&corpus.clients.concat())];
    // 40 + 40 + 20 different texts.
    assert_eq!(sides.iter().map(BTreeSet::len).sum::<usize>(), 100);
    assert_eq!(sides.iter().flatten().collect::<BTreeSet<_>>().len(), 100);
    assert_eq!(corpus.label_order, ["ham", "spam"]);
}

#[test]
fn a_seed_repeats_and_another_gives_other_sets() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(mail(folder.path()));
    let first = load_silently(&plan, Scope::Everything);
    assert_eq!(first, load_silently(&plan, Scope::Everything));
    let other = load_silently(&DataPlan { seed: 43, ..plan }, Scope::Everything);
    assert_eq!(first.data_hash, other.data_hash);
    assert_ne!(first.partition_hash, other.partition_hash);
}

#[test]
fn each_process_gets_its_own_part_of_what_one_process_gets() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(mail(folder.path()));
    let all = load_silently(&plan, Scope::Everything);
    let server = load_silently(&plan, Scope::Server);
    assert_eq!((&server.evaluation, &server.public), (&all.evaluation, &all.public));
    assert_eq!((server.clients, server.label_order), (vec![vec![]; 3], vec![]));
    for ordinal in 0..3 {
        let client = load_silently(&plan, Scope::Client(ordinal));
        assert_eq!((&client.clients[ordinal], &client.public), (&all.clients[ordinal], &all.public));
        assert!(client.evaluation.is_empty());
        assert_eq!(client.clients.concat().len(), all.clients[ordinal].len());
    }
    let evaluating = DataPlan { clients_evaluate: true, ..plan };
    assert_eq!(load_silently(&evaluating, Scope::Client(0)).evaluation, all.evaluation);
}

#[test]
fn records_have_tokens_and_the_label_of_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = load_silently(&plan(mail(folder.path())), Scope::Everything);
    for record in corpus.clients.iter().flatten() {
        let [1, word, 2] = record.tokens[..] else { panic!("{:?}", record.tokens) };
        let label = if word < 10 + 80 { "ham" } else { "spam" };
        assert_eq!(record.label.as_deref(), Some(label));
    }
}

#[test]
fn a_small_alpha_leaves_a_client_empty_and_the_sentence_says_what_would_help() {
    let folder = tempfile::tempdir().unwrap();
    let skewed = Partition::Dirichlet { alpha: 1e-6, over: "label".into() };
    let told = error(&DataPlan { partition: skewed, ..plan(mail(folder.path())) }, Scope::Everything);
    let (client, help) = told.split_once(" has no example after the partition; ").unwrap();
    assert!(client.starts_with("client silo-"), "{told}");
    assert_eq!(help, "an alpha larger than 0.000001, fewer clients, or another seed would help");
}

#[test]
fn values_of_a_column_go_whole_to_one_client() {
    let folder = tempfile::tempdir().unwrap();
    let by_folder = Partition::ByColumn("folder".into());
    let corpus = load_silently(&DataPlan { partition: by_folder, ..plan(mail(folder.path())) }, Scope::Everything);
    let folders_of = |records: &Vec<Record>| records.iter().map(|record| (record.tokens[1] - 10) / 40).collect();
    let held: Vec<BTreeSet<u32>> = corpus.clients.iter().map(folders_of).collect();
    assert!(held.iter().all(|folders| folders.len() == 1));
    assert_eq!(held.into_iter().flatten().collect::<BTreeSet<_>>(), [0, 1, 2].into());
}

#[test]
fn a_group_s_own_data_stays_in_the_group_and_gives_up_what_is_public() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan(mail(folder.path()));
    let everything = csv(folder.path(), "own.csv", 0..200);
    plan.groups[1] = GroupPlan { source: Some(everything), ..group("silo-b", 1) };
    let (events, told) = recorded();
    let corpus = load(&plan, Scope::Everything, &loaded(true), &nowhere(), None, &events).unwrap();
    let public = texts(&corpus.public);
    assert_eq!(corpus.clients[2].len(), 200 - public.len());
    assert!(public.is_disjoint(&texts(&corpus.clients[2])));
    assert!(
        notes(&told)
            .iter()
            .any(|note| note.ends_with("private examples have a text of the public set and are left out"))
    );
    assert!(notes(&told).iter().any(|note| note.ends_with("a text of the evaluation set: accuracy will flatter")));
    assert_eq!(load_silently(&plan, Scope::Client(2)).clients[2], corpus.clients[2]);
    assert_eq!(corpus.clients[..2].concat().len(), 70);
}

#[test]
fn a_group_s_own_partition_holds_for_its_own_data_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = plan(mail(folder.path()));
    for (name, words) in [("split/c/0.csv", 100..103), ("split/c/1.csv", 103..108)] {
        let _ = csv(folder.path(), name, words);
    }
    let split = planned(folder.path().join("split"), Format::Csv);
    let own =
        |name, source, partition| GroupPlan { source: Some(source), partition: Some(partition), ..group(name, 2) };
    let dealt = csv(folder.path(), "dealt.csv", 120..130);
    plan.groups = vec![group("a", 2), own("b", dealt, Partition::Iid), own("c", split, Partition::PreSplit)];
    let corpus = load_silently(&plan, Scope::Everything);
    let sizes: Vec<usize> = corpus.clients[2..].iter().map(Vec::len).collect();
    assert_eq!(sizes, [5, 5, 3, 5]);
    assert_eq!(corpus.clients[..2].concat().len(), 70);
    assert_eq!(load_silently(&plan, Scope::Client(5)).clients[5], corpus.clients[5]);
}

#[test]
fn a_client_keeps_at_most_what_its_group_allows_and_the_same_in_each_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = DataPlan { partition: Partition::Iid, ..plan(mail(folder.path())) };
    plan.groups[0].max_examples = Some(5);
    let corpus = load_silently(&plan, Scope::Everything);
    assert_eq!(corpus.clients.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 23]);
    assert_eq!(load_silently(&plan, Scope::Client(1)).clients[1], corpus.clients[1]);
}

/// Parts of three clients of ten words each, with held-out sets of their own.
fn pre_split(folder: &Path) -> DataPlan {
    for (part, first) in [("silo-a/0.csv", 0), ("silo-a/1.csv", 10), ("silo-b/0.csv", 20)] {
        csv(folder, &format!("parts/{part}"), first..first + 10);
    }
    DataPlan {
        partition: Partition::PreSplit,
        public: Some(HeldOut::Own { source: csv(folder, "public.csv", 8..12), examples: None }),
        evaluation: HeldOut::Own { source: csv(folder, "evaluation.csv", 100..150), examples: Some(20) },
        ..plan(planned(folder.join("parts"), Format::Csv))
    }
}

#[test]
fn pre_split_parts_are_read_by_their_clients_alone() {
    let folder = tempfile::tempdir().unwrap();
    let plan = pre_split(folder.path());
    let corpus = load_silently(&plan, Scope::Everything);
    // Words 8, 9, 10 and 11 are public.
    assert_eq!(corpus.clients.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 10]);
    assert_eq!([corpus.public.len(), corpus.evaluation.len()], [4, 20]);
    std::fs::remove_file(folder.path().join("parts/silo-a/0.csv")).unwrap();
    assert_eq!(load_silently(&plan, Scope::Client(2)).clients[2], corpus.clients[2]);
    assert_eq!(load_silently(&plan, Scope::Server).evaluation, corpus.evaluation);
    assert!(error(&plan, Scope::Client(0)).starts_with("client silo-a/0 has no data"));
}

#[test]
fn what_is_out_of_scope_is_not_even_brought() {
    let folder = tempfile::tempdir().unwrap();
    let mut plan = DataPlan { partition: Partition::Iid, ..plan(mail(folder.path())) };
    let columns = plan.source.columns.clone();
    let elsewhere = Origin::Http(Address { url: "http://127.0.0.1:1/mail.csv".into(), sha256: None });
    plan.groups[1].source = Some(Source { path: elsewhere, format: Format::Csv, columns });
    // There is no cache here, so whoever tries to bring something is refused.
    for scope in [Scope::Everything, Scope::Client(2)] {
        assert!(error(&plan, scope).starts_with("http://127.0.0.1:1/mail.csv is not on this machine"));
    }
    assert_eq!(load_silently(&plan, Scope::Client(0)).clients[0].len(), 35);
    assert_eq!(load_silently(&plan, Scope::Server).evaluation.len(), 30);
}

#[test]
fn a_pre_split_source_has_nothing_to_hold_out() {
    let folder = tempfile::tempdir().unwrap();
    let plan = DataPlan { evaluation: HeldOut::OfSource { examples: 5 }, ..pre_split(folder.path()) };
    assert!(error(&plan, Scope::Server).contains("give `data.evaluation` a source of its own"));
}

#[test]
fn a_text_in_both_held_out_sets_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let public = HeldOut::Own { source: csv(folder.path(), "both.csv", 148..155), examples: None };
    let evaluation = HeldOut::Own { source: csv(folder.path(), "evaluation.csv", 100..150), examples: None };
    let plan = DataPlan { public: Some(public), evaluation, ..pre_split(folder.path()) };
    let told = error(&plan, Scope::Everything);
    assert!(told.starts_with("2 texts of the public set are in the evaluation set too (line 2 of "), "{told}");
}

#[test]
fn a_label_that_the_plan_lacks_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let told = error(&DataPlan { labels: vec!["ham".into()], ..plan(mail(folder.path())) }, Scope::Everything);
    assert!(told.ends_with("the label `spam` is not one of `data.labels`: `ham`"), "{told}");
    let corpus = load_silently(
        &DataPlan { labels: vec!["spam".into(), "ham".into()], ..plan(mail(folder.path())) },
        Scope::Server,
    );
    assert_eq!(corpus.label_order, ["spam", "ham"]);
}

#[test]
fn a_text_without_a_token_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mail = mail(folder.path());
    write(folder.path(), "b/07.txt", "");
    let plan = plan(mail);
    let told = load(&plan, Scope::Everything, &loaded(false), &nowhere(), None, &Events::silent()).unwrap_err();
    assert!(told.to_string().contains("b/07.txt gives no token"), "{told}");
    assert_eq!(load_silently(&plan, Scope::Everything).clients.concat().len(), 70);
}

#[test]
fn a_client_that_no_group_has_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let told = error(&plan(mail(folder.path())), Scope::Client(3));
    assert_eq!(told, "there is no client 3: the groups have 3 clients, counted from 0");
}

#[test]
fn another_seed_finds_the_texts_of_one_process_in_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(mail(folder.path()));
    let cache = folder.path().join("cache");
    let stages = |plan: &DataPlan| {
        let (events, told) = recorded();
        load(plan, Scope::Everything, &loaded(true), &nowhere(), Some(&cache), &events).unwrap();
        let told = told.lock().unwrap();
        told.iter().filter(|event| matches!(event, Event::StageStarted { .. })).count()
    };
    // Reading and tokenising; then reading alone.
    assert_eq!([stages(&plan), stages(&DataPlan { seed: 43, ..plan })], [2, 1]);
}
