//! A tiny run for tests: a BERT of three blocks, random texts, and a plan that any framework fits.
//! Must not be random: the same arguments give the same run each time.

use std::path::PathBuf;

use fedtune_crds::load;
use tch::Device;

use crate::{
    data::{Answer, Corpus, Record},
    models::{Base, LoadOptions, Precision},
    plan::{Plan, Task},
    random::{Key, Site},
    run::materials::Materials,
};

/// Two steps a round for two rounds, AdamW, dropout; `framework` and `sets` decide the rest.
pub(crate) fn plan(framework: &str, sets: &[&str]) -> Plan {
    let yaml = format!(
        "
apiVersion: fedtune.io/v1alpha1
kind: FederatedFineTune
metadata: {{name: tiny}}
spec:
  framework: {{{framework}}}
  model: {{source: {{path: tiny-bert}}}}
  tuning: {{lora: {{rank: 2, alpha: '4', dropout: '0.25', targetModules: [query, value]}}}}
  data: {{source: {{path: none}}, labels: [a, b, c], public: {{examples: 8}}, evaluation: {{examples: 8}}}}
  training: {{rounds: 2, localSteps: 2, batchSize: 4, maxSequenceLength: 12, optimizer: {{adamW: {{learningRate: '1e-2'}}}}}}
  clients: {{groups: [{{name: silo, replicas: 3}}]}}
"
    );
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let resource = load(&yaml, &sets).unwrap_or_else(|error| panic!("{error}"));
    Plan::of(&resource).unwrap()
}

/// Records of random tokens, of 3 to 11 tokens each, whose label is that of their first token.
pub(crate) fn records(count: usize, seed: u64) -> Vec<Record> {
    let mut stream = Key { seed, ..Key::default() }.stream(Site::Partition);
    let mut record = || {
        let tokens: Vec<u32> = (0..3 + stream.below(9)).map(|_| 1 + stream.below(30) as u32).collect();
        let label = ["a", "b", "c"][tokens[0] as usize % 3];
        Record { tokens, label: Some(label.to_owned()), answer: None }
    };
    (0..count).map(|_| record()).collect()
}

pub(crate) fn materials(plan: &Plan, clients: Vec<Vec<Record>>) -> Materials {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny-bert");
    let base =
        Base::load(&folder, LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false })
            .unwrap();
    Materials {
        base,
        lora: plan.lora.clone(),
        initial: None,
        pad_id: 0,
        corpus: Corpus {
            clients,
            public: records(8, 1000),
            evaluation: records(8, 2000),
            label_order: plan.data.labels.clone(),
            data_hash: String::new(),
            partition_hash: String::new(),
        },
        tokenizer_hash: String::new(),
        run_hash: "tiny".to_owned(),
        model_name: "tiny".to_owned(),
        device_words: "CPU (F32)".to_owned(),
    }
}

/// As [`plan`], for a language model.
pub(crate) fn language_plan(framework: &str, sets: &[&str]) -> Plan {
    let sets = [&[r#"tuning.lora.targetModules=["q_proj","v_proj"]"#][..], sets].concat();
    Plan { task: Task::Language, ..plan(framework, &sets) }
}

/// Records of 3 to 8 random tokens and an answer of two, which their first token decides.
pub(crate) fn prompts(count: usize, seed: u64) -> Vec<Record> {
    let mut stream = Key { seed, ..Key::default() }.stream(Site::Partition);
    let mut prompt = || {
        let mut tokens: Vec<u32> = (0..3 + stream.below(6)).map(|_| 3 + stream.below(50) as u32).collect();
        let said = tokens.len();
        tokens.extend([55 + tokens[0] % 3, 2]);
        let said = (0..tokens.len()).map(|place| place >= said).collect();
        Record { tokens, label: None, answer: Some(Answer { said, ..Answer::default() }) }
    };
    (0..count).map(|_| prompt()).collect()
}

/// As [`materials`], of a tiny Llama with a vocabulary of 61.
pub(crate) fn language_materials(plan: &Plan, clients: Vec<Vec<Record>>) -> Materials {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny-llama");
    let options = LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: true };
    let mut materials = Materials { base: Base::load(&folder, options).unwrap(), ..materials(plan, clients) };
    materials.corpus.public = prompts(8, 1000);
    materials.corpus.evaluation = prompts(8, 2000);
    materials
}
