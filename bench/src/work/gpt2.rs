//! A GPT-2 small of random weights: its own are not at hand, and a step takes as long with any.
//! Must not be written twice: both sides read the same file.

use std::{fs, path::Path};

use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::error::BenchError;

const BLOCKS: usize = 12;
const HIDDEN: i64 = 768;
const VOCAB: i64 = 50_257;
const POSITIONS: i64 = 1024;

/// The model's folder below `scratch`.
pub(crate) const FOLDER: &str = "gpt2";

/// Writes the model below `scratch`, unless it is there.
pub(crate) fn prepare(scratch: &Path) -> Result<(), BenchError> {
    let folder = scratch.join(FOLDER);
    let weights = folder.join("model.safetensors");
    if weights.is_file() {
        return Ok(());
    }
    let failed = |error| BenchError::io(format!("{} cannot be written", folder.display()), error);
    fs::create_dir_all(&folder).map_err(failed)?;
    let config = json!({
        "model_type": "gpt2", "architectures": ["GPT2Model"], "vocab_size": VOCAB, "n_positions": POSITIONS,
        "n_embd": HIDDEN, "n_layer": BLOCKS, "n_head": 12, "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5, "pad_token_id": VOCAB - 1, "eos_token_id": VOCAB - 1, "bos_token_id": VOCAB - 1,
    });
    fs::write(folder.join("config.json"), config.to_string()).map_err(failed)?;
    let partial = folder.join("model.partial");
    Tensor::write_safetensors(&tensors(), &partial).map_err(BenchError::trainer)?;
    fs::rename(partial, weights).map_err(failed)
}

/// Weights of deviation 0.02, biases zero, norms one.
fn tensors() -> Vec<(String, Tensor)> {
    tch::manual_seed(0);
    let options = (Kind::Float, Device::Cpu);
    let random = |size: &[i64]| Tensor::randn(size, options) * 0.02;
    let mut all = vec![
        ("transformer.wte.weight".to_owned(), random(&[VOCAB, HIDDEN])),
        ("transformer.wpe.weight".to_owned(), random(&[POSITIONS, HIDDEN])),
    ];
    let norm = |all: &mut Vec<(String, Tensor)>, name: String| {
        all.push((format!("{name}.weight"), Tensor::ones([HIDDEN], options)));
        all.push((format!("{name}.bias"), Tensor::zeros([HIDDEN], options)));
    };
    for block in 0..BLOCKS {
        let name = |part: &str| format!("transformer.h.{block}.{part}");
        norm(&mut all, name("ln_1"));
        norm(&mut all, name("ln_2"));
        for (part, inputs, outputs) in [
            ("attn.c_attn", HIDDEN, 3 * HIDDEN),
            ("attn.c_proj", HIDDEN, HIDDEN),
            ("mlp.c_fc", HIDDEN, 4 * HIDDEN),
            ("mlp.c_proj", 4 * HIDDEN, HIDDEN),
        ] {
            all.push((format!("{}.weight", name(part)), random(&[inputs, outputs])));
            all.push((format!("{}.bias", name(part)), Tensor::zeros([outputs], options)));
        }
    }
    norm(&mut all, "transformer.ln_f".to_owned());
    all
}
