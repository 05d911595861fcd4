//! What other programs call an architecture and its parts.
//! Must not hold numbers: those are the shape's.

use super::{Architecture, Head};

impl Architecture {
    /// Modules that LoRA adapts where a spec names none: PEFT's defaults, which make queries and values.
    pub fn default_targets(self) -> &'static [&'static str] {
        match self {
            Self::Bert => &["query", "value"],
            Self::Gpt2 => &["c_attn"],
            Self::Llama | Self::Mistral | Self::Qwen2 => &["q_proj", "v_proj"],
        }
    }

    /// The class of transformers that ends in this head.
    pub fn class_name(self, head: Head) -> &'static str {
        match (self, head) {
            (Self::Bert, Head::Classifier(_)) => "BertForSequenceClassification",
            (Self::Bert, Head::Language) => "BertLMHeadModel",
            (Self::Gpt2, Head::Classifier(_)) => "GPT2ForSequenceClassification",
            (Self::Gpt2, Head::Language) => "GPT2LMHeadModel",
            (Self::Llama, Head::Classifier(_)) => "LlamaForSequenceClassification",
            (Self::Llama, Head::Language) => "LlamaForCausalLM",
            (Self::Mistral, Head::Classifier(_)) => "MistralForSequenceClassification",
            (Self::Mistral, Head::Language) => "MistralForCausalLM",
            (Self::Qwen2, Head::Classifier(_)) => "Qwen2ForSequenceClassification",
            (Self::Qwen2, Head::Language) => "Qwen2ForCausalLM",
        }
    }

    /// `model_type` of a `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::Gpt2 => "gpt2",
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
        }
    }

    /// Whether transformers stores the weights of its linear layers `[inputs, outputs]`, which PEFT calls
    /// `fan_in_fan_out`.
    pub fn stores_inputs_first(self) -> bool {
        match self {
            Self::Gpt2 => true,
            Self::Bert | Self::Llama | Self::Mistral | Self::Qwen2 => false,
        }
    }
}
