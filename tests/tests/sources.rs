//! A model and data that are not on this machine: the same bits as from paths, kept, and used when the network is away.
//! And results that are wanted elsewhere.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{fs, path::Path};

use fedtune_tests::{
    Bench, Ended, Running,
    files::{FileServer, Store},
};

/// Copies the files of a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Runs a spec with the key of the store in its environment.
fn run(bench: &Bench, spec: &str, arguments: &[&str]) -> Ended {
    let mut command = bench.command(&[&["run", spec], arguments].concat());
    command.env("AWS_ACCESS_KEY_ID", Store::KEY.0).env("AWS_SECRET_ACCESS_KEY", Store::KEY.1);
    Running::start(&mut command).wait()
}

#[test]
fn a_model_from_s3_and_data_from_http_give_the_same_bits_as_paths_also_when_both_are_gone() {
    let bench = Bench::new();
    let _by_paths = bench.run(&bench.spec("paths", "fedLLM: {}"), &[]).well();
    copy(&bench.path("model"), &bench.path("buckets/lab/models/tiny"));
    let (files, store) = (FileServer::start(&bench.path("")), Store::start(&bench.path("buckets")));
    let path = |name: &str| format!("{{path: {}}}", bench.path(name).display());
    let s3 = format!("{{s3: {{url: 's3://lab/models/tiny', endpoint: '{}'}}}}", store.endpoint());
    let http = format!("{{http: {{url: '{}'}}}}", files.url("reviews.csv"));
    let yaml = bench.yaml("remote", "fedLLM: {}").replace(&path("model"), &s3).replace(&path("reviews.csv"), &http);
    assert!(yaml.contains(&s3) && yaml.contains(&http));
    let spec = bench.write("remote.yaml", yaml).display().to_string();
    let same = || {
        assert!(bench.adapter("out", "paths") == bench.adapter("out", "remote"), "the adapters differ");
        let [paths, remote] = ["paths", "remote"].map(|name| bench.report("out", name));
        // Hashes are over bytes, not over where they lie.
        assert_eq!(paths.hashes.base_model, remote.hashes.base_model);
        assert_eq!(paths.hashes.tokenizer, remote.hashes.tokenizer);
        assert_eq!(paths.hashes.data, remote.hashes.data);
        assert_eq!(paths.hashes.partition, remote.hashes.partition);
    };
    let ended = run(&bench, &spec, &[]).well();
    for stage in ["Downloading s3://lab/models/tiny\n", &format!("Downloading {}\n", files.url("reviews.csv"))] {
        assert!(ended.stderr.contains(stage), "{}", ended.stderr);
    }
    same();
    let ended = run(&bench, &spec, &["--fresh"]).well();
    assert!(!ended.stderr.contains("Downloading"), "{}", ended.stderr);
    drop((files, store));
    let ended = run(&bench, &spec, &["--fresh"]).well();
    let notes = ended.stderr.lines().filter(|line| line.contains("cannot be reached") && line.ends_with("is used"));
    assert_eq!(notes.count(), 2, "{}", ended.stderr);
    same();
    let config = bench.read("out/remote/adapter/adapter_config.json");
    assert!(String::from_utf8(config).unwrap().contains("\"base_model_name_or_path\": \"s3://lab/models/tiny\""));
}

#[test]
fn an_s3_source_without_keys_that_fit_ends_with_what_to_set() {
    let bench = Bench::new();
    copy(&bench.path("model"), &bench.path("buckets/lab/tiny"));
    let store = Store::start(&bench.path("buckets"));
    let path = format!("{{path: {}}}", bench.path("model").display());
    let s3 = format!("{{s3: {{url: 's3://lab/tiny', endpoint: '{}'}}}}", store.endpoint());
    let spec = bench.write("remote.yaml", bench.yaml("remote", "fedLLM: {}").replace(&path, &s3)).display().to_string();
    let mut command = bench.command(&["run", &spec]);
    command.env("AWS_ACCESS_KEY_ID", "nobody").env("AWS_SECRET_ACCESS_KEY", "nothing");
    let ended = Running::start(&mut command).wait();
    assert_eq!(ended.code, Some(78), "{ended:#?}");
    let words = "fedtune: remote: s3://lab/tiny may not be read: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
}

#[test]
fn results_are_taken_to_a_store_and_wait_in_the_run_s_folder_while_it_is_away() {
    let bench = Bench::new();
    let buckets = bench.path("buckets");
    fs::create_dir_all(buckets.join("lab")).unwrap();
    let store = Store::start(&buckets);
    let output =
        |endpoint: &str| format!("\n  output: {{s3: {{url: 's3://lab/runs/mail', endpoint: '{endpoint}'}}}}\n");
    let spec = bench.write("sent.yaml", bench.yaml("sent", "fedLLM: {}") + &output(&store.endpoint()));
    let spec = spec.display().to_string();
    let mut denied = bench.command(&["run", &spec]);
    denied.env("AWS_ACCESS_KEY_ID", Store::KEY.0).env("AWS_SECRET_ACCESS_KEY", "another");
    let ended = Running::start(&mut denied).wait();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    let words = "fedtune: sent: the results lie in out/sent and cannot be sent: s3://lab/runs/mail/adapter/";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
    let ended = run(&bench, &spec, &[]).well();
    assert!(ended.stderr.contains("sent is finished already"), "{}", ended.stderr);
    for name in ["adapter/adapter_model.safetensors", "adapter/adapter_config.json", "report.html", "results.json"] {
        let sent = fs::read(buckets.join("lab/runs/mail").join(name)).unwrap();
        assert!(sent == bench.read(&format!("out/sent/{name}")), "{name} differs");
    }
}

#[test]
fn a_base_that_the_adapter_names_by_its_address_is_brought_to_be_asked_and_merged() {
    let bench = Bench::new();
    copy(&bench.path("model"), &bench.path("buckets/lab/models/tiny"));
    let store = Store::start(&bench.path("buckets"));
    let path = format!("{{path: {}}}", bench.path("model").display());
    let yaml = bench.yaml("remote", "fedLLM: {}").replace(&path, "{s3: {url: 's3://lab/models/tiny'}}");
    let spec = bench.write("remote.yaml", yaml).display().to_string();
    let with_keys = |arguments: &[&str]| {
        let mut command = bench.command(arguments);
        command.env("AWS_ENDPOINT_URL", store.endpoint());
        command.env("AWS_ACCESS_KEY_ID", Store::KEY.0).env("AWS_SECRET_ACCESS_KEY", Store::KEY.1);
        Running::start(&mut command).wait().well()
    };
    with_keys(&["run", &spec]);
    let (adapter, model) =
        (bench.path("out/remote/adapter").display().to_string(), bench.path("model").display().to_string());
    let answers = ["s3://lab/models/tiny", &model]
        .map(|base| with_keys(&["predict", "--adapter", &adapter, "--base", base, "a fine film"]).stdout);
    assert_eq!(with_keys(&["predict", "--adapter", &adapter, "a fine film"]).stdout, answers[0]);
    assert_eq!(answers[0], answers[1]);
    let merged = bench.path("merged").display().to_string();
    with_keys(&["merge", "--adapter", &adapter, "--out", &merged]);
    assert!(bench.path("merged/model.safetensors").is_file());
}
