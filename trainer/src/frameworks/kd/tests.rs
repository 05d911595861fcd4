//! Whole runs of KD-FedLLM on a tiny BERT and a tiny Llama, over the real wire.

use tch::Tensor;

use super::{
    public::{PublicSet, public_reads},
    *,
};
use crate::{
    data::{Labels, Record, encode},
    events::Events,
    frameworks::{adapter, settings::parse_kd},
    local::train,
    meter::{Slots, Worker},
    models::{Model, Part},
    plan::Plan,
    random::Key,
    run::{
        RunError,
        local::{Ended, Kept, run},
    },
    server::ServerError,
    testing::{language_materials, language_plan, materials, plan, prompts, records},
};

fn run_classifier(plan: &Plan) -> Result<Ended, RunError> {
    let clients = (0..plan.clients.len()).map(|k| records(10 + k, k as u64)).collect();
    run(plan, &materials(plan, clients), Kept::Nowhere, &Events::silent())
}

/// With these public records, and clients whose records begin at this seed.
fn run_language(plan: &Plan, public: Vec<Record>, seed: u64) -> Ended {
    let clients = (0..plan.clients.len()).map(|k| prompts(10 + k, seed + k as u64)).collect();
    let mut materials = language_materials(plan, clients);
    materials.corpus.public = public;
    run(plan, &materials, Kept::Nowhere, &Events::silent()).unwrap()
}

fn values(model: &Model) -> Vec<f32> {
    let flat = |tensor: &Tensor| Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
    adapter::snapshot(model, Part::Whole).iter().flat_map(flat).collect()
}

fn student(ended: &Ended) -> &Model {
    ended.outcome.half.model().unwrap()
}

fn examples(records: &[Record]) -> Vec<Example> {
    encode(records, &Labels::new(vec!["a".into(), "b".into(), "c".into()])).unwrap()
}

fn bare(mut record: Record) -> Record {
    record.answer.as_mut().unwrap().said.fill(false);
    record
}

#[test]
fn a_selection_and_a_weighting_are_taken_from_the_spec() {
    let parse = |yaml: &str| {
        let plan = fedtune_crds::load(
            &format!(
                "apiVersion: fedtune.io/v1alpha1\nkind: FederatedFineTune\nmetadata: {{name: tiny}}\nspec:\n  framework: {{kdFedLLM: {yaml}}}\n  \
                 model: {{source: {{path: m}}}}\n  data: {{source: {{path: d}}, public: {{examples: 8}}, evaluation: {{examples: 8}}}}\n  \
                 clients: {{groups: [{{name: silo, replicas: 3}}]}}\n"
            ),
            &[],
        );
        parse_kd(plan.unwrap().spec.framework.kd_fed_llm.as_ref().unwrap())
    };
    let Kd { weighting, selection, .. } = parse("{}");
    assert_eq!((weighting, selection), (Weighting::Uniform, Selection::All));
    let Kd { weighting, selection, .. } = parse("{weighting: Confidence, logits: {topK: 16}}");
    assert_eq!((weighting, selection), (Weighting::Confidence, Selection::TopK(16)));
    let Kd { weighting, selection, .. } = parse("{weighting: Examples, logits: {byteBudget: 2Mi}}");
    assert_eq!((weighting, selection), (Weighting::Examples, Selection::ByteBudget(2 << 20)));
}

/// SGD, so that what rounding moves in a gradient it moves as little in a parameter.
#[test]
fn with_k_of_all_classes_a_run_ends_where_the_dense_one_does_within_half_precision() {
    let sgd = [r#"training.optimizer={"sgd":{"learningRate":"0.1"}}"#];
    let ends = |logits: &str| {
        let framework = format!("kdFedLLM: {{distillationSteps: 5{logits}}}");
        values(student(&run_classifier(&plan(&framework, &sgd)).unwrap()))
    };
    let (dense, all, two) = (ends(""), ends(", logits: {topK: 3}"), ends(", logits: {topK: 2}"));
    let apart = |other: &[f32]| dense.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart(&all) < 1e-4, "{}", apart(&all));
    // With three classes of which two are sent, the rest is the third's own: nothing is lost either.
    assert!(apart(&two) < 1e-4, "{}", apart(&two));
    let one = ends(", logits: {topK: 1}");
    assert!(apart(&one) > apart(&all), "{} {}", apart(&one), apart(&all));
}

#[test]
fn what_does_not_fit_is_refused_before_the_first_round_as_the_users_own_mistake() {
    for (logits, sentence) in [
        ("{topK: 4}", "spec.framework.kdFedLLM.logits.topK is 4; there are 3 classes, so it must be at most 3"),
        // 8 read states, each with an F16 and a U8.
        (
            "{byteBudget: 23}",
            "spec.framework.kdFedLLM.logits.byteBudget is 23 bytes; the largest logit alone of each of the 8 read \
             states takes 24, so it must be at least 24",
        ),
    ] {
        let error = run_classifier(&plan(&format!("kdFedLLM: {{logits: {logits}}}"), &[])).err().unwrap();
        assert!(matches!(error, RunError::Server(ServerError::Unfit(_))) && error.is_configuration(), "{error}");
        assert_eq!(error.to_string(), sentence);
    }
}

/// Bytes are compared with the formula while the run runs; here with the read states counted by hand.
#[test]
fn a_language_models_payload_is_that_of_the_tokens_to_be_said_and_of_every_token_of_a_bare_prompt() {
    let mut public = prompts(8, 1000);
    public[3] = bare(public[3].clone());
    let reads: u64 = 7 * 2 + public[3].tokens.len() as u64;
    for (logits, row) in [
        ("", 61 * 4),
        (", logits: {topK: 5}", 5 * 3),
        (", logits: {topK: 61}", 61 * 3),
        // The most that fits into 700 bytes.
        (", logits: {byteBudget: 700}", 700 / (reads * 3) * 3),
    ] {
        let plan = language_plan(&format!("kdFedLLM: {{distillationSteps: 1{logits}}}"), &[]);
        let ended = run_language(&plan, public.clone(), 0);
        for round in ended.outcome.account.rounds() {
            let counts: Vec<u64> =
                round.bytes.iter().filter(|count| count.payload > 0).map(|count| count.payload).collect();
            assert_eq!(counts, [reads * row; 6], "{logits}: three clients, two directions");
        }
        // What is kept of each round for clients that lose their state is what travelled.
        let kept = ended.outcome.half.broadcast().unwrap().unwrap().tensors;
        assert_eq!(kept.iter().map(crate::wire::WireTensor::payload_bytes).sum::<u64>(), reads * row, "{logits}");
    }
}

/// KL(client || student) at the public tokens to be said, before and after distilling one client into the student. The
/// client has learnt its answers: of 61 tokens few are likely.
fn closeness(logits: &str) -> [f64; 2] {
    let plan = language_plan(
        &format!("kdFedLLM: {{lambda: '1', temperature: '1', distillationSteps: 120{logits}}}"),
        &[
            "training.rounds=1",
            "training.batchSize=8",
            "tuning.lora.dropout=0",
            "training.localSteps=60",
            "clients.groups[0].replicas=1",
        ],
    );
    let materials = language_materials(&plan, Vec::new());
    let fresh = || Model::new(materials.base.share(), &plan.lora, Head::Language, plan.seed).unwrap();
    let recipe = plan.recipe(3, 0, plan.lora.clone());
    let client = fresh();
    let key = Key { seed: plan.seed, client: 0, round: 1, step: 0 };
    let mut worker = Worker::new("silo/0", Slots::new(1, 1), Events::silent());
    train(&client, &examples(&prompts(10, 0)), &recipe, key, &mut worker).unwrap();
    let public = examples(&prompts(8, 1000));
    let batch = PublicSet::of(&public, &recipe).batch(&[0, 1, 2, 3, 4, 5, 6, 7], &client);
    let log_p = soften(&client.forward(&batch.tokens, None), 1.0);
    let kl = |student: &Model| {
        distillation_loss(&student.forward(&batch.tokens, None), &log_p, None, 1.0, 1.0).double_value(&[])
    };
    [kl(&fresh()), kl(student(&run_language(&plan, prompts(8, 1000), 0)))]
}

#[test]
fn distillation_brings_a_language_model_twenty_times_closer_to_the_client_and_with_fewer_logits_less_close() {
    let [before, all] = closeness("");
    let [some, few] = [24, 8].map(|k| closeness(&format!(", logits: {{topK: {k}}}"))[1]);
    assert!(all * 20.0 < before && few * 8.0 < before, "KL before {before}, then {all}, {some}, {few}");
    assert!(all < some && some < few, "{all}, {some}, {few}");
}

#[test]
fn a_language_models_run_gives_the_same_bits_again() {
    let framework = "kdFedLLM: {distillationSteps: 2, weighting: Confidence, logits: {topK: 5}}";
    let ends = || values(student(&run_language(&language_plan(framework, &[]), prompts(8, 1000), 0)));
    assert_eq!(ends(), ends());
}

#[test]
fn with_lambda_zero_the_student_learns_what_the_public_examples_say_and_a_bare_prompt_hands_all_to_the_teacher() {
    let ends = |public: &[Record], seed: u64| {
        let plan = language_plan("kdFedLLM: {lambda: '0', distillationSteps: 3, logits: {topK: 5}}", &[]);
        values(student(&run_language(&plan, public.to_vec(), seed)))
    };
    let mut public = prompts(8, 1000);
    assert_eq!(ends(&public, 0), ends(&public, 77));
    public[0] = bare(public[0].clone());
    assert_ne!(ends(&public, 0), ends(&public, 77));
}

#[test]
fn weights_that_differ_end_elsewhere() {
    let ends = |weighting: &str| {
        let framework = format!("kdFedLLM: {{distillationSteps: 3, weighting: {weighting}}}");
        values(student(&run_classifier(&plan(&framework, &[])).unwrap()))
    };
    let all = ["Uniform", "Examples", "Confidence"].map(ends);
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
}

#[test]
fn the_formula_and_the_halves_count_the_same_read_states() {
    let public = examples(&prompts(8, 1000));
    let plan = language_plan("kdFedLLM: {logits: {topK: 5}}", &[]);
    let base = language_materials(&plan, Vec::new()).base;
    let recipe = plan.recipe(3, 0, plan.lora.clone());
    let facts = PayloadFacts {
        client: 0,
        shape: base.shape(),
        recipe: &recipe,
        before: &[],
        public_reads: public_reads(&public, Head::Language),
        steps: crate::frameworks::StepSizes::default(),
    };
    assert_eq!(facts.public_reads, 16);
    assert!(plan.framework.payload(&facts).values().all(|bytes| *bytes == 16 * 5 * 3));
}
