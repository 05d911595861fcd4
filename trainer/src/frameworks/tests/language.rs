//! The same oracles for a language model, on a tiny Llama.

use super::*;
use crate::testing::{language_materials, language_plan, prompts};

fn run_one_client(framework: &str) -> Ended {
    let plan = language_plan(framework, &["clients.groups[0].replicas=1"]);
    run(&plan, &language_materials(&plan, vec![prompts(10, 0)]), Kept::Nowhere, &Events::silent()).unwrap()
}

/// Plain training of the client's prompts: a new optimizer each round, the same streams, no federation.
fn train_prompts_plainly(plan: &Plan) -> Vec<f32> {
    let materials = language_materials(plan, Vec::new());
    let recipe = plan.recipe(3, 0, plan.lora.clone());
    let model = Model::new(materials.base, &plan.lora, recipe.head, plan.seed).unwrap();
    let examples = encode(&prompts(10, 0), &Labels::new(plan.data.labels.clone())).unwrap();
    for round in 1..=plan.rules.rounds {
        let key = Key { seed: plan.seed, client: 0, round, step: 0 };
        train(&model, &examples, &recipe, key, &mut worker()).unwrap();
    }
    values(&model)
}

#[test]
fn with_one_client_fedllm_and_central_are_plain_training_of_a_language_model() {
    let plan = language_plan("fedLLM: {}", &["clients.groups[0].replicas=1"]);
    let expected = train_prompts_plainly(&plan);
    assert_eq!(adapter_of(&run_one_client("fedLLM: {}")), expected);
    assert_eq!(adapter_of(&run_one_client("central: {}")), expected);
}

#[test]
fn with_one_client_split_fedllm_is_plain_training_of_a_language_model() {
    let plan = language_plan("fedLLM: {}", &["clients.groups[0].replicas=1"]);
    let expected = train_prompts_plainly(&plan);
    for variant in ["V1", "V2"] {
        let framework = format!("splitFedLLM: {{cutLayer: 1, variant: {variant}}}");
        assert_eq!(adapter_of(&run_one_client(&framework)), expected, "{variant}");
    }
}

#[test]
fn a_language_model_learns_its_answers_and_reports_what_it_says() {
    let sets = ["training.rounds=3", "training.localSteps=20", "tuning.lora={rank: 8, targetModules: [all-linear]}"];
    let plan = language_plan("fedLLM: {}", &sets);
    let clients = (0..3).map(|k| prompts(30, k)).collect();
    let ended = run(&plan, &language_materials(&plan, clients), Kept::Nowhere, &Events::silent()).unwrap();
    let rounds = ended.outcome.account.rounds();
    let (first, last) = (&rounds[0], &rounds[rounds.len() - 1]);
    assert!(last.loss < 0.8 * first.loss, "{} after {}", last.loss, first.loss);
    assert!((last.perplexity.unwrap() - last.loss.exp()).abs() < 1e-9);
    assert_eq!(Some(last.accuracy), last.token_accuracy, "without choices it is the tokens'");
    assert!(last.token_accuracy.unwrap() >= 0.5, "the token that ends every answer is half of it: {last:?}");
    assert_eq!(last.choices_accuracy, None);
}

/// Head bytes stay out, and adapters are as large as a classifier's.
#[test]
fn a_language_model_sends_no_head() {
    let ended = run_one_client("fedLLM: {}");
    let bytes = &ended.outcome.account.rounds()[0].bytes;
    assert!(bytes.iter().all(|count| count.kind == PayloadKind::Adapter), "{bytes:?}");
    // Rank 2 on q_proj (24 to 64) and v_proj (24 to 32) of three blocks, in F32.
    assert_eq!(bytes[0].payload, 3 * (adapter::lora_bytes(2, 24, 64) + adapter::lora_bytes(2, 24, 32)));
}
