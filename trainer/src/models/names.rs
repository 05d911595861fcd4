//! What other programs call an architecture and its parts.
//! Must not hold numbers: those are the shape's.

use super::Architecture;

impl Architecture {
    /// Modules that LoRA adapts where a spec names none: PEFT's defaults, query and value.
    pub fn default_targets(self) -> [&'static str; 2] {
        match self {
            Self::Bert => ["query", "value"],
            Self::Llama => ["q_proj", "v_proj"],
        }
    }

    /// The class of transformers that classifies sequences.
    pub fn classifier_name(self) -> &'static str {
        match self {
            Self::Bert => "BertForSequenceClassification",
            Self::Llama => "LlamaForSequenceClassification",
        }
    }

    /// The class of transformers over the vocabulary.
    pub fn language_name(self) -> &'static str {
        match self {
            Self::Bert => "BertLMHeadModel",
            Self::Llama => "LlamaForCausalLM",
        }
    }

    /// `model_type` of a `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Llama => "llama",
        }
    }
}
