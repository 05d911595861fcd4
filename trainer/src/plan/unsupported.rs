//! What the resource can ask for and no code does yet.
//! Must not let such a field pass: a field that is ignored gives a result that its author did not ask for.

use fedtune_crds::{
    FederatedFineTuneSpec,
    clients::Group,
    data::{Data, HeldOut},
    source::Source,
};

use crate::{frameworks::Refused, sources::Origin};

/// One refusal for each such field of `spec`.
pub(super) fn find(spec: &FederatedFineTuneSpec) -> Vec<Refused> {
    let lists = [sources(spec), model_and_tuning(spec), spec.clients.groups.iter().filter_map(group).collect()];
    lists.into_iter().flatten().collect()
}

fn refuse(wrong: bool, field: &'static str, asked: &str, instead: &'static str) -> Option<Refused> {
    wrong.then(|| Refused { field, asked: asked.to_owned(), instead })
}

fn sources(spec: &FederatedFineTuneSpec) -> Vec<Refused> {
    let Data { source, public, evaluation, .. } = &spec.data;
    let held_out = |held: Option<&HeldOut>| held.and_then(|held| held.source.as_ref()).and_then(without_feature);
    [
        without_feature(&spec.model.source).map(|feature| not_built("spec.model.source", feature)),
        without_feature(source).map(|feature| not_built("spec.data.source", feature)),
        held_out(public.as_ref()).map(|feature| not_built("spec.data.public.source", feature)),
        held_out(Some(evaluation)).map(|feature| not_built("spec.data.evaluation.source", feature)),
        refuse(
            !cfg!(feature = "s3") && spec.output.as_ref().is_some_and(|output| output.s3.is_some()),
            "spec.output.s3",
            "a store that this program was built without (cargo's feature s3)",
            "build with that feature, or leave it out",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The cargo feature that brings from a source and that this program was built without.
fn without_feature(source: &Source) -> Option<&'static str> {
    Origin::of(source).feature().and_then(|(feature, built)| (!built).then_some(feature))
}

fn not_built(field: &'static str, feature: &str) -> Refused {
    let asked = format!("a source that this program was built without (cargo's feature {feature})");
    Refused { field, asked, instead: "build with that feature, or set path to a folder or file" }
}

fn model_and_tuning(spec: &FederatedFineTuneSpec) -> Vec<Refused> {
    let adapter = spec.tuning.lora.initial_adapter.as_ref().and_then(without_feature);
    let lora = &spec.tuning.lora;
    let unequal = spec.clients.groups.iter().any(|group| group.rank.is_some_and(|rank| rank != lora.rank));
    [
        adapter.map(|feature| not_built("spec.tuning.lora.initialAdapter", feature)),
        refuse(
            lora.initial_adapter.is_some() && unequal,
            "spec.tuning.lora.initialAdapter",
            "one adapter to start from for clients of unequal ranks",
            "leave it out, or leave the groups' rank out",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn group(group: &Group) -> Option<Refused> {
    let feature = without_feature(&group.data.as_ref()?.source)?;
    Some(not_built("spec.clients.groups[].data.source", feature))
}
