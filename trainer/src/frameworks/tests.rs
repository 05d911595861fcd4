//! The frameworks' oracles: whole runs over the real wire on a tiny BERT, against plain training of the same steps.

use std::path::Path;

use fedtune_crds::report::{Direction, PayloadKind};
use tch::{Device, Tensor};

use super::{
    StepSizes, adapter,
    kd::{distillation_loss, soften},
    payload_kind,
};
use crate::{
    data::{Example, Labels, Record, encode},
    events::Events,
    local::{Recipe, train},
    meter::{Slots, Worker},
    models::{Base, Head, LoadOptions, Model, ModelShape, Part, Precision},
    plan::Plan,
    random::Key,
    run::{
        RunError,
        local::{Ended, Kept, run},
    },
    server::ServerError,
    testing::{materials, plan, records},
};

mod initial;
mod language;
mod training;

/// A run with clients of 10, 11, 12, ... examples.
pub(super) fn run_with_unequal_clients(plan: &Plan) -> Ended {
    let clients = (0..plan.clients.len()).map(|k| records(10 + k, k as u64)).collect();
    run(plan, &materials(plan, clients), Kept::Nowhere, &Events::silent()).unwrap()
}

pub(super) fn one_client(framework: &str, sets: &[&str]) -> Plan {
    plan(framework, &[sets, &["clients.groups[0].replicas=1"]].concat())
}

/// All values of the global adapter, in its order.
pub(super) fn adapter_of(ended: &Ended) -> Vec<f32> {
    values(ended.outcome.half.model().expect("this framework has a global model"))
}

pub(super) fn values(model: &Model) -> Vec<f32> {
    flat(&adapter::snapshot(model, Part::Whole))
}

pub(super) fn flat(tensors: &[Tensor]) -> Vec<f32> {
    tensors.iter().flat_map(|tensor| Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap()).collect()
}

pub(super) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Plain training of one client's records: a new optimizer each round, the same streams, no federation.
fn train_plainly(plan: &Plan, records: &[Record]) -> Vec<f32> {
    let labels = Labels::new(plan.data.labels.clone());
    let (model, recipe) = fresh(plan);
    let examples = encode(records, &labels).unwrap();
    for round in 1..=plan.rules.rounds {
        let key = Key { seed: plan.seed, client: 0, round, step: 0 };
        train(&model, &examples, &recipe, key, &mut worker()).unwrap();
    }
    values(&model)
}

pub(super) fn fresh(plan: &Plan) -> (Model, Recipe) {
    let materials = materials(plan, Vec::new());
    let model = Model::new(materials.base, &plan.lora, Head::Classifier(3), plan.seed).unwrap();
    (model, plan.recipe(3, 0, plan.lora.clone()))
}

/// A tiny model and its recipe, for tests of a framework's parts.
pub(super) fn tiny() -> (Model, Recipe) {
    fresh(&plan("fedLLM: {}", &[]))
}

pub(super) fn worker() -> Worker {
    Worker::new("silo/0", Slots::new(1, 1), Events::silent())
}

#[test]
fn fedllm_with_one_client_equals_plain_training_to_the_last_bit() {
    let plan = one_client("fedLLM: {}", &[]);
    assert_eq!(adapter_of(&run_with_unequal_clients(&plan)), train_plainly(&plan, &records(10, 0)));
}

#[test]
fn central_over_one_client_equals_plain_training_to_the_last_bit() {
    let plan = one_client("central: {}", &[]);
    assert_eq!(adapter_of(&run_with_unequal_clients(&plan)), train_plainly(&plan, &records(10, 0)));
}

#[test]
fn every_round_says_how_long_it_took_also_where_only_the_server_works() {
    for framework in ["central: {}", "fedLLM: {}"] {
        let ended = run_with_unequal_clients(&plan(framework, &[]));
        let seconds: Vec<f64> = ended.outcome.account.rounds().iter().map(|round| round.seconds).collect();
        assert!(seconds.len() == 2 && seconds.iter().all(|seconds| *seconds > 0.0), "{framework}: {seconds:?}");
    }
}

#[test]
fn split_v2_with_one_client_equals_central_to_the_last_bit() {
    let central = adapter_of(&run_with_unequal_clients(&one_client("central: {}", &[])));
    for (cut, head) in [(1, "Server"), (2, "Server"), (1, "Client"), (2, "Client")] {
        let split = one_client(&format!("splitFedLLM: {{variant: V2, cutLayer: {cut}, head: {head}}}"), &[]);
        assert_eq!(adapter_of(&run_with_unequal_clients(&split)), central, "cut after {cut}, head: {head}");
    }
}

#[test]
fn split_v1_with_one_client_equals_central_to_the_last_bit() {
    let central = adapter_of(&run_with_unequal_clients(&one_client("central: {}", &[])));
    for head in ["Server", "Client"] {
        let split = one_client(&format!("splitFedLLM: {{variant: V1, cutLayer: 1, head: {head}}}"), &[]);
        assert_eq!(adapter_of(&run_with_unequal_clients(&split)), central, "head: {head}");
    }
}

/// One SGD step from theta: `sum p_k (theta - eta g_k) = theta - eta sum p_k g_k`.
#[test]
fn with_one_sgd_step_parameters_and_gradients_are_the_same_within_1e_6() {
    let sgd = ["training.localSteps=1", r#"training.optimizer={"sgd":{"learningRate":"0.1"}}"#];
    let parameters = run_with_unequal_clients(&plan("fedLLM: {upload: Parameters}", &sgd));
    let gradients = run_with_unequal_clients(&plan("fedLLM: {upload: Gradients}", &sgd));
    let difference = largest_difference(&adapter_of(&parameters), &adapter_of(&gradients));
    assert!(difference < 1e-6, "{difference}");
    assert!(largest_difference(&adapter_of(&parameters), &values(&fresh(&plan("fedLLM: {}", &[])).0)) > 1e-3);
}

/// Full batches without dropout: every client takes the same step, whatever the order of its examples.
#[test]
fn equal_clients_with_full_batches_equal_one_within_1e_6() {
    let sets =
        ["tuning.lora.dropout=0", "training.batchSize=10", r#"training.optimizer={"sgd":{"learningRate":"0.1"}}"#];
    let run_k = |k: usize| {
        let replicas = format!("clients.groups[0].replicas={k}");
        let plan = plan("fedLLM: {}", &[&sets[..], &[&replicas]].concat());
        let materials = materials(&plan, vec![records(10, 0); k]);
        adapter_of(&run(&plan, &materials, Kept::Nowhere, &Events::silent()).unwrap())
    };
    let difference = largest_difference(&run_k(4), &run_k(1));
    assert!(difference < 1e-6, "{difference}");
}

#[test]
fn every_framework_gives_the_same_bits_again_however_threads_are_scheduled() {
    for framework in [
        "fedLLM: {}",
        "splitFedLLM: {variant: V1, cutLayer: 1}",
        "splitFedLLM: {variant: V2, cutLayer: 1}",
        "splitFedLLM: {variant: V1, cutLayer: 2, head: Client, activationCodec: INT8}",
        "kdFedLLM: {distillationSteps: 2}",
        "kdFedLLM: {distillationSteps: 2, weighting: Confidence, logits: {topK: 2}}",
    ] {
        let plan = plan(framework, &[]);
        let first = adapter_of(&run_with_unequal_clients(&plan));
        for _ in 0..3 {
            assert_eq!(adapter_of(&run_with_unequal_clients(&plan)), first, "{framework}");
        }
    }
}

/// KL(client || student) on the public set, before and after distilling one client into the student.
#[test]
fn with_lambda_one_distillation_brings_the_student_twenty_times_closer_to_the_client() {
    let plan = one_client(
        "kdFedLLM: {lambda: '1', temperature: '1', distillationSteps: 120}",
        &["training.rounds=1", "training.batchSize=8", "tuning.lora.dropout=0", "training.localSteps=4"],
    );
    let public = encode(&records(8, 1000), &Labels::new(plan.data.labels.clone())).unwrap();
    let (client, recipe) = fresh(&plan);
    let key = Key { seed: plan.seed, client: 0, round: 1, step: 0 };
    let examples = encode(&records(10, 0), &Labels::new(plan.data.labels.clone())).unwrap();
    train(&client, &examples, &recipe, key, &mut worker()).unwrap();
    let kl = |student: &Model| {
        let (z, teacher) = (logits(student, &public), logits(&client, &public));
        distillation_loss(&z, &soften(&teacher, 1.0), None, 1.0, 1.0).double_value(&[])
    };
    let before = kl(&fresh(&plan).0);
    let after = kl(run_with_unequal_clients(&plan).outcome.half.model().unwrap());
    assert!(after * 20.0 < before, "KL before {before}, after {after}");
}

fn logits(model: &Model, examples: &[Example]) -> Tensor {
    crate::evaluate::logits(model, examples, 0, 8)
}

#[test]
fn logits_stand_in_the_order_of_the_examples_whatever_their_lengths() {
    let plan = one_client("kdFedLLM: {}", &[]);
    let examples = encode(&records(20, 7), &Labels::new(plan.data.labels.clone())).unwrap();
    let model = fresh(&plan).0;
    // A head that tells rows apart: training moves it off its small start.
    train(&model, &examples, &plan.recipe(3, 0, plan.lora.clone()), Key::default(), &mut worker()).unwrap();
    let lengths: Vec<usize> = examples.iter().map(|example| example.tokens.len()).collect();
    assert!(!lengths.is_sorted(), "batches by length would keep this order anyway");
    let together = crate::evaluate::logits(&model, &examples, 0, 3);
    let alone = |example| crate::evaluate::logits(&model, std::slice::from_ref(example), 0, 1);
    let alone = Tensor::cat(&examples.iter().map(alone).collect::<Vec<_>>(), 0);
    let apart = |rows: &Tensor| largest_difference(&flat(&[rows.shallow_clone()]), &flat(&[alone.shallow_clone()]));
    assert!(apart(&together) < 1e-5, "{}", apart(&together));
    // What a wrong order would give is far off.
    assert!(apart(&together.flip([0])) > 1e-2, "{}", apart(&together.flip([0])));
}

#[test]
fn with_lambda_zero_the_teachers_logits_change_no_bit() {
    let trained = |clients_seed: u64| {
        let plan = one_client("kdFedLLM: {lambda: '0', distillationSteps: 3}", &[]);
        let materials = materials(&plan, vec![records(10, clients_seed)]);
        adapter_of(&run(&plan, &materials, Kept::Nowhere, &Events::silent()).unwrap())
    };
    assert_eq!(trained(0), trained(77));
}

/// Golden: `torch.nn.functional.kl_div(reduction="batchmean")` and `cross_entropy`, see `tests/golden/make_golden.py`.
#[test]
fn the_distillation_loss_equals_pytorchs_kl_div() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/kd_loss.json");
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() > 2);
    for case in &cases {
        check_kd_case(case);
    }
}

fn check_kd_case(case: &serde_json::Value) {
    let matrix = |name: &str| -> Vec<Vec<f32>> { serde_json::from_value(case[name].clone()).unwrap() };
    let number = |name: &str| case[name].as_f64().unwrap();
    // Masked rows are left out of the batch before it reaches the loss.
    let mask: Vec<bool> = serde_json::from_value(case["mask"].clone()).unwrap();
    let kept: Vec<i64> = mask.iter().enumerate().filter(|(_, kept)| **kept).map(|(row, _)| row as i64).collect();
    let kept = Tensor::from_slice(&kept);
    let z = Tensor::from_slice2(&matrix("student")).set_requires_grad(true);
    let teacher = Tensor::from_slice2(&matrix("teacher"));
    let labels: Vec<i64> = serde_json::from_value(case["labels"].clone()).unwrap();
    let labels = Tensor::from_slice(&labels).index_select(0, &kept);
    let rows = z.index_select(0, &kept);
    let loss = distillation_loss(
        &rows,
        &soften(&teacher.index_select(0, &kept), number("temperature")),
        Some(&labels),
        number("temperature"),
        number("lambda"),
    );
    assert!((loss.double_value(&[]) - number("loss")).abs() < 1e-5, "{} {}", loss.double_value(&[]), number("loss"));
    let gradient = flat(&Tensor::run_backward(&[&loss], &[&z], false, false));
    let expected: Vec<f32> = matrix("gradient").concat();
    assert!(largest_difference(&gradient, &expected) < 1e-5, "{gradient:?} {expected:?}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_names_round_step_and_client() {
    let sets = ["training.rounds=5", r#"training.optimizer={"sgd":{"learningRate":"1e30"}}"#, "training.localSteps=3"];
    for framework in [
        "fedLLM: {}",
        "splitFedLLM: {variant: V1, cutLayer: 1}",
        "splitFedLLM: {variant: V1, cutLayer: 1, activationCodec: INT8}",
        "splitFedLLM: {variant: V1, cutLayer: 1, head: Client}",
        "kdFedLLM: {}",
        "localOnly: {}",
    ] {
        let plan = plan(framework, &sets);
        let clients = (0..3).map(|k| records(10 + k, k as u64)).collect();
        let error = run(&plan, &materials(&plan, clients), Kept::Nowhere, &Events::silent())
            .err()
            .map(|error| error.to_string());
        let sentence = error.unwrap_or_else(|| panic!("{framework}: the run went well"));
        assert!(
            sentence.contains("the loss of silo/") && sentence.contains("in round 1, step"),
            "{framework}: {sentence}"
        );
    }
}

#[test]
fn a_cut_past_the_model_is_refused_with_the_blocks_there_are() {
    let plan = one_client("splitFedLLM: {cutLayer: 3}", &[]);
    let error = run(&plan, &materials(&plan, vec![records(10, 0)]), Kept::Nowhere, &Events::silent()).err().unwrap();
    assert!(matches!(error, RunError::Server(ServerError::CutLayer { cut: 3, blocks: 3, .. })), "{error}");
    let sentence = "clients of group silo are to hold 3 blocks, and the model has 3; the group's cutLayer, or \
                    framework.splitFedLLM.cutLayer where it has none, must be from 1 to 2";
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn the_payload_of_each_client_and_round_is_what_the_formula_says() {
    for (framework, kinds) in [
        ("fedLLM: {}", 4),
        ("fedLLM: {upload: Gradients}", 3),
        ("kdFedLLM: {distillationSteps: 1}", 2),
        ("kdFedLLM: {distillationSteps: 1, logits: {topK: 2}}", 2),
        ("kdFedLLM: {distillationSteps: 1, logits: {byteBudget: 30}, weighting: Examples}", 2),
        ("splitFedLLM: {cutLayer: 1, activationCodec: BF16}", 6),
        ("splitFedLLM: {cutLayer: 1, activationCodec: INT8}", 6),
        ("splitFedLLM: {cutLayer: 1, head: Client, activationCodec: F16}", 9),
        ("splitFedLLM: {cutLayer: 2, head: Client, variant: V2, activationCodec: INT8}", 9),
        ("localOnly: {}", 0),
        ("central: {}", 0),
    ] {
        // The comparison itself is part of every run; here it is seen that there was something to compare.
        let ended = run_with_unequal_clients(&plan(framework, &[]));
        for round in ended.outcome.account.rounds() {
            let first = round.bytes.iter().filter(|count| count.client == "silo/0");
            assert_eq!(first.filter(|count| count.payload > 0).count(), kinds, "{framework}");
        }
    }
}

/// TRAINER's table, bytes in one direction: a module counts r (in + out), an F32 four bytes.
#[test]
fn reference_payloads_are_met_to_the_byte() {
    assert_eq!(12 * adapter::lora_bytes(8, 768, 3 * 768), 1_179_648, "GPT-2 small c_attn r=8");
    assert_eq!(24 * adapter::lora_bytes(8, 1024, 3 * 1024), 3_145_728, "GPT-2 medium c_attn r=8");
    assert_eq!(64 * adapter::lora_bytes(8, 4096, 4096), 16_777_216, "LLaMA-7B q,v r=8");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/models/minilm");
    let base = Base::load(&path, LoadOptions { precision: Precision::F32, device: Device::Cpu, language_head: false })
        .unwrap_or_else(|error| panic!("{error}; run make setup"));
    let plan = plan("fedLLM: {}", &["tuning.lora.rank=8"]);
    let recipe = plan.recipe(77, 0, plan.lora.clone());
    let formula =
        adapter::adapter_bytes(base.shape(), &recipe, Part::Whole) + adapter::head_bytes(base.shape(), &recipe);
    assert_eq!(formula, 413_492, "MiniLM r=8 query,value and a head of 77 classes");
    let facts = super::PayloadFacts {
        client: 0,
        shape: base.shape(),
        recipe: &recipe,
        before: &[],
        public_reads: 1000,
        steps: StepSizes { rows: 8, tokens: 8 * 512 },
    };
    let kd = self::plan("kdFedLLM: {}", &[]).framework.payload(&facts);
    assert!(kd.values().all(|bytes| *bytes == 308_000), "P = 1000, C = 77");
    let wide = ModelShape { hidden: 768, ..base.shape().clone() };
    let facts = super::PayloadFacts { shape: &wide, ..facts };
    let split = self::plan("splitFedLLM: {cutLayer: 1}", &[]).framework.payload(&facts);
    assert_eq!(split[&(Direction::Up, PayloadKind::Activation)], 12_582_912, "B = 8, S = 512, d = 768");
    assert_eq!(split[&(Direction::Down, PayloadKind::ActivationGradient)], 12_582_912);
    let split = self::plan("splitFedLLM: {cutLayer: 1, activationCodec: INT8}", &[]).framework.payload(&facts);
    assert_eq!(split[&(Direction::Up, PayloadKind::Activation)], 8 * 512 * (768 + 4), "c = d + 4");
    // Labels, one a row; with the head at the client none, and hidden states and gradients both ways.
    assert_eq!(split[&(Direction::Up, PayloadKind::Label)], 4 * 8);
    let split = self::plan("splitFedLLM: {cutLayer: 1, head: Client}", &[]).framework.payload(&facts);
    let both_ways = [PayloadKind::Activation, PayloadKind::ActivationGradient];
    for (direction, kind) in [Direction::Up, Direction::Down].into_iter().flat_map(|d| both_ways.map(|kind| (d, kind)))
    {
        assert_eq!(split[&(direction, kind)], 12_582_912, "{direction:?} {kind:?}");
    }
    assert!(!split.contains_key(&(Direction::Up, PayloadKind::Label)));
    assert_eq!(split[&(Direction::Up, PayloadKind::Head)], 4 * (768 * 77 + 77), "the head is averaged");
    let model = Model::new(base, &recipe.lora, Head::Classifier(77), 42).unwrap();
    let sent: u64 =
        adapter::write(&model, Part::Whole).unwrap().iter().map(crate::wire::WireTensor::payload_bytes).sum();
    assert_eq!(sent, formula);
    assert!(model.adapter().parameters().iter().any(|p| payload_kind(p).as_str() == "head"));
}

#[test]
fn a_run_counts_flops_tokens_and_steps_of_each_client() {
    let ended = run_with_unequal_clients(&plan("fedLLM: {}", &[]));
    let plan = plan("fedLLM: {}", &[]);
    for client in ended.outcome.account.clients(&plan) {
        assert_eq!(client.steps, 4);
        assert!(client.flops.train > 0.0 && client.tokens.real > 0, "{client:?}");
    }
}
