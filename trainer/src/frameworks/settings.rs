//! From the spec's `framework` to a [`Framework`]: the one `match` over them all.
//! Must not accept what no code does yet: such a field is refused with a sentence.

use std::sync::Arc;

use fedtune_crds::{FederatedFineTuneSpec, framework as spec, model::Precision};
use thiserror::Error;

use super::{
    SharedFramework,
    central::Central,
    fedllm::{self, FedLlm},
    kd::{Distillation, Kd, Selection, Weighting},
    local_only::LocalOnly,
    split::{self, Split},
};
use crate::wire::Element;

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
        return parse_fed_llm(fed_llm);
    }
    if let Some(kd) = &framework.kd_fed_llm {
        return Ok(Arc::new(parse_kd(kd)));
    }
    if let Some(split) = &framework.split_fed_llm {
        return parse_split(split, spec.model.precision);
    }
    if framework.central.is_some() {
        return Ok(Arc::new(Central));
    }
    Ok(Arc::new(LocalOnly))
}

fn parse_fed_llm(spec: &spec::FedLlm) -> Result<SharedFramework, Vec<Refused>> {
    let mut refused = Vec::new();
    let mut refuse = |wrong: bool, field, asked: String, instead| {
        if wrong {
            refused.push(Refused { field, asked, instead });
        }
    };
    let spec::FedLlm { upload, aggregation, server_optimizer, proximal_mu } = spec;
    refuse(
        *aggregation != spec::Aggregation::FedAvg,
        "spec.framework.fedLLM.aggregation",
        format!("{aggregation:?}"),
        "leave it out, or set FedAvg",
    );
    refuse(
        server_optimizer.is_some(),
        "spec.framework.fedLLM.serverOptimizer",
        "an optimizer of the server's own".into(),
        "leave it out: parameters are averaged, gradients go to the optimizer of spec.training",
    );
    refuse(
        proximal_mu.as_ref().is_some_and(|mu| mu.value() > 0.0),
        "spec.framework.fedLLM.proximalMu",
        "a proximal term".into(),
        "leave it out",
    );
    let upload = match upload {
        spec::Upload::Parameters => fedllm::Upload::Parameters,
        spec::Upload::Gradients => fedllm::Upload::Gradients,
    };
    finish(refused, FedLlm { upload })
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

fn parse_split(spec: &spec::SplitFedLlm, precision: Precision) -> Result<SharedFramework, Vec<Refused>> {
    let mut refused = Vec::new();
    let spec::SplitFedLlm { cut_layer, variant, head, activation_codec } = spec;
    if *head == spec::Head::Client {
        let (field, asked) = ("spec.framework.splitFedLLM.head", "a head on the client".into());
        refused.push(Refused { field, asked, instead: "leave it out, or set Server" });
    }
    let codec = match activation_codec {
        None => match precision {
            Precision::F32 => Element::F32,
            Precision::BF16 => Element::BF16,
        },
        Some(spec::ActivationCodec::F32) => Element::F32,
        Some(spec::ActivationCodec::BF16) => Element::BF16,
        Some(spec::ActivationCodec::F16) => Element::F16,
        Some(spec::ActivationCodec::INT8) => {
            let (field, asked) = ("spec.framework.splitFedLLM.activationCodec", "INT8".into());
            refused.push(Refused { field, asked, instead: "set F32, BF16 or F16" });
            Element::F32
        }
    };
    let variant = match variant {
        spec::Variant::V1 => split::Variant::V1,
        spec::Variant::V2 => split::Variant::V2,
    };
    finish(refused, Split { cut_layer: *cut_layer as usize, variant, codec })
}

fn finish(refused: Vec<Refused>, framework: impl super::Framework + 'static) -> Result<SharedFramework, Vec<Refused>> {
    if refused.is_empty() { Ok(Arc::new(framework)) } else { Err(refused) }
}
