//! What the resource can ask for and no code does yet.
//! Must not let such a field pass: a field that is ignored gives a result that its author did not ask for.

use fedtune_crds::{
    FederatedFineTuneSpec,
    clients::{Group, Placement},
    data::{Data, HeldOut},
    source::Source,
    training::Training,
};

use crate::frameworks::Refused;

/// One refusal for each such field of `spec`.
pub(super) fn find(spec: &FederatedFineTuneSpec) -> Vec<Refused> {
    let lists = [
        sources(spec),
        model_and_tuning(spec),
        training(&spec.training),
        stop(spec),
        spec.clients.groups.iter().flat_map(group).collect(),
    ];
    lists.into_iter().flatten().collect()
}

fn refuse(wrong: bool, field: &'static str, asked: &str, instead: &'static str) -> Option<Refused> {
    wrong.then(|| Refused { field, asked: asked.to_owned(), instead })
}

fn sources(spec: &FederatedFineTuneSpec) -> Vec<Refused> {
    let Data { source, public, evaluation, .. } = &spec.data;
    let held_out = |held: &HeldOut| held.source.as_ref().is_some_and(is_remote);
    let path = "set path to a folder or file";
    [
        refuse(is_remote(&spec.model.source), "spec.model.source", "a remote source", path),
        refuse(is_remote(source), "spec.data.source", "a remote source", path),
        refuse(public.as_ref().is_some_and(held_out), "spec.data.public.source", "a remote source", path),
        refuse(held_out(evaluation), "spec.data.evaluation.source", "a remote source", path),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn is_remote(source: &Source) -> bool {
    source.path.is_none()
}

fn model_and_tuning(spec: &FederatedFineTuneSpec) -> Vec<Refused> {
    [refuse(
        spec.tuning.lora.initial_adapter.is_some(),
        "spec.tuning.lora.initialAdapter",
        "an adapter to start from",
        "leave it out",
    )]
    .into_iter()
    .flatten()
    .collect()
}

fn training(training: &Training) -> Vec<Refused> {
    [
        refuse(
            training.gradient_accumulation > 1,
            "spec.training.gradientAccumulation",
            "several batches a step",
            "leave it out, or set 1",
        ),
        refuse(
            training.gradient_checkpointing,
            "spec.training.gradientCheckpointing",
            "activations computed twice",
            "leave it out, or set false",
        ),
        refuse(
            training.schedule.linear.is_some() || training.schedule.cosine.is_some(),
            "spec.training.schedule",
            "a learning rate that changes",
            "leave it out, or set constant: {}",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn stop(spec: &FederatedFineTuneSpec) -> Vec<Refused> {
    let stop = &spec.stop;
    let rules = stop.target_accuracy.is_some()
        || stop.max_bytes.is_some()
        || stop.max_client_flops.is_some()
        || stop.patience.is_some();
    refuse(rules, "spec.stop", "an early end", "leave it out: the run ends after training.rounds").into_iter().collect()
}

fn group(group: &Group) -> Vec<Refused> {
    let data = group.data.as_ref();
    [
        refuse(
            group.cut_layer.is_some(),
            "spec.clients.groups[].cutLayer",
            "a cut of the group's own",
            "leave it out: framework.splitFedLLM.cutLayer holds for all",
        ),
        refuse(
            data.is_some_and(|data| is_remote(&data.source)),
            "spec.clients.groups[].data.source",
            "a remote source",
            "set path to a folder or file",
        ),
        refuse(
            data.is_some_and(|data| data.partition.is_some()),
            "spec.clients.groups[].data.partition",
            "a partition of the group's own",
            "leave it out: data.partition holds within each group",
        ),
        refuse(
            group.placement == Placement::External,
            "spec.clients.groups[].placement",
            "a group outside of the cluster",
            "leave it out, or set Managed",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
