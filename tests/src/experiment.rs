//! An experiment of `manifests/`, patched: run by the program on this machine, and by the operator on a cluster.
//! Must not change a word of it between the two.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use fedtune_crds::{FederatedFineTune, FederatedFineTuneStatus, report::RunReport, status::Phase};
use kube::{
    Api,
    runtime::wait::{Condition, await_condition},
};
use serde_json::Value;
use tokio::time;

use crate::{cluster::Cluster, program, program::Running};

/// What a run may take, here or on a cluster; far more than it needs.
const LIMIT: Duration = Duration::from_secs(900);
/// Makes an experiment small: it names a BERT, which does not speak.
const SHRINK: &str = "shrink";

/// Names and contents of the files of a folder.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A resource as it is given to both.
#[derive(Clone, Debug)]
pub struct Experiment {
    name: String,
    json: Value,
}

impl Experiment {
    /// `manifests/<manifest>.yaml` with patches of `tests/e2e/`, one after the other, as `kubectl patch` makes them.
    pub fn new(cluster: &Cluster, manifest: &str, patches: &[&str]) -> Self {
        let file = workspace().join("manifests").join(manifest).with_extension("yaml");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let before = patched(cluster, &text, "volumes");
        let patch = |json: Value, name: &&str| keep_tongue(patched(cluster, &json.to_string(), name), &json, name);
        let json = patches.iter().fold(before, patch);
        let name = json["metadata"]["name"].as_str().expect("a manifest has a name").to_owned();
        Self { name, json }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: &str) {
        self.set("/metadata/name", name.into());
        name.clone_into(&mut self.name);
    }

    /// What is at this JSON pointer becomes `value`.
    pub fn set(&mut self, pointer: &str, value: Value) {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
        let parent = self.json.pointer_mut(parent).unwrap_or_else(|| panic!("there is no {parent}"));
        parent[field] = value;
    }

    /// The list at this JSON pointer ends with `value`, too.
    pub fn push(&mut self, pointer: &str, value: Value) {
        let list = self.json.pointer_mut(pointer).and_then(Value::as_array_mut);
        list.unwrap_or_else(|| panic!("there is no list {pointer}")).push(value);
    }

    /// Writes it to a file, as it is handed to those who are not of the cluster.
    pub fn write(&self, file: &Path) {
        fs::write(file, self.json.to_string()).expect("a temporary folder can be written");
    }

    /// Runs it on this machine, once however often it is asked for; the files of its results.
    fn run_here(&self) -> Arc<Files> {
        static RUNS: Mutex<BTreeMap<String, Arc<Files>>> = Mutex::new(BTreeMap::new());
        // Two that ask at once run one after the other: each would take the other's cores.
        let mut runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        let spec = self.json.to_string();
        Arc::clone(runs.entry(spec).or_insert_with(|| Arc::new(self.run_here_anew())))
    }

    fn run_here_anew(&self) -> Files {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let spec = folder.path().join("spec.yaml");
        self.write(&spec);
        let mut command = Command::new(program());
        // Its relative paths are the workspace's.
        command.arg("run").arg(&spec).arg("--out").arg(folder.path()).current_dir(workspace()).env_remove("RUST_LOG");
        let _ended = Running::start(&mut command).wait_within(LIMIT).well();
        files(&folder.path().join(&self.name))
    }

    /// Holds `results` against those of a run on this machine: the last figures, and each file of the adapter.
    ///
    /// # Panics
    /// Where one bit differs.
    pub fn assert_bits_of_a_local_run(&self, results: &Path) {
        let here = self.run_here();
        let expected: RunReport = serde_json::from_slice(&here["results.json"]).expect("it is one of ours");
        assert_eq!(self.report(results).final_figures, expected.final_figures, "{}", self.name);
        // There a client that trains for itself leaves its adapter in its own pod.
        if self.json["spec"]["framework"]["localOnly"].is_null() {
            self.assert_adapter(&files(&results.join(&self.name)), &here);
        }
    }

    fn assert_adapter(&self, there: &Files, here: &Files) {
        let [there, here] = [there, here].map(adapter);
        assert!(
            there.keys().eq(here.keys()) && !here.is_empty(),
            "{}: {:?}, {:?}",
            self.name,
            there.keys(),
            here.keys()
        );
        let differ: Vec<_> =
            here.iter().filter(|(name, content)| there[*name] != **content).map(|(name, _)| name).collect();
        assert!(differ.is_empty(), "{}: {differ:?} differ from those of a local run", self.name);
    }

    /// What `results` says of it.
    pub fn report(&self, results: &Path) -> RunReport {
        let file = results.join(&self.name).join("results.json");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    /// Applies it as a user does.
    pub fn apply(&self, cluster: &Cluster, namespace: &str) {
        let _applied = cluster.kubectl(&["apply", "-n", namespace, "-f", "-"], &self.json.to_string()).well();
    }

    /// Changes it on the cluster by this merge patch.
    pub fn patch(&self, cluster: &Cluster, namespace: &str, patch: &Value) {
        let patch = patch.to_string();
        let words = ["patch", "fft", &self.name, "--namespace", namespace, "--type=merge", "--patch", &patch];
        let _patched = cluster.kubectl(&words, "").well();
    }

    /// Kills those of its pods that have these labels, as a node that is lost does: nobody is asked to end.
    pub fn kill(&self, cluster: &Cluster, namespace: &str, labels: &str) {
        let labels = format!("app.kubernetes.io/instance={},{labels}", self.name);
        let words = ["delete", "pods", "--namespace", namespace, "--selector", &labels, "--grace-period=0", "--force"];
        let killed = cluster.kubectl(&words, "").well().stdout;
        assert!(killed.contains("force deleted"), "there was nothing to kill: {killed}");
    }

    /// How it stands on the cluster.
    pub async fn now(&self, cluster: &Cluster, namespace: &str) -> FederatedFineTuneStatus {
        let runs: Api<FederatedFineTune> = Api::namespaced(cluster.client().await, namespace);
        runs.get(&self.name).await.expect("it was applied").status.unwrap_or_default()
    }

    /// Applies it and waits for its end, and says how long it took.
    pub async fn run_on(&self, cluster: &Cluster, namespace: &str) -> FederatedFineTune {
        let began = Instant::now();
        self.apply(cluster, namespace);
        self.wait(cluster, namespace, has_round(1)).await;
        let first = began.elapsed();
        let ended = self.wait(cluster, namespace, has_ended()).await;
        note(format_args!(
            "{}: first round after {:.1} s, ended after {:.1} s",
            self.name,
            first.as_secs_f64(),
            began.elapsed().as_secs_f64(),
        ));
        ended
    }

    /// Waits for its end, which must be a good one.
    pub async fn succeeds(&self, cluster: &Cluster, namespace: &str) {
        let status =
            self.wait(cluster, namespace, has_ended()).await.status.expect("a run that has ended has a status");
        assert_eq!(status.phase, Some(Phase::Succeeded), "{}: {:?}", self.name, status.message);
    }

    /// Waits until the resource is as it should be, and fails the test with what the cluster knows where that takes too
    /// long.
    pub async fn wait(
        &self,
        cluster: &Cluster,
        namespace: &str,
        condition: impl Condition<FederatedFineTune>,
    ) -> FederatedFineTune {
        let runs: Api<FederatedFineTune> = Api::namespaced(cluster.client().await, namespace);
        let met = Box::pin(await_condition(runs, &self.name, condition));
        let Ok(met) = time::timeout(LIMIT, met).await else {
            panic!("{} is not there after {LIMIT:?}:\n{}", self.name, known(cluster, namespace));
        };
        met.expect("a resource can be watched").expect("nobody deletes it")
    }
}

/// Says a figure that a test came by, where no test's output is caught.
pub fn note(words: fmt::Arguments<'_>) {
    writeln!(std::io::stderr(), "{words}").expect("standard error can be written");
}

/// Those of a run's files that are its adapter's.
fn adapter(files: &Files) -> BTreeMap<&String, &Vec<u8>> {
    files.iter().filter(|(name, _)| name.starts_with("adapter/")).collect()
}

/// Whether a run is over, one way or the other.
pub fn has_ended() -> impl Condition<FederatedFineTune> {
    |run: Option<&FederatedFineTune>| {
        phase(run).is_some_and(|phase| match phase {
            Phase::Succeeded | Phase::Failed => true,
            Phase::Pending | Phase::Starting | Phase::Running | Phase::Suspended => false,
        })
    }
}

/// Whether this round is done, or never will be.
pub fn has_round(wanted: u32) -> impl Condition<FederatedFineTune> {
    move |run: Option<&FederatedFineTune>| {
        let round = run.and_then(|run| run.status.as_ref()?.round);
        round.is_some_and(|round| round >= wanted) || has_ended().matches_object(run)
    }
}

/// Whether the message of the resource has all of these words.
pub fn says<'a>(words: &'a [&'a str]) -> impl Condition<FederatedFineTune> + 'a {
    |run: Option<&FederatedFineTune>| {
        let message = run.and_then(|run| run.status.as_ref()?.message.as_deref()).unwrap_or_default();
        words.iter().all(|word| message.contains(word))
    }
}

fn phase(run: Option<&FederatedFineTune>) -> Option<Phase> {
    run?.status.as_ref()?.phase
}

fn patched(cluster: &Cluster, text: &str, patch: &str) -> Value {
    let file = workspace().join("tests/e2e").join(patch).with_extension("yaml").display().to_string();
    let words = ["patch", "--local", "-f", "-", "--type", "merge", "--patch-file", &file, "-o", "json"];
    serde_json::from_str(&cluster.kubectl(&words, text).well().stdout).expect("kubectl writes JSON")
}

/// A language model stays the one that it was.
fn keep_tongue(mut after: Value, before: &Value, patch: &str) -> Value {
    if patch == SHRINK && before["spec"]["model"]["task"] == "CausalLM" {
        after["spec"]["model"]["source"] = before["spec"]["model"]["source"].clone();
    }
    after
}

/// What the cluster knows of the runs of a namespace and their pods.
fn known(cluster: &Cluster, namespace: &str) -> String {
    let about = |kind: &str| cluster.kubectl(&["describe", kind, "-n", namespace], "").stdout;
    about("fft") + &about("pods")
}

/// The files below `folder`.
///
/// # Panics
/// Where there is no such folder.
pub fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    collect(folder, folder, &mut found);
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Files) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("a folder can be listed").path()) {
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let name = path.strip_prefix(root).expect("it lies below the root").display().to_string();
            let content = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            found.insert(name, content);
        }
    }
}

/// The names of all manifests, sorted.
pub fn manifests() -> Vec<String> {
    let folder = workspace().join("manifests");
    let entries = folder.read_dir().expect("there are manifests");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("a folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| path.file_stem().expect("a file has a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The folder that relative paths of manifests begin at.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds the crate").to_owned()
}
