//! A conversation as the text that a model was taught to read: through its tokenizer's own chat template.
//! Must not trust a template: it comes with a model, so it may fail, loop or write without end.

use minijinja::{Environment, ErrorKind, Value, context, syntax::SyntaxConfig, value::Serde};
use serde::{Deserialize, Serialize};

use crate::models::ChatTemplate;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Whose: `system`, `user`, `assistant` or another that the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Turn {
    /// A message of this role.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned() }
    }

    /// Whether the model is to say it.
    pub fn is_answer(&self) -> bool {
        self.role == "assistant"
    }
}

/// Why a conversation cannot become a text.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template is no template.
    #[error("the tokenizer's chat template cannot be read: {0}")]
    Template(String),
    /// The template refused a conversation.
    #[error("the tokenizer's chat template fails on it: {0}")]
    Render(String),
    /// The text of a conversation does not begin with that of its first messages.
    #[error(
        "the tokenizer's chat template writes the beginning of a conversation in another way once an answer follows, so \
         that it cannot be told which tokens the answer is; give prompt and response as one text"
    )]
    Prefix,
}

/// What stands in for a template where the tokenizer has none: messages apart by an empty line, answers ended.
const PLAIN: &str = "{% for message in messages %}{{ message.content }}{% if message.role == 'assistant' %}{{ eos_token \
                     }}{% else %}{{ '\\n\\n' }}{% endif %}{% endfor %}";

/// Instructions of the template engine for one rendering: far above what a conversation takes.
const FUEL: u64 = 10_000_000;

/// A chat template, ready to be filled.
#[derive(Debug)]
pub struct Chat {
    environment: Environment<'static>,
    bos: Value,
    eos: String,
    is_own: bool,
}

const NAME: &str = "chat";

impl Chat {
    /// The tokenizer's template, or a plain one where it has none.
    ///
    /// # Errors
    /// Where the template does not parse.
    pub fn new(template: Option<&ChatTemplate>, eos: Option<&str>) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        // As transformers sets Jinja up for chat templates.
        let jinja = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(jinja.map_err(|error| ChatError::Template(error.to_string()))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |text: String| {
            Err::<Value, _>(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        let source = template.map_or(PLAIN, |template| template.source.as_str()).to_owned();
        environment.add_template_owned(NAME, source).map_err(|error| ChatError::Template(error.to_string()))?;
        let bos = template.and_then(|template| template.bos_token.as_deref());
        let eos = template.and_then(|template| template.eos_token.as_deref()).or(eos).unwrap_or_default();
        Ok(Self { environment, bos: Value::from(bos), eos: eos.to_owned(), is_own: template.is_some() })
    }

    /// Whether the tokenizer brought it. It writes the special tokens itself then.
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// The token that ends an answer, as text; empty where there is none.
    pub fn eos(&self) -> &str {
        &self.eos
    }

    /// The text of a conversation; with `answer_next` it goes on to where an answer begins.
    ///
    /// # Errors
    /// Where the template refuses the conversation or does not end.
    pub fn render(&self, turns: &[Turn], answer_next: bool) -> Result<String, ChatError> {
        let values = context! {
            messages => Value::from(Serde(turns)),
            add_generation_prompt => answer_next,
            bos_token => self.bos.clone(),
            eos_token => self.eos.as_str(),
        };
        let template = self.environment.get_template(NAME).expect("it was added under this name");
        template.render(values).map_err(|error| ChatError::Render(sentence(&error)))
    }
}

/// The message alone: where in the template it was raised says nothing to who wrote the data.
fn sentence(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template of the kind that instruction-tuned models come with.
    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<s>system\\nBe kind.</s>\\n' }}{% endif %}{{'<s>' + message['role'] + '\\n' + message['content'].strip() + '</s>' \
        + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}";

    fn chat(source: &str) -> Result<Chat, ChatError> {
        let template = ChatTemplate { source: source.into(), bos_token: None, eos_token: Some("</s>".into()) };
        Chat::new(Some(&template), None)
    }

    fn turns() -> Vec<Turn> {
        vec![Turn::new("user", " Hello. "), Turn::new("assistant", "Hi.")]
    }

    #[test]
    fn a_template_with_python_s_methods_gives_the_text_that_jinja2_gives() {
        // Expected from jinja2 3.1.6 with trim_blocks and lstrip_blocks.
        let text = chat(CHATML).unwrap().render(&turns(), false).unwrap();
        assert_eq!(text, "<s>system\nBe kind.</s>\n<s>user\nHello.</s>\n<s>assistant\nHi.</s>\n");
        let prompt = chat(CHATML).unwrap().render(&turns()[..1], true).unwrap();
        assert!(text.starts_with(&prompt) && prompt.ends_with("<s>assistant\n"), "{prompt:?}");
    }

    #[test]
    fn without_a_template_messages_are_apart_by_an_empty_line_and_answers_are_ended() {
        let chat = Chat::new(None, Some("<end>")).unwrap();
        assert_eq!(chat.render(&turns(), false).unwrap(), " Hello. \n\nHi.<end>");
        assert!(!chat.is_own());
    }

    #[test]
    fn what_a_template_raises_is_the_sentence() {
        let error = chat("{{ raise_exception('Roles must alternate') }}").unwrap().render(&turns(), false).unwrap_err();
        assert_eq!(error.to_string(), "the tokenizer's chat template fails on it: Roles must alternate");
    }

    #[test]
    fn a_template_that_is_none_or_never_ends_is_refused() {
        assert!(matches!(chat("{% if %}"), Err(ChatError::Template(_))));
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}";
        assert!(matches!(chat(endless).unwrap().render(&turns(), false), Err(ChatError::Render(_))));
    }
}
