//! Language models with LoRA adapters: what every architecture offers, whole or cut after any block.
//! Must not know frameworks, clients or data sets: tokens in, logits out.
//!
//! | file | one thing |
//! |---|---|
//! | `bert.rs`, `gpt2.rs`, `llama.rs` | one architecture each, read aloud; Mistral and Qwen2 are Llama's relatives |
//! | `shape.rs` | the numbers that say how large a model is, and its linear layers by name |
//! | `head.rs` | what a model ends in: a classifier, or the vocabulary |
//! | `linear.rs`, `norm.rs`, `attention.rs`, `rope.rs` | what the architectures share |
//! | `cache.rs` | what a block keeps of the tokens that have passed |
//! | `lora.rs` | the adapter: its parameters, their order, names and initial values |
//! | `residual.rs` | what earlier rounds left beside frozen weights |
//! | `base.rs` | frozen weights, one copy for everybody in the process |
//! | `cut.rs` | a model as front and back |
//! | `objective.rs` | what training makes of logits |
//! | `recompute.rs` | loss and gradients, with blocks that run again instead of being remembered |
//! | `generate.rs` | answers, token by token |
//! | `load.rs` | Hugging Face folders and GGUF files into frozen base weights |

mod attention;
mod base;
mod bert;
mod cache;
mod cut;
mod generate;
#[cfg(test)]
pub(crate) mod golden;
mod gpt2;
mod head;
mod linear;
mod llama;
mod load;
mod lora;
mod names;
mod norm;
mod objective;
mod recompute;
mod residual;
mod rope;
mod shape;
mod tokens;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use load::fuzzing;

pub use base::{Base, LoadOptions, Precision};
pub use cut::{Model, Part};
pub use generate::{Choice, GenerateError, Generation};
pub use head::Head;
pub use load::{ChatTemplate, LoadError, LoadedTokenizer, StoredTensor, Weights, load_tokenizer};
pub use lora::{Adapter, LoraSettings, ModelError, Parameter, ParameterKind, resolve_targets};
pub use objective::{Objective, cross_entropy};
pub use recompute::Ran;
pub use residual::Residual;
pub use shape::{Architecture, LinearShape, ModelShape};
pub use tokens::Tokens;

#[cfg(test)]
mod tests;
