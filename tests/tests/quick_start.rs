//! The commands of `docs/quick-start.md`, as they stand there, on an experiment of few steps.
//! Must not know a command of its own: a page that is changed is tried as it is now.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use fedtune_tests::{Running, program};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use tempfile::TempDir;

/// What makes the page's experiment one of seconds.
const FEWER: [(&str, &str); 6] = [
    (".cache/models/smollm2", ".cache/models/minilm"),
    ("rounds: 5", "rounds: 2"),
    ("localSteps: 4", "localSteps: 1"),
    ("batchSize: 16", "batchSize: 4"),
    ("public: {examples: 128}", "public: {examples: 8}"),
    ("evaluation: {examples: 300}", "evaluation: {examples: 20}"),
];

/// Of a block; far more than it needs, and more than what ends it by force takes.
const LIMIT: Duration = Duration::from_secs(600);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds the crate").to_owned()
}

/// What stands in blocks of commands, one after the other.
fn blocks() -> Vec<String> {
    let page = fs::read_to_string(root().join("docs/quick-start.md")).expect("there is a quick start");
    let (mut found, mut block) = (Vec::new(), None::<String>);
    for event in Parser::new(&page) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) if &*language == "sh" => {
                block = Some(String::new());
            }
            Event::Text(words) => block.iter_mut().for_each(|block| block.push_str(&words)),
            Event::End(TagEnd::CodeBlock) => found.extend(block.take()),
            _ => {}
        }
    }
    found
}

/// A folder that looks as the tree does after `make demo`.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().expect("a temporary folder can be made");
    for folder in ["manifests", "target/release"] {
        fs::create_dir_all(tree.path().join(folder)).expect("a temporary folder can be written");
    }
    symlink(root().join(".cache"), tree.path().join(".cache")).expect("a temporary folder can be written");
    symlink(program(), tree.path().join("target/release/fedtune")).expect("a temporary folder can be written");
    let manifest = fs::read_to_string(root().join("manifests/fedllm.yaml")).expect("the manifest is there");
    let small = FEWER.iter().fold(manifest, |text, (many, few)| {
        assert!(text.contains(many), "manifests/fedllm.yaml has no {many} any more");
        text.replace(many, few)
    });
    fs::write(tree.path().join("manifests/fedllm.yaml"), small).expect("a temporary folder can be written");
    tree
}

fn adapter(tree: &TempDir, out: &str) -> Vec<u8> {
    let file = tree.path().join("out").join(out).join("mail-fedllm/adapter/adapter_model.safetensors");
    fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

#[test]
fn each_command_of_the_quick_start_does_what_the_page_says() {
    let blocks = blocks();
    let [demo, one, apart] = blocks.as_slice() else { panic!("the page has other blocks now: {blocks:?}") };
    // It builds the program for minutes; `make demo` is tried by hand.
    let dry = Command::new("bash").args(["-euc", &demo.replace("make", "make --dry-run")]).current_dir(root()).output();
    assert!(dry.expect("there is a bash").status.success(), "make does not know {demo}");

    let tree = tree();
    // A server that nobody joins would wait for ever; `timeout` ends it with all that the block has started.
    let run = |block: &str| {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "590", "bash", "-euo", "pipefail", "-c", block]).current_dir(tree.path());
        Running::start(command.env_remove("RUST_LOG")).wait_within(LIMIT).well()
    };
    let said = run(one).stdout;
    assert!(["ham", "spam"].iter().any(|label| said.contains(label)), "predict names no label: {said}");
    for file in ["results.json", "report.html"] {
        assert!(tree.path().join("out/first/mail-fedllm").join(file).exists(), "there is no {file}");
    }
    let _ended = run(apart);
    assert!(adapter(&tree, "apart") == adapter(&tree, "first"), "the adapters differ");
}
