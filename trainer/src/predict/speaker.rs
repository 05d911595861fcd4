//! A language model's answer to a prompt, as the text that it says, piece by piece.
//! Must not show half a letter: tokens end inside of letters, and such a piece waits for its rest.

use std::ops::ControlFlow;

use super::PredictError;
use crate::{
    data::{LanguagePlan, LongResponse, prompt_tokens},
    models::{Choice, Generation, LoadedTokenizer, Model},
};

/// A model that answers with text.
pub struct Speaker {
    model: Model,
    tokenizer: LoadedTokenizer,
    plan: LanguagePlan,
}

impl Speaker {
    /// A model with its tokenizer; `system_prompt` stands before every prompt.
    pub(super) fn new(model: Model, tokenizer: LoadedTokenizer, system_prompt: Option<String>) -> Self {
        Self { model, tokenizer, plan: LanguagePlan { system_prompt, long_response: LongResponse::Truncate } }
    }

    /// Answers `prompt` in at most `most_tokens` tokens. Each piece of text is `said` as soon as it is whole, and `said` may
    /// break off; all that was said is given back. A prompt that leaves no room for the answer loses its end.
    ///
    /// # Errors
    /// Where the prompt cannot become tokens or its tokens no answer.
    pub fn answer(
        &self,
        prompt: &str,
        most_tokens: usize,
        choice: Choice,
        mut said: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<String, PredictError> {
        let positions = self.model.shape().max_positions;
        let tokens = prompt_tokens(&self.tokenizer, &self.plan, prompt, positions, most_tokens.min(positions / 2))?;
        let ends: Vec<u32> = self.tokenizer.eos_id.into_iter().collect();
        let asked = Generation { choice, ends: ends.clone(), most_tokens, pad_id: self.tokenizer.pad_id };
        let mut pieces = self.tokenizer.tokenizer.decode_stream(true);
        let (mut whole, mut wrong) = (String::new(), None);
        self.model.generate(&[&tokens], &asked, |_, token| {
            if ends.contains(&token) {
                return ControlFlow::Continue(());
            }
            match pieces.step(token) {
                Ok(None) => ControlFlow::Continue(()),
                Ok(Some(piece)) => {
                    whole.push_str(&piece);
                    said(&piece)
                }
                Err(error) => {
                    wrong = Some(error.to_string());
                    ControlFlow::Break(())
                }
            }
        })?;
        wrong.map_or(Ok(whole), |error| Err(PredictError::Decode(error)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::Device;

    use crate::{
        export::{Export, write_adapter},
        models::{
            Choice, Head, Model, Precision,
            golden::{load, query_value, real_model},
        },
        predict::{PredictOptions, Predictor},
    };

    /// SmolLM2 with an adapter that changes nothing.
    fn predictor(above: &Path) -> Predictor {
        let path = real_model("smollm2");
        let (folder, base) = (above.join("adapter"), load(&path));
        let lora = query_value(&base);
        let model = Model::new(base, &lora, Head::Language, 5).unwrap();
        let base = path.display().to_string();
        let system_prompt = Some("Answer in one word.");
        let export = Export { lora: &lora, base, revision: None, labels: &[], pad_id: 2, system_prompt };
        write_adapter(&folder, &model, &export).unwrap();
        let options = PredictOptions { base: None, precision: Precision::F32, device: Device::Cpu };
        Predictor::load(&folder, options).unwrap()
    }

    #[test]
    fn a_prompt_is_answered_piece_by_piece_through_the_system_prompt_that_the_adapter_was_trained_with() {
        let above = tempfile::tempdir().unwrap();
        let Predictor::Text(speaker) = predictor(above.path()) else { panic!("this adapter answers with text") };
        assert_eq!(speaker.plan.system_prompt.as_deref(), Some("Answer in one word."));
        let mut pieces = Vec::new();
        let said = |piece: &str| {
            pieces.push(piece.to_owned());
            std::ops::ControlFlow::Continue(())
        };
        let answer = speaker.answer("What is the capital of France?", 24, Choice::Greedy, said).unwrap();
        assert_eq!(pieces.concat(), answer);
        assert!(answer.contains("Paris") && !answer.contains("<|im_end|>"), "{answer}");
        let broken_off =
            speaker.answer("What is the capital of France?", 24, Choice::Greedy, |_| std::ops::ControlFlow::Break(()));
        assert_eq!(broken_off.unwrap(), pieces[0]);
    }
}
