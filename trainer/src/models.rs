//! Language models with LoRA adapters: what every architecture offers, whole or cut after any block.
//! Must not know frameworks, clients or data sets: tokens in, logits out.
//!
//! | file | one thing |
//! |---|---|
//! | `bert.rs`, `llama.rs` | one architecture each, read aloud |
//! | `lora.rs` | the adapter: its parameters, their order, names and initial values |
//! | `cut.rs` | a model as front and back |
//! | `load.rs` | Hugging Face folders and GGUF files into frozen base weights |
