//! Estimates against runs: what is said before is what is counted after.

use std::collections::BTreeMap;

use super::*;
use crate::{
    events::Events,
    run::{
        local::{Ended, Kept, run},
        materials::Materials,
        summary,
    },
    testing::{materials, plan, records},
};

fn with_three_clients(plan: &Plan) -> Materials {
    materials(plan, (0..plan.clients.len()).map(|k| records(10 + k, k as u64)).collect())
}

fn estimate(plan: &Plan, materials: &Materials) -> Estimate {
    let facts = Facts::of(materials.base.shape().clone(), materials.lora.clone(), &materials.corpus).unwrap();
    Estimate::of(plan, &facts, true)
}

/// Payload bytes of a finished run by client and round, up and down.
fn exchanged(ended: &Ended) -> BTreeMap<(String, u32), UpDown> {
    let mut all = BTreeMap::<_, UpDown>::new();
    for round in ended.outcome.account.rounds() {
        for client in &round.participants {
            all.entry((client.clone(), round.round)).or_default();
        }
        for count in &round.bytes {
            let entry = all.entry((count.client.clone(), round.round)).or_default();
            match count.direction {
                Direction::Up => entry.up += count.payload,
                Direction::Down => entry.down += count.payload,
            }
        }
    }
    all
}

#[test]
fn bytes_are_those_of_the_run_to_the_byte_and_operations_within_two_percent() {
    for (framework, sets) in [
        ("fedLLM: {}", &[][..]),
        ("fedLLM: {upload: Gradients}", &["participation.fraction=0.67", "training.rounds=4"]),
        ("kdFedLLM: {distillationSteps: 3}", &["training.gradientAccumulation=2"]),
        (
            "splitFedLLM: {variant: V1, cutLayer: 1, activationCodec: BF16}",
            &["training.localSteps=null", "training.localEpochs=1"],
        ),
        ("splitFedLLM: {variant: V2, cutLayer: 2}", &["training.gradientAccumulation=2"]),
        ("splitFedLLM: {variant: V1, cutLayer: 1, head: Client}", &["training.gradientCheckpointing=true"]),
        ("fedLLM: {aggregation: FLoRA}", &["training.rounds=4"]),
        ("fedLLM: {aggregation: FedExLoRA}", &["training.rounds=4", "training.gradientCheckpointing=true"]),
        ("localOnly: {}", &[]),
        ("central: {}", &[]),
    ] {
        let plan = plan(framework, sets);
        let materials = with_three_clients(&plan);
        let estimate = estimate(&plan, &materials);
        let ended = run(&plan, &materials, Kept::Nowhere, &Events::silent()).unwrap();
        let foretold: BTreeMap<_, _> = estimate
            .clients
            .iter()
            .flat_map(|client| {
                client.rounds.iter().map(|round| ((client.client.clone(), round.round), round.payload_bytes))
            })
            .collect();
        assert_eq!(foretold, exchanged(&ended), "{framework}");
        let report = summary::succeeded(&plan, &materials, &ended);
        assert_eq!(estimate.bytes(), report.totals.payload_bytes, "{framework}");
        let (said, done) = (estimate.flops(), report.totals.client_flops);
        assert!((said - done).abs() <= 0.02 * done, "{framework}: {said} FLOPs estimated, {done} counted");
    }
}

#[test]
fn a_framework_that_fits_a_budget_is_named_and_one_that_does_not_says_by_how_much() {
    let fedllm = plan("fedLLM: {}", &[]);
    let estimate = estimate(&fedllm, &with_three_clients(&fedllm));
    let bytes = estimate.bytes().sum();
    let fits = |bytes| verdict(std::slice::from_ref(&estimate), Budget { bytes: Some(bytes), client_flops: None });
    assert_eq!(fits(bytes), "FedLLM fits the budget\n");
    assert!(fits(bytes - 1).starts_with("FedLLM does not fit the budget: "), "{}", fits(bytes - 1));
    assert_eq!(verdict(&[estimate], Budget::default()), "");
}
