//! From the spec's `framework` to a [`Framework`]: the one `match` over them all.
//! Must not accept what no code does yet: such a field is refused with a sentence.

use std::sync::Arc;

use fedtune_crds::{FederatedFineTuneSpec, framework as spec, model::Precision, quantities::Decimal};
use thiserror::Error;

use super::{
    SharedFramework,
    central::Central,
    fedllm::{self, Adaptive, FedLlm, ServerRule},
    kd::{Distillation, Kd, Selection, Weighting},
    local_only::LocalOnly,
    split::{self, Codec, HeadSide, Split},
};
use crate::{optimizer::Rule, wire::Element};

/// A field that asks for something this version does not do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} asks for {asked}, which this version does not do yet; {instead}")]
pub struct Refused {
    /// Path of the field.
    pub field: &'static str,
    /// What it asks for.
    pub asked: String,
    /// What would be right.
    pub instead: &'static str,
}

/// The framework of a spec; all refusals together. The resource's own rules have made sure that exactly one is named.
pub fn parse(spec: &FederatedFineTuneSpec) -> Result<SharedFramework, Vec<Refused>> {
    let framework = &spec.framework;
    if let Some(fed_llm) = &framework.fed_llm {
        return Ok(Arc::new(parse_fed_llm(fed_llm, ranks(spec))));
    }
    if let Some(kd) = &framework.kd_fed_llm {
        return Ok(Arc::new(parse_kd(kd)));
    }
    if let Some(split) = &framework.split_fed_llm {
        return parse_split(split, spec);
    }
    if framework.central.is_some() {
        return Ok(Arc::new(Central));
    }
    Ok(Arc::new(LocalOnly))
}

fn parse_fed_llm(spec: &spec::FedLlm, ranks: Vec<usize>) -> FedLlm {
    let spec::FedLlm { upload, aggregation, server_optimizer, proximal_mu } = spec;
    let optimizer = server_optimizer.as_ref();
    let upload = match upload {
        spec::Upload::Parameters => fedllm::Upload::Parameters(match aggregation {
            spec::Aggregation::FedAvg => fedllm::Aggregation::FedAvg(server_rule(optimizer)),
            spec::Aggregation::FfaLora => fedllm::Aggregation::FfaLora(server_rule(optimizer)),
            spec::Aggregation::Flora => fedllm::Aggregation::Flora,
            spec::Aggregation::FedExLora => fedllm::Aggregation::FedExLora,
            spec::Aggregation::FlexLora => fedllm::Aggregation::FlexLora,
        }),
        spec::Upload::Gradients => fedllm::Upload::Gradients(optimizer.and_then(gradient_rule)),
    };
    FedLlm { upload, proximal_mu: proximal_mu.as_ref().map_or(0.0, Decimal::value), ranks }
}

/// The rank of each client, by ordinal.
pub(crate) fn ranks(spec: &FederatedFineTuneSpec) -> Vec<usize> {
    let all = spec.tuning.lora.rank;
    let groups = spec.clients.groups.iter();
    groups.flat_map(|group| (0..group.replicas).map(move |_| group.rank.unwrap_or(all) as usize)).collect()
}

/// What the server does with mean parameters.
fn server_rule(spec: Option<&spec::ServerOptimizer>) -> ServerRule {
    match spec {
        Some(spec::ServerOptimizer { fed_avg_m: Some(momentum), .. }) => {
            ServerRule::FedAvgM { learning_rate: momentum.learning_rate.value(), momentum: momentum.momentum.value() }
        }
        Some(spec::ServerOptimizer { fed_adam: Some(spec), .. }) => ServerRule::FedAdam(adaptive(spec)),
        Some(spec::ServerOptimizer { fed_yogi: Some(spec), .. }) => ServerRule::FedYogi(adaptive(spec)),
        Some(_) | None => ServerRule::Mean,
    }
}

fn adaptive(spec: &spec::Adaptive) -> Adaptive {
    let spec::Adaptive { learning_rate, beta1, beta2, tau } = spec;
    Adaptive { learning_rate: learning_rate.value(), beta1: beta1.value(), beta2: beta2.value(), tau: tau.value() }
}

/// What the server does with mean gradients.
fn gradient_rule(spec: &spec::ServerOptimizer) -> Option<(Rule, f64)> {
    let adam_w = spec.adam_w.as_ref().map(|adam| {
        let (beta1, beta2, epsilon) = (adam.beta1.value(), adam.beta2.value(), adam.epsilon.value());
        (Rule::AdamW { beta1, beta2, epsilon }, adam.learning_rate.value())
    });
    let sgd = || spec.sgd.as_ref().map(|sgd| (Rule::Sgd { momentum: sgd.momentum.value() }, sgd.learning_rate.value()));
    adam_w.or_else(sgd)
}

/// Whether `logits` fit the model and the public set is checked when both are known.
pub(super) fn parse_kd(spec: &spec::KdFedLlm) -> Kd {
    let spec::KdFedLlm { temperature, lambda, distillation_steps, weighting, logits } = spec;
    let weighting = match weighting {
        spec::Weighting::Uniform => Weighting::Uniform,
        spec::Weighting::Examples => Weighting::Examples,
        spec::Weighting::Confidence => Weighting::Confidence,
    };
    let spec::Logits { top_k, byte_budget } = logits.clone().unwrap_or_default();
    let selection = match (top_k, byte_budget) {
        (Some(k), _) => Selection::TopK(k as usize),
        (None, Some(budget)) => Selection::ByteBudget(budget.bytes()),
        (None, None) => Selection::All,
    };
    let (temperature, lambda, steps) = (temperature.value(), lambda.value(), *distillation_steps as usize);
    Kd { distillation: Distillation { temperature, lambda, steps }, weighting, selection }
}

fn parse_split(split: &spec::SplitFedLlm, spec: &FederatedFineTuneSpec) -> Result<SharedFramework, Vec<Refused>> {
    let mut refused = Vec::new();
    let spec::SplitFedLlm { cut_layer, variant, head, activation_codec } = split;
    let groups = spec.clients.groups.iter();
    let cuts = groups.flat_map(|group| vec![group.cut_layer.unwrap_or(*cut_layer) as usize; group.replicas as usize]);
    let cuts: Vec<usize> = cuts.collect();
    let variant = match variant {
        spec::Variant::V1 => split::Variant::V1,
        spec::Variant::V2 => split::Variant::V2,
    };
    // The resource's own rules refuse it, too.
    if variant == split::Variant::V2 && cuts.windows(2).any(|pair| pair[0] != pair[1]) {
        let (field, asked) = ("spec.clients.groups[].cutLayer", "several cuts of the one back of variant V2".into());
        refused.push(Refused { field, asked, instead: "leave it out, or set variant: V1" });
    }
    let head = match head {
        spec::Head::Server => HeadSide::Server,
        spec::Head::Client => HeadSide::Client,
    };
    let codec = match activation_codec {
        None => Codec::As(match spec.model.precision {
            Precision::F32 => Element::F32,
            Precision::BF16 => Element::BF16,
        }),
        Some(spec::ActivationCodec::F32) => Codec::As(Element::F32),
        Some(spec::ActivationCodec::BF16) => Codec::As(Element::BF16),
        Some(spec::ActivationCodec::F16) => Codec::As(Element::F16),
        Some(spec::ActivationCodec::INT8) => Codec::Int8,
    };
    finish(refused, Split { cuts, variant, head, codec })
}

fn finish(refused: Vec<Refused>, framework: impl super::Framework + 'static) -> Result<SharedFramework, Vec<Refused>> {
    if refused.is_empty() { Ok(Arc::new(framework)) } else { Err(refused) }
}
