//! A scrape, taken apart and held against the rules of Prometheus' text format and naming.
//! Must not accept what `promtool check metrics` refuses: it stands in for it where there is none.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

use crate::prometheus::tool;

/// Labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// A scrape.
#[derive(Debug, Default)]
pub struct Scrape {
    /// Type of each family.
    pub types: BTreeMap<String, String>,
    /// Name, labels and value, as they were written.
    pub samples: Vec<(String, Labels, String)>,
}

/// Units that are not base units, and abbreviations of units.
const NOT_BASE: [&str; 12] = [
    "milliseconds",
    "microseconds",
    "minutes",
    "hours",
    "ms",
    "percent",
    "kilobytes",
    "megabytes",
    "mb",
    "kb",
    "sec",
    "flop",
];

impl Scrape {
    /// Takes a scrape apart, and fails the test where it breaks a rule.
    pub fn of(text: &str) -> Self {
        let (mut scrape, mut helped) = (Self::default(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("help without words: {line}"));
                assert!(help.trim().len() > 3 && helped.insert(name.to_owned()), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("a type without a word: {line}"));
                assert!(helped.contains(name), "{name} has no help");
                check_name(name, kind);
                assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
            } else if !line.is_empty() {
                scrape.take(line);
            }
        }
        scrape
    }

    fn take(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        assert!(value.parse::<f64>().is_ok() || value == "+Inf", "no number: {line}");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = read_labels(labels.strip_suffix('}').unwrap_or_else(|| panic!("no end of labels: {line}")));
        let family = self.family(name);
        assert!(self.types.contains_key(family), "{name} has no type");
        let sample = (name.to_owned(), labels, value.to_owned());
        let twice = self.samples.iter().any(|(name, labels, _)| (name, labels) == (&sample.0, &sample.1));
        assert!(!twice, "a series comes twice: {line}");
        self.samples.push(sample);
    }

    /// The family of a sample: a histogram's samples have names of their own.
    fn family<'a>(&self, name: &'a str) -> &'a str {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        of_histogram.filter(|family| self.types.get(*family).is_some_and(|kind| kind == "histogram")).unwrap_or(name)
    }

    /// The value of the only sample of this name that has these labels among its own.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found: Vec<_> = self.with(name, labels).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].1
    }

    /// Samples of this name that have these labels among their own.
    pub fn with(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = (&Labels, f64)> {
        let has = move |own: &Labels| labels.iter().all(|(label, value)| own.get(*label).is_some_and(|v| v == value));
        let of_it = self.samples.iter().filter(move |(own, own_labels, _)| own == name && has(own_labels));
        // As results.json is read, so that equal digits are equal numbers.
        of_it.map(|(_, labels, value)| (labels, serde_json::from_str(value).expect("it is a number")))
    }
}

fn check_name(name: &str, kind: &str) {
    assert!(name.starts_with("fedtune_") && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()), "{name}");
    assert!(["gauge", "counter", "histogram"].contains(&kind), "{name} is a {kind}");
    assert_eq!(
        name.ends_with("_total"),
        kind == "counter",
        "{name} is a {kind}: a counter ends in _total, no other does"
    );
    let words: Vec<&str> = name.split('_').collect();
    assert!(words.iter().all(|word| !NOT_BASE.contains(word)), "{name} is not in base units");
    assert!(words.iter().all(|word| !["gauge", "counter", "histogram"].contains(word)), "{name} repeats its type");
    assert!(
        !["_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix)),
        "{name} looks like a histogram's"
    );
}

/// `a="b",c="d"`; no value of ours has a quote or a comma in it.
fn read_labels(text: &str) -> Labels {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (label, value) = pair.split_once('=').unwrap_or_else(|| panic!("no label: {pair}"));
            assert!(label.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()), "{label}");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            (label.to_owned(), value.unwrap_or_else(|| panic!("no quotes: {pair}")).to_owned())
        })
        .collect()
}

/// Fails the test where `promtool check metrics` has something to say of a scrape; false where there is no promtool.
pub fn promtool_accepts(text: &str) -> bool {
    let Some(promtool) = tool("promtool") else { return false };
    let mut command = Command::new(&promtool);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{} cannot be started: {error}", promtool.display()));
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("promtool reads what it is given");
    drop(stdin);
    let ended = child.wait_with_output().expect("a child can be waited for");
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(ended.status.success() && said.is_empty(), "promtool says:\n{said}\nof:\n{text}");
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "# HELP fedtune_round Last finished round.\n# TYPE fedtune_round gauge\nfedtune_round{run=\"a\"} 2\n";

    #[test]
    fn a_good_scrape_is_taken_apart() {
        assert!(Scrape::of(GOOD).value("fedtune_round", &[("run", "a")]) > 1.5);
    }

    fn is_refused(text: &str) -> bool {
        std::panic::catch_unwind(|| Scrape::of(text)).is_err()
    }

    #[test]
    fn what_promtool_would_refuse_is_refused() {
        for (good, bad) in [
            ("# HELP fedtune_round Last finished round.\n", ""),
            ("# TYPE fedtune_round gauge\n", ""),
            ("gauge", "counter"),
            ("fedtune_round", "fedtune_round_total"),
            ("fedtune_round", "fedtune_round_milliseconds"),
            (" 2\n", " two\n"),
            ("\"a\"} 2\n", "\"a\"} 2\nfedtune_round{run=\"a\"} 3\n"),
        ] {
            assert!(is_refused(&GOOD.replace(good, bad)), "{bad}");
        }
    }
}
