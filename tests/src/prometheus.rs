//! A real Prometheus that scrapes what a test names, and answers its questions.
//! Must not judge: an answer is what Prometheus says.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{http, program::Running, siege::quiet_address};

/// Until what is waited for is scraped; far more than it needs, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The file that it reads its targets from.
const TARGETS: &str = "targets.json";

/// A Prometheus with a scrape every second; gone with the test.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    _process: Running,
    folder: TempDir,
}

/// A series with its value.
pub type Sample = (BTreeMap<String, String>, f64);

/// A series with its values, each after its time in seconds since 1970.
pub type Series = (BTreeMap<String, String>, Vec<(f64, f64)>);

impl Prometheus {
    /// Starts one that scrapes these addresses; none where there is no Prometheus on this machine.
    pub fn start(targets: &[String]) -> Option<Self> {
        let program = tool("prometheus")?;
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let found = json!([{"files": [folder.path().join(TARGETS)], "refresh_interval": "1s"}]);
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "fedtune", "honor_labels": true, "file_sd_configs": found}],
        });
        write_targets(folder.path(), targets);
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("a temporary folder can be written");
        let address = quiet_address();
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let mut process = Running::start(&mut command);
        process.wait_for(&["Server is ready to receive web requests"]);
        Some(Self { address, _process: process, folder })
    }

    /// From now on scrapes these addresses alone; what it knows of others it keeps.
    pub fn scrape(&self, targets: &[String]) {
        write_targets(self.folder.path(), targets);
    }

    /// The answer to a question as of now.
    pub fn query(&self, promql: &str) -> Vec<Sample> {
        self.ask("query", promql, "").iter().map(sample).collect()
    }

    /// The answers to a question at each second from `start` to `end`, in seconds since 1970.
    pub fn query_range(&self, promql: &str, (start, end): (f64, f64)) -> Vec<Series> {
        self.ask("query_range", promql, &format!("&start={start}&end={end}&step=1")).iter().map(series).collect()
    }

    fn ask(&self, how: &str, promql: &str, more: &str) -> Vec<Value> {
        let path = format!("/api/v1/{how}?query={}{more}", escaped(promql));
        let (code, body) = http::get_whole(&self.address, &path);
        assert_eq!(code, 200, "{promql}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{promql}: {error}: {body}"));
        answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{promql}: {body}")).clone()
    }

    /// Waits until the answer holds.
    pub fn until(&self, promql: &str, holds: impl Fn(&[Sample]) -> bool) {
        let begun = Instant::now();
        loop {
            let answer = self.query(promql);
            if holds(&answer) {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{promql} is still {answer:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Whole or not at all: Prometheus reads it when it changes.
fn write_targets(folder: &Path, targets: &[String]) {
    let (new, file) = (folder.join("targets.new"), folder.join(TARGETS));
    fs::write(&new, json!([{"targets": targets}]).to_string()).expect("a temporary folder can be written");
    fs::rename(new, file).expect("a file of ours can be renamed");
}

fn sample(answer: &Value) -> Sample {
    (labels(answer), value(&answer["value"]).1)
}

fn series(answer: &Value) -> Series {
    let values = answer["values"].as_array().expect("a series has values");
    (labels(answer), values.iter().map(value).collect())
}

fn labels(answer: &Value) -> BTreeMap<String, String> {
    let labels = answer["metric"].as_object().expect("a series has labels").iter();
    labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// A time and a value.
fn value(pair: &Value) -> (f64, f64) {
    let number = pair[1].as_str().expect("a sample has a value").parse().expect("a value is a number");
    (pair[0].as_f64().expect("a sample has a time"), number)
}

/// A text as a part of an address.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        write!(all, "%{byte:02X}").expect("a text can be written to");
        all
    })
}

/// A tool of Prometheus: what its name in capital letters says, else what `make test` brings, else what is on the path.
pub fn tool(name: &str) -> Option<PathBuf> {
    let brought = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools").join(name);
    let on_path = env::var_os("PATH").unwrap_or_default();
    let named = env::var_os(name.to_uppercase()).map(PathBuf::from);
    let mut places = named.into_iter().chain([brought]);
    places
        .find(|place| place.is_file())
        .or_else(|| env::split_paths(&on_path).map(|folder| folder.join(name)).find(|place| place.is_file()))
}
