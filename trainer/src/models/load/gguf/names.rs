//! Tensor names of GGUF files to those of Hugging Face, and how a matrix lies differently in the two.
//! Must not pass a name that it does not know: another model would be read as this one.

use super::super::{
    super::shape::{Architecture, ModelShape},
    checkpoint::Layout,
};

/// `blk.0.attn_q.weight` to `model.layers.0.self_attn.q_proj.weight`; none where the architecture has no such tensor.
pub(super) fn hugging_face_name(name: &str, architecture: Architecture) -> Option<String> {
    let (module, part) = name.rsplit_once('.')?;
    if !["weight", "bias"].contains(&part) {
        return None;
    }
    let module = match architecture {
        Architecture::Gpt2 => gpt2(module, part)?,
        Architecture::Llama | Architecture::Mistral | Architecture::Qwen2 | Architecture::Bert => {
            llama(module, part, architecture)?
        }
    };
    Some(format!("{module}.{part}"))
}

fn llama(module: &str, part: &str, architecture: Architecture) -> Option<String> {
    let biased =
        architecture == Architecture::Qwen2 && ["attn_q", "attn_k", "attn_v"].iter().any(|m| module.ends_with(m));
    if part == "bias" && !biased {
        return None;
    }
    match module {
        "token_embd" => return Some("model.embed_tokens".to_owned()),
        "output_norm" => return Some("model.norm".to_owned()),
        "output" => return Some("lm_head".to_owned()),
        _ => {}
    }
    let (block, module) = of_block(module)?;
    let module = match module {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{block}.{module}"))
}

fn gpt2(module: &str, part: &str) -> Option<String> {
    match (module, part) {
        ("token_embd", "weight") => return Some("transformer.wte".to_owned()),
        ("position_embd", "weight") => return Some("transformer.wpe".to_owned()),
        ("output_norm", _) => return Some("transformer.ln_f".to_owned()),
        ("output", "weight") => return Some("lm_head".to_owned()),
        _ => {}
    }
    let (block, module) = of_block(module)?;
    let module = match module {
        "attn_norm" => "ln_1",
        "attn_qkv" => "attn.c_attn",
        "attn_output" => "attn.c_proj",
        "ffn_norm" => "ln_2",
        "ffn_up" => "mlp.c_fc",
        "ffn_down" => "mlp.c_proj",
        _ => return None,
    };
    Some(format!("transformer.h.{block}.{module}"))
}

/// `blk.7.attn_q` to 7 and `attn_q`.
fn of_block(module: &str) -> Option<(usize, &str)> {
    let (block, module) = module.strip_prefix("blk.")?.split_once('.')?;
    Some((block.parse().ok()?, module))
}

/// How the tensor of this Hugging Face name lies in a GGUF file. Llama's files keep the two halves of each query and key
/// head interleaved, for another way to rotate them; GPT-2's have outputs first, where Hugging Face has inputs.
pub(super) fn layout(name: &str, shape: &ModelShape) -> Layout {
    match shape.architecture {
        Architecture::Llama if name.ends_with("q_proj.weight") => Layout::InterleavedHeads(shape.heads),
        Architecture::Llama if name.ends_with("k_proj.weight") => Layout::InterleavedHeads(shape.kv_heads),
        Architecture::Gpt2 if name.contains(".c_") && name.ends_with(".weight") => Layout::Transposed,
        Architecture::Llama | Architecture::Gpt2 | Architecture::Mistral | Architecture::Qwen2 | Architecture::Bert => {
            Layout::AsIs
        }
    }
}
