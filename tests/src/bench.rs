//! A folder with a tiny model, data and specs, and runs of the program in it.
//! Must not leave anything outside of that folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use fedtune_crds::report::RunReport;
use tempfile::TempDir;

use crate::{
    program::{Ended, Running, program},
    tiny,
};

/// Rows of the data.
const ROWS: usize = 120;

/// A folder that holds `model/`, `reviews.csv` and what the test writes; gone with the test.
#[derive(Debug)]
pub struct Bench(TempDir);

impl Bench {
    /// A folder with the tiny BERT and its texts.
    pub fn new() -> Self {
        let bench = Self(TempDir::new().expect("a temporary folder can be made"));
        tiny::write_model(&bench.path("model"));
        bench.write("reviews.csv", tiny::csv(ROWS));
        bench
    }

    /// The path of `name` in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a temporary folder can be made");
        fs::write(&path, content).expect("a temporary folder can be written");
        path
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name} cannot be read: {error}"))
    }

    /// The YAML of two clients, two rounds and this framework, as in `fedLLM: {}`.
    pub fn yaml(&self, name: &str, framework: &str) -> String {
        format!(
            "apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {{name: {name}}}
spec:
  experiment: tiny
  framework:
    {framework}
  model:
    source: {{path: {model}}}
    task: SequenceClassification
    precision: F32
  tuning:
    lora: {{rank: 2, alpha: \"4\"}}
  data:
    source: {{path: {data}}}
    format: CSV
    columns: {{text: text, label: mood}}
    partition:
      iid: {{}}
    public: {{examples: 16}}
    evaluation: {{examples: 40}}
  training:
    rounds: 2
    localSteps: 3
    batchSize: 4
    maxSequenceLength: 12
    device: CPU
    optimizer:
      adamW: {{learningRate: \"1e-2\"}}
  seed: 42
  clients:
    groups:
      - {{name: silo, replicas: 2}}
",
            model = self.path("model").display(),
            data = self.path("reviews.csv").display(),
        )
    }

    /// Writes [`Bench::yaml`] to `<name>.yaml`, and gives the file's path.
    pub fn spec(&self, name: &str, framework: &str) -> String {
        self.write(&format!("{name}.yaml"), self.yaml(name, framework)).display().to_string()
    }

    /// `fedtune` with these arguments, in the folder, with nothing of the caller's environment that it would heed.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments);
        self.settle(&mut command);
        command
    }

    /// Puts `command` into the folder and out of the reach of what the caller has set.
    pub fn settle(&self, command: &mut Command) {
        command.current_dir(self.0.path()).env("FEDTUNE_CACHE", self.path("cache"));
        for heeded in ["RUST_LOG", "NO_COLOR", "RUST_BACKTRACE", "FEDTUNE_RUN_UID", "HF_TOKEN", "HF_ENDPOINT"] {
            command.env_remove(heeded);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"AWS_")) {
            command.env_remove(name);
        }
    }

    /// Starts `fedtune`.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// Runs `fedtune` to its end.
    pub fn fedtune(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// Runs a spec with further arguments; results go to `out/`.
    pub fn run(&self, spec: &str, arguments: &[&str]) -> Ended {
        self.fedtune(&[&["run", spec], arguments].concat())
    }

    /// The results of the run `name` below `out`.
    pub fn report(&self, out: &str, name: &str) -> RunReport {
        let text = self.read(&format!("{out}/{name}/results.json"));
        serde_json::from_slice(&text).expect("results.json is a RunReport")
    }

    /// The weights of the adapter of the run `name` below `out`.
    pub fn adapter(&self, out: &str, name: &str) -> Vec<u8> {
        self.read(&format!("{out}/{name}/adapter/adapter_model.safetensors"))
    }

    /// Names of all files below `folder`, from there on, sorted; none where there is no such folder.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let root = self.path(folder);
        let mut found = Vec::new();
        collect(&root, &root, &mut found);
        found.sort();
        found
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("a folder can be listed").path()) {
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let name = path.strip_prefix(root).expect("it lies below the root");
            found.push(name.display().to_string());
        }
    }
}
