use super::*;
use crate::models::Architecture;

fn minilm() -> ModelShape {
    ModelShape {
        architecture: Architecture::Bert,
        blocks: 6,
        hidden: 384,
        heads: 12,
        kv_heads: 12,
        head_dim: 32,
        intermediate: 1536,
        vocab: 30522,
        max_positions: 512,
    }
}

fn llama_7b() -> ModelShape {
    ModelShape {
        architecture: Architecture::Llama,
        blocks: 32,
        hidden: 4096,
        heads: 32,
        kv_heads: 32,
        head_dim: 128,
        intermediate: 11008,
        vocab: 32000,
        max_positions: 2048,
    }
}

fn lora(targets: &[&str]) -> LoraSettings {
    let target_modules = targets.iter().map(ToString::to_string).collect();
    LoraSettings { rank: 8, alpha: 16.0, dropout: 0.0, rs_lora: false, target_modules }
}

fn bytes<'a>(parameters: impl IntoIterator<Item = &'a Parameter>) -> usize {
    parameters.into_iter().map(|parameter| parameter.tensor.numel() * 4).sum()
}

#[test]
fn minilm_with_rank_8_and_77_classes_travels_as_413492_bytes() {
    let adapter = Adapter::new(&minilm(), &lora(&["query", "value"]), Head::Classifier(77), 0, Device::Cpu).unwrap();
    assert_eq!(bytes(adapter.parameters()), 413_492);
}

#[test]
fn llama_7b_with_rank_8_on_queries_and_values_travels_as_16777216_bytes() {
    let adapter = Adapter::new(&llama_7b(), &lora(&["q_proj", "v_proj"]), Head::Classifier(2), 0, Device::Cpu).unwrap();
    let pairs = adapter.parameters().iter().filter(|parameter| parameter.kind == ParameterKind::Adapter);
    assert_eq!(bytes(pairs), 16_777_216);
}

#[test]
fn a_target_is_the_last_parts_of_a_name() {
    let count = |target: &str| resolve_targets(&minilm(), &lora(&[target])).map_or(0, |linears| linears.len());
    assert_eq!(count("query"), 6);
    assert_eq!(count("self.query"), 6);
    assert_eq!(count("bert.encoder.layer.3.attention.self.query"), 1);
    assert_eq!(count("dense"), 19, "three a block, and the pooler");
    assert_eq!(count("all-linear"), 37);
    assert_eq!(count("ery"), 0);
}

#[test]
fn an_unknown_target_is_answered_with_those_that_exist() {
    let error = resolve_targets(&minilm(), &lora(&["query", "q_proj"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "LoRA target \"q_proj\" is no linear layer of this BERT model; it has query, key, value, dense"
    );
    let error = resolve_targets(&llama_7b(), &lora(&["query"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "LoRA target \"query\" is no linear layer of this Llama model; it has q_proj, k_proj, v_proj, o_proj, \
         gate_proj, up_proj, down_proj"
    );
}

#[test]
fn settings_out_of_range_are_refused() {
    let refused = |lora: &LoraSettings, labels| {
        Adapter::new(&minilm(), lora, Head::Classifier(labels), 0, Device::Cpu).unwrap_err()
    };
    let good = lora(&["query"]);
    assert_eq!(refused(&LoraSettings { rank: 0, ..good.clone() }, 2), ModelError::RankZero);
    assert_eq!(refused(&good, 1), ModelError::Labels { labels: 1 });
    for dropout in [1.0, -0.1, f64::NAN] {
        let settings = LoraSettings { dropout, ..good.clone() };
        assert_eq!(refused(&settings, 2), ModelError::Dropout { dropout: dropout.to_string() });
    }
    assert!(matches!(refused(&lora(&[]), 2), ModelError::NoTarget { .. }));
}

#[test]
fn the_scale_is_alpha_over_rank_or_over_its_root() {
    let settings = LoraSettings { rank: 16, alpha: 8.0, ..lora(&["query"]) };
    assert!((settings.scale() - 0.5).abs() < 1e-12);
    assert!((LoraSettings { rs_lora: true, ..settings }.scale() - 2.0).abs() < 1e-12);
}
