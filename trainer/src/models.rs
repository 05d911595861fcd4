//! Language models with LoRA adapters: what every architecture offers, whole or cut after any block.
//! Must not know frameworks, clients or data sets: tokens in, logits out.
//!
//! | file | one thing |
//! |---|---|
//! | `bert.rs`, `llama.rs` | one architecture each, read aloud |
//! | `shape.rs` | the numbers that say how large a model is, and its linear layers by name |
//! | `head.rs` | what a model ends in: a classifier, or the vocabulary |
//! | `linear.rs`, `attention.rs`, `rope.rs` | what the architectures share |
//! | `lora.rs` | the adapter: its parameters, their order, names and initial values |
//! | `residual.rs` | what earlier rounds left beside frozen weights |
//! | `base.rs` | frozen weights, one copy for everybody in the process |
//! | `cut.rs` | a model as front and back |
//! | `load.rs` | Hugging Face folders and GGUF files into frozen base weights |

mod attention;
mod base;
mod bert;
mod cut;
#[cfg(test)]
pub(crate) mod golden;
mod head;
mod linear;
mod llama;
mod load;
mod lora;
mod names;
mod residual;
mod rope;
mod shape;
mod tokens;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use load::fuzzing;

pub use base::{Base, LoadOptions, Precision};
pub use cut::{Model, Part};
pub use head::Head;
pub use load::{ChatTemplate, LoadError, LoadedTokenizer, StoredTensor, Weights, load_tokenizer};
pub use lora::{Adapter, LoraSettings, ModelError, Parameter, ParameterKind, resolve_targets};
pub use residual::Residual;
pub use shape::{Architecture, LinearShape, ModelShape};
pub use tokens::Tokens;

#[cfg(test)]
mod tests;
