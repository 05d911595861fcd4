//! Oracles of what `spec.training` and `spec.stop` ask of every framework: schedules, accumulation, an early end.

use super::*;

const EVERY_FRAMEWORK: [&str; 7] = [
    "fedLLM: {}",
    "fedLLM: {upload: Gradients}",
    "kdFedLLM: {distillationSteps: 2}",
    "splitFedLLM: {variant: V1, cutLayer: 1}",
    "splitFedLLM: {variant: V2, cutLayer: 1}",
    "central: {}",
    "localOnly: {}",
];

/// A schedule that moves, and steps of two batches, the last of a round of one: 10 examples in batches of 4 are three.
const SCHEDULED: [&str; 5] = [
    r#"training.schedule={"cosine":{"warmupSteps":1}}"#,
    "training.gradientAccumulation=2",
    "training.localSteps=null",
    "training.localEpochs=1",
    "training.weightDecay=0.1",
];

#[test]
fn with_a_schedule_and_accumulation_split_still_equals_central_to_the_last_bit() {
    let central = adapter_of(&run_with_unequal_clients(&one_client("central: {}", &SCHEDULED)));
    for variant in ["V1", "V2"] {
        let split = one_client(&format!("splitFedLLM: {{variant: {variant}, cutLayer: 1}}"), &SCHEDULED);
        assert_eq!(adapter_of(&run_with_unequal_clients(&split)), central, "{variant}");
    }
    let fedllm = one_client("fedLLM: {}", &SCHEDULED);
    assert_eq!(adapter_of(&run_with_unequal_clients(&fedllm)), central);
}

/// From theta, one step along the mean of two batches' gradients, at the client or at the server.
#[test]
fn accumulating_two_batches_is_stepping_along_the_mean_of_their_gradients() {
    let sgd = ["training.rounds=1", r#"training.optimizer={"sgd":{"learningRate":"0.1"}}"#];
    let trained = |framework, more: &[&str]| {
        adapter_of(&run_with_unequal_clients(&one_client(framework, &[&sgd, more].concat())))
    };
    let two = ["training.localSteps=1", "training.gradientAccumulation=2"];
    let accumulated = trained("fedLLM: {}", &two);
    let mean = trained("fedLLM: {upload: Gradients}", &["training.localSteps=2"]);
    let split = trained("splitFedLLM: {variant: V1, cutLayer: 1}", &two);
    assert!(largest_difference(&accumulated, &mean) < 1e-6);
    assert!(largest_difference(&accumulated, &split) < 1e-6);
    let one = trained("fedLLM: {}", &["training.localSteps=1"]);
    assert!(largest_difference(&accumulated, &one) > 1e-4, "the second batch counts");
}

#[test]
fn local_steps_stay_optimizer_steps_and_each_takes_as_many_batches_as_accumulate() {
    let tokens = |accumulation: &str| {
        let plan = one_client("fedLLM: {}", &["training.localSteps=3", accumulation, "training.rounds=1"]);
        let client = run_with_unequal_clients(&plan).outcome.account.clients(&plan).remove(0);
        assert_eq!(client.steps, 3, "{accumulation}");
        client.tokens.real
    };
    // Ten examples in batches of four: nine batches are three epochs, three batches are one.
    assert_eq!(tokens("training.gradientAccumulation=3"), 3 * tokens("training.gradientAccumulation=1"));
}

#[test]
fn a_schedule_that_ends_at_once_moves_nothing_but_in_the_frameworks_that_step() {
    // The first step of a warm-up has a rate of 0, and there is no other.
    let still = [r#"training.schedule={"linear":{"warmupSteps":5}}"#, "training.rounds=1", "training.localSteps=1"];
    for framework in EVERY_FRAMEWORK {
        let framework = framework.replace("distillationSteps: 2", "distillationSteps: 1");
        let plan = plan(&framework, &still);
        let ended = run_with_unequal_clients(&plan);
        let Some(model) = ended.outcome.half.model() else { continue };
        let (start, _) = fresh(&plan);
        let moved = largest_difference(&values(model), &values(&start));
        // Central takes a step for each of three clients.
        assert_eq!(moved > 0.0, framework.starts_with("central"), "{framework} moved by {moved}");
    }
}

#[test]
fn a_stop_rule_ends_every_framework_after_the_round_that_meets_it() {
    for framework in EVERY_FRAMEWORK {
        let plan = plan(framework, &["training.rounds=5", "stop.targetAccuracy=0.01"]);
        let clients = (0..3).map(|k| records(10 + k, k as u64)).collect();
        let folder = tempfile::tempdir().unwrap();
        let materials = materials(&plan, clients);
        let ended = run(&plan, &materials, Kept::In(folder.path()), &Events::silent()).unwrap();
        assert_eq!(ended.outcome.account.rounds().len(), 1, "{framework}");
        let report = crate::run::summary::succeeded(&plan, &materials, &ended);
        assert_eq!(report.stop_reason, "targetAccuracy", "{framework}");
        // What a checkpoint keeps says that it is over: a restart does no further round.
        let again = run(&plan, &materials, Kept::In(folder.path()), &Events::silent()).unwrap();
        assert_eq!(again.outcome.account.rounds().len(), 1, "{framework}, again");
    }
}
