//! Which files of a listing are what is wanted, and what they are called here.
//! Must not take all of it: a repository holds weights in several forms, and nobody reads more than one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Wanted, download::Item, hold::Version};

/// Most files of one source.
const MOST: usize = 100_000;
/// Files beside a model's weights, where they are there.
const BESIDE_WEIGHTS: [&str; 8] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// What its server calls it.
    pub(super) remote: String,
    /// Its name from the source on, parts separated by `/`.
    pub(super) name: String,
    /// What the listing says of its content.
    pub(super) version: Version,
    /// Its SHA-256, where the listing says it.
    pub(super) sha256: Option<String>,
    /// What the listing calls this content, and no other.
    pub(super) id: Option<String>,
}

/// What is brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) items: Vec<Item>,
    /// Whether the one file is meant, rather than the folder that it is in.
    pub(super) alone: bool,
    /// The name of a list of further files, which is among the items.
    pub(super) index: Option<&'static str>,
}

/// Chooses what is wanted, or says what about the listing is wrong, as the end of a sentence.
pub(super) fn choose(listing: &[Listed], wanted: Wanted) -> Result<Chosen, String> {
    match wanted {
        Wanted::Model => model(listing),
        Wanted::Adapter => adapter(listing),
        Wanted::Table(ending) => table(listing, ending),
        Wanted::Folders => folders(listing),
    }
}

/// The files of a listing that `file` means: one by its name, all of a folder, or all that fit a pattern with `*`.
/// Their names go on from the folder.
pub(super) fn narrow(listing: &[Listed], file: &str) -> Result<Vec<Listed>, String> {
    let file = file.trim_matches('/');
    let folder = format!("{file}/");
    let named = |listed: &Listed| {
        if listed.name == file || (file.contains('*') && fits(&listed.name, file)) {
            return Some(Listed { name: last(&listed.name).to_owned(), ..listed.clone() });
        }
        let name = listed.name.strip_prefix(&folder)?.to_owned();
        Some(Listed { name, ..listed.clone() })
    };
    let found: Vec<Listed> = listing.iter().filter_map(named).collect();
    if found.is_empty() {
        let there = name_some(listing.iter().map(|listed| listed.name.as_str()));
        return Err(format!("holds neither a file nor a folder {file:?}; there are {there}"));
    }
    Ok(found)
}

/// Whether a name fits a pattern in which `*` stands for anything but `/`.
fn fits(name: &str, pattern: &str) -> bool {
    let (mut names, mut patterns) = (name.split('/'), pattern.split('/'));
    loop {
        match (names.next(), patterns.next()) {
            (None, None) => return true,
            (Some(name), Some(pattern)) if part_fits(name, pattern) => {}
            _ => return false,
        }
    }
}

/// Each piece between stars is taken at its first place, the last one at the end: no other choice fits more.
fn part_fits(name: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match name.find(piece) {
            Some(at) => name = &name[at + piece.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

fn model(listing: &[Listed]) -> Result<Chosen, String> {
    let find = |name: &str| listing.iter().find(|listed| listed.name == name);
    let gguf = |listed: &&Listed| ends_with(&listed.name, "gguf");
    if find("config.json").is_none() {
        let gguf: Vec<&Listed> = listing.iter().filter(gguf).collect();
        return match gguf.as_slice() {
            [one] => Ok(Chosen { items: vec![item(one, last(&one.name))?], alone: true, index: None }),
            [] => {
                Err("holds no model; expected config.json with model.safetensors (or model.safetensors.index.json), \
                       or one .gguf file"
                    .to_owned())
            }
            many => {
                let names = name_some(many.iter().map(|listed| listed.name.as_str()));
                Err(format!("holds {} .gguf files; name the one that is meant: {names}", many.len()))
            }
        };
    }
    let weights = find(WEIGHTS).or_else(|| find(INDEX)).ok_or_else(|| no_weights(listing))?;
    if find("tokenizer.json").is_none() {
        return Err("holds no tokenizer.json, without which its texts cannot become tokens".to_owned());
    }
    let beside = BESIDE_WEIGHTS.iter().filter_map(|name| find(name));
    let items = beside.chain([weights]).map(|listed| item(listed, &listed.name)).collect::<Result<_, _>>()?;
    Ok(Chosen { items, alone: false, index: (weights.name == INDEX).then_some(INDEX) })
}

fn no_weights(listing: &[Listed]) -> String {
    let pickled = listing.iter().any(|listed| listed.name.starts_with("pytorch_model"));
    let instead =
        if pickled { "; those in pytorch_model.bin are not read: choose a revision with safetensors" } else { "" };
    format!("holds no weights: neither model.safetensors nor model.safetensors.index.json{instead}")
}

/// `model.safetensors.index.json`: which file holds which tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The files that an index of weights names.
pub(super) fn shards(listing: &[Listed], index: &[u8]) -> Result<Vec<Item>, String> {
    let index: ShardIndex = serde_json::from_slice(index)
        .map_err(|error| format!("has a {INDEX} that is not what it should be: {error}"))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    let shard = |name: &String| {
        let listed = listing.iter().find(|listed| listed.name == *name && !name.contains('/'));
        let listed = listed.ok_or_else(|| format!("lacks {name:?}, which its {INDEX} names"))?;
        item(listed, &listed.name)
    };
    names.iter().map(shard).collect()
}

fn adapter(listing: &[Listed]) -> Result<Chosen, String> {
    let find = |name: &str| {
        let listed = listing.iter().find(|listed| listed.name == name);
        let listed = listed.ok_or_else(|| format!("holds no adapter in PEFT's format: {name} is missing"))?;
        item(listed, name)
    };
    let items = vec![find("adapter_config.json")?, find("adapter_model.safetensors")?];
    Ok(Chosen { items, alone: false, index: None })
}

/// All files that end so, in whatever folder. Folders become a part of the names, as all files are read from one.
fn table(listing: &[Listed], ending: &str) -> Result<Chosen, String> {
    let visible = listing.iter().filter(|listed| !listed.name.split('/').any(|part| part.starts_with('.')));
    let mut found: Vec<&Listed> = visible.filter(|listed| ends_with(&listed.name, ending)).collect();
    found.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    if found.is_empty() {
        return Err(format!("holds no .{ending} file{}", other_format(listing, ending)));
    }
    let items =
        found.iter().map(|listed| item(listed, &listed.name.replace('/', "--"))).collect::<Result<Vec<_>, _>>()?;
    bounded(&items)?;
    Ok(Chosen { alone: items.len() == 1, items, index: None })
}

fn other_format(listing: &[Listed], ending: &str) -> String {
    let formats = [("csv", "CSV"), ("jsonl", "JSONL"), ("parquet", "Parquet")];
    let there = |(other, _): &&(&str, &str)| *other != ending && listing.iter().any(|l| ends_with(&l.name, other));
    match formats.iter().find(there) {
        Some((other, format)) => format!(", but .{other} files: set format: {format}"),
        None => format!("; there are {}", name_some(listing.iter().map(|listed| listed.name.as_str()))),
    }
}

/// `<folder>/*.txt`; what lies deeper or elsewhere is not read, as on a disk.
fn folders(listing: &[Listed]) -> Result<Chosen, String> {
    let is_text = |listed: &&Listed| {
        let parts: Vec<&str> = listed.name.split('/').collect();
        matches!(parts[..], [folder, file] if !folder.starts_with('.') && !file.starts_with('.') && ends_with(file, "txt"))
    };
    let items = listing.iter().filter(is_text).map(|l| item(l, &l.name)).collect::<Result<Vec<_>, _>>()?;
    if items.is_empty() {
        return Err("holds no <folder>/<text>.txt".to_owned());
    }
    bounded(&items)?;
    Ok(Chosen { items, alone: false, index: None })
}

fn bounded(items: &[Item]) -> Result<(), String> {
    if items.len() > MOST {
        return Err(format!("holds {} such files; at most {MOST} are brought", items.len()));
    }
    let mut names = BTreeSet::new();
    match items.iter().find(|item| !names.insert(&item.local)) {
        Some(twice) => Err(format!("holds two files that would be called {} here", twice.local)),
        None => Ok(()),
    }
}

fn item(listed: &Listed, local: &str) -> Result<Item, String> {
    let keepable = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.len() <= 200
            && !part.contains(|c: char| c == '\\' || c.is_control())
    };
    if !local.split('/').all(keepable) {
        return Err(format!("holds a file {:?}, whose name this machine cannot keep", listed.name));
    }
    Ok(Item {
        remote: listed.remote.clone(),
        local: local.to_owned(),
        version: listed.version.clone(),
        sha256: listed.sha256.clone(),
        id: listed.id.clone(),
    })
}

fn ends_with(name: &str, ending: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(stem, end)| end == ending && !stem.is_empty() && !stem.ends_with('/'))
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Some of the names, and how many more there are.
fn name_some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let first: Vec<&str> = names.iter().take(8).copied().collect();
    match names.len() {
        0 => "no files".to_owned(),
        count if count > first.len() => format!("{} and {} more", first.join(", "), count - first.len()),
        _ => first.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Vec<Listed> {
        let listed = |name: &&str| Listed {
            remote: format!("at/{name}"),
            name: (*name).to_owned(),
            version: Version::default(),
            sha256: None,
            id: None,
        };
        names.iter().map(listed).collect()
    }

    /// Remote and local names of what is chosen.
    fn chosen(names: &[&str], wanted: Wanted) -> Result<Vec<(String, String)>, String> {
        Ok(choose(&listing(names), wanted)?.items.into_iter().map(|item| (item.remote, item.local)).collect())
    }

    fn locals(names: &[&str], wanted: Wanted) -> Vec<String> {
        chosen(names, wanted).unwrap().into_iter().map(|(_, local)| local).collect()
    }

    #[test]
    fn of_a_model_its_configuration_tokenizer_and_safetensors_are_brought_and_nothing_else() {
        let names = [
            ".gitattributes",
            "README.md",
            "config.json",
            "flax_model.msgpack",
            "model.safetensors",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "onnx/config.json",
        ];
        assert_eq!(
            locals(&names, Wanted::Model),
            ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"]
        );
    }

    #[test]
    fn shards_are_those_that_the_index_names() {
        let names = [
            "config.json",
            "tokenizer.json",
            INDEX,
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "consolidated.safetensors",
        ];
        let listing = listing(&names);
        let chosen = choose(&listing, Wanted::Model).unwrap();
        assert_eq!((chosen.index, chosen.items.last().unwrap().local.as_str()), (Some(INDEX), INDEX));
        let index = |shard: &str| format!(r#"{{"weight_map": {{"a": "{shard}", "b": "{shard}"}}}}"#);
        let shards = |shard: &str| shards(&listing, index(shard).as_bytes());
        assert_eq!(shards("model-00002-of-00002.safetensors").unwrap().len(), 1);
        assert_eq!(shards("absent").unwrap_err(), format!("lacks \"absent\", which its {INDEX} names"));
        assert!(shards("../config.json").is_err());
    }

    #[test]
    fn one_gguf_file_is_a_model_and_several_are_a_question() {
        assert_eq!(locals(&["README.md", "q4_0.gguf"], Wanted::Model), ["q4_0.gguf"]);
        assert_eq!(
            chosen(&["q4_0.gguf", "q8_0.gguf"], Wanted::Model).unwrap_err(),
            "holds 2 .gguf files; name the one that is meant: q4_0.gguf, q8_0.gguf"
        );
    }

    #[test]
    fn a_model_without_readable_weights_or_tokenizer_is_refused_before_anything_is_brought() {
        let told = chosen(&["config.json", "pytorch_model.bin"], Wanted::Model).unwrap_err();
        assert!(
            told.ends_with("those in pytorch_model.bin are not read: choose a revision with safetensors"),
            "{told}"
        );
        assert!(chosen(&["config.json", "model.safetensors"], Wanted::Model).unwrap_err().contains("tokenizer.json"));
        assert!(chosen(&[], Wanted::Model).unwrap_err().starts_with("holds no model; expected config.json"));
    }

    #[test]
    fn tables_are_all_files_of_the_format_with_their_folders_in_their_names() {
        let names = ["b.csv", "a/x.csv", ".cache/c.csv", "README.md", "a/.hidden.csv", ".csv", "c.CSV"];
        let pair = |remote: &str, local: &str| (remote.to_owned(), local.to_owned());
        let found = chosen(&names, Wanted::Table("csv")).unwrap();
        assert_eq!(found, [pair("at/a/x.csv", "a--x.csv"), pair("at/b.csv", "b.csv")]);
        assert_eq!(
            chosen(&["data/train.parquet"], Wanted::Table("csv")).unwrap_err(),
            "holds no .csv file, but .parquet files: set format: Parquet"
        );
        assert_eq!(
            chosen(&["a/b.csv", "a--b.csv"], Wanted::Table("csv")).unwrap_err(),
            "holds two files that would be called a--b.csv here"
        );
    }

    #[test]
    fn texts_in_folders_keep_their_folders() {
        let names = ["ham/1.txt", "spam/1.txt", "top.txt", "a/b/deep.txt", "ham/1.json", ".git/x.txt"];
        assert_eq!(locals(&names, Wanted::Folders), ["ham/1.txt", "spam/1.txt"]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["../x.txt", "a//x.txt", "a/..txt", "/x.txt", "../x.csv", "a\\b.csv", "a/\u{7}.csv"] {
            let ending = if name.ends_with("txt") { Wanted::Folders } else { Wanted::Table("csv") };
            assert!(chosen(&[name], ending).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_file_a_folder_and_a_pattern_narrow_a_listing() {
        let names = ["README.md", "data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet", "data2/x"];
        let narrowed = |file: &str| -> Vec<String> {
            narrow(&listing(&names), file).unwrap().into_iter().map(|listed| listed.name).collect()
        };
        assert_eq!(narrowed("data/test-0.parquet"), ["test-0.parquet"]);
        assert_eq!(narrowed("data/"), ["train-0.parquet", "train-1.parquet", "test-0.parquet"]);
        assert_eq!(narrowed("data/train-*.parquet"), ["train-0.parquet", "train-1.parquet"]);
        assert_eq!(narrowed("*/*-0.*"), ["train-0.parquet", "test-0.parquet"]);
        assert_eq!(
            narrow(&listing(&names), "dat*").unwrap_err(),
            "holds neither a file nor a folder \"dat*\"; there are README.md, data/train-0.parquet, \
             data/train-1.parquet, data/test-0.parquet, data2/x"
        );
    }

    #[test]
    fn a_star_stands_for_any_text_within_a_part() {
        for (name, pattern) in [("abc", "*"), ("abc", "a*c"), ("abcabc", "a*bc"), ("aXbYb", "a*b*b"), ("a", "a*")] {
            assert!(fits(name, pattern), "{name} {pattern}");
        }
        for (name, pattern) in [("abc", "a*d"), ("a/b", "*"), ("ab", "a*b*b"), ("ab", "ab*b"), ("abc", "b*")] {
            assert!(!fits(name, pattern), "{name} {pattern}");
        }
    }
}
