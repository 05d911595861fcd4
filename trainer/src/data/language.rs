//! Rows into what a language model reads and is to say: prompts and responses, conversations, plain texts.
//! Must not cut what a template writes: what is too long loses the end of its prompt's own text, then of its response.
//!
//! A row becomes pieces of text, each tokenised by itself, so that a prompt has the same tokens whatever answer follows.

use std::{cell::OnceCell, collections::HashMap};

use super::{
    Answer, DataError, LongResponse, Record,
    chat::{Chat, ChatError, Turn},
    read::{Row, Said},
    tokenise::{TokeniseError, encode},
};
use crate::models::LoadedTokenizer;

/// What a language model's data needs beside the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanguagePlan {
    /// Stands before every prompt, as the template's system message.
    pub system_prompt: Option<String>,
    /// What happens to a response that does not fit.
    pub long_response: LongResponse,
}

/// The chat template of a tokenizer.
pub(super) fn chat_of(tokenizer: &LoadedTokenizer) -> Result<Chat, LanguageError> {
    let eos = tokenizer.eos_id.and_then(|id| tokenizer.tokenizer.id_to_token(id));
    Chat::new(tokenizer.chat.as_ref(), eos.as_deref()).map_err(LanguageError::Template)
}

/// Tokens that stand before every text: those that the tokenizer adds to an empty one, unless a template writes them.
pub(super) fn start_of(chat: &Chat, tokenizer: &LoadedTokenizer) -> Result<Vec<u32>, TokeniseError> {
    if chat.is_own() {
        return Ok(Vec::new());
    }
    encode("", &tokenizer.tokenizer, true).map_err(TokeniseError::Refused)
}

/// The tokens after which a model answers `prompt`, cut to leave room for `answer` more of at most `max_length`.
///
/// # Errors
/// Where the tokenizer or its chat template refuses the prompt.
pub fn prompt_tokens(
    tokenizer: &LoadedTokenizer,
    plan: &LanguagePlan,
    prompt: &str,
    max_length: usize,
    answer: usize,
) -> Result<Vec<u32>, DataError> {
    let composer = Composer { chat: chat_of(tokenizer)?, plan, labels: &[], label_answers: OnceCell::new() };
    let pieces = composer.prompt(prompt).map_err(LanguageError::Template)?;
    let encode = |piece: &Piece| encode(&piece.text, &tokenizer.tokenizer, false).map_err(TokeniseError::Refused);
    let encoded = pieces.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    let tokens = pieces.iter().map(|piece| piece.text.as_str()).zip(encoded).collect();
    let start = start_of(&composer.chat, tokenizer)?;
    let assembler = Assembler::new(plan, &start, max_length, &tokens);
    let fixed = start.len() + assembler.count(&pieces, Kind::Fixed);
    Ok(assembler.join(&pieces, max_length.saturating_sub(fixed + answer)).0)
}

/// Why a row cannot become a conversation.
#[derive(Debug, thiserror::Error)]
pub enum LanguageError {
    /// The template.
    #[error("{place}: {error}")]
    Chat {
        /// The row.
        place: String,
        /// Why.
        error: ChatError,
    },
    /// The template cannot be used at all.
    #[error(transparent)]
    Template(ChatError),
    /// The template alone fills the window.
    #[error(
        "maxSequenceLength is {length}, but the chat template alone takes {fixed} tokens of {place}; give more, or a \
         shorter systemPrompt"
    )]
    NoRoom {
        /// The row.
        place: String,
        /// What the spec asks for.
        length: usize,
        /// Tokens of the template.
        fixed: usize,
    },
    /// `longResponse: Refuse`.
    #[error(
        "{place}: its response takes {tokens} tokens and {room} fit; raise training.maxSequenceLength (it is {length}), or \
         set data.longResponse to Truncate"
    )]
    LongResponse {
        /// The row.
        place: String,
        /// Tokens of the response.
        tokens: usize,
        /// Tokens that fit.
        room: usize,
        /// What the spec asks for.
        length: usize,
    },
}

/// A piece of a row's text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What the template writes.
    Fixed,
    /// The prompt's own text, whose end is cut where the row is too long.
    Prompt,
    /// What the model is to say.
    Said,
}

/// A row as pieces, with the answers to choose from in the place of what is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    row: Vec<Piece>,
    choices: Vec<String>,
    right: usize,
}

impl Pieces {
    /// The texts that must be tokenised.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.row.iter().map(|piece| piece.text.as_str()).chain(self.choices.iter().map(String::as_str))
    }
}

/// Shows where in a template a prompt stands; no prompt holds it.
const STAND_IN: &str = "\u{f8ff}prompt\u{f8ff}";

/// Writes conversations as text, and finds in it what is to be said.
#[derive(Debug)]
pub(super) struct Composer<'a> {
    pub(super) chat: Chat,
    pub(super) plan: &'a LanguagePlan,
    /// The labels of the run: what a response may be chosen from where a row does not say.
    pub(super) labels: &'a [String],
    /// What the template writes for each of `labels`, once it has been asked for.
    pub(super) label_answers: OnceCell<Vec<String>>,
}

impl Composer<'_> {
    /// The pieces of a row.
    pub(super) fn compose(&self, row: &Row) -> Result<Pieces, LanguageError> {
        let chat = |error| LanguageError::Chat { place: row.place.to_string(), error };
        match &row.said {
            Said::Label | Said::All => {
                // A text that ends, so that the model learns when to end.
                let pieces =
                    [row.text.as_str(), self.chat.eos()].map(|text| Piece { text: text.to_owned(), kind: Kind::Said });
                Ok(Pieces { row: pieces.into(), ..Pieces::default() })
            }
            Said::Turns(turns) => self.conversation(turns).map_err(chat),
            Said::Response(choices) => self.prompt_and_response(&row.text, row.label.as_deref(), choices).map_err(chat),
        }
    }

    /// A prompt as the pieces before its answer.
    fn prompt(&self, prompt: &str) -> Result<Vec<Piece>, ChatError> {
        let text = self.chat.render(&self.asked(prompt), true)?;
        let frame = self.chat.render(&self.asked(STAND_IN), true)?;
        let own = frame.split_once(STAND_IN).and_then(|(before, after)| {
            let own = text.strip_prefix(before)?.strip_suffix(after)?;
            Some([(before, Kind::Fixed), (own, Kind::Prompt), (after, Kind::Fixed)])
        });
        // A template that does more with a prompt than write it is taken as one piece.
        let pieces = own.map_or_else(|| vec![(text.as_str(), Kind::Fixed)], Vec::from);
        Ok(pieces.into_iter().map(|(text, kind)| Piece { text: text.to_owned(), kind }).collect())
    }

    fn asked(&self, prompt: &str) -> Vec<Turn> {
        let system = self.plan.system_prompt.iter().map(|system| Turn::new("system", system));
        system.chain([Turn::new("user", prompt)]).collect()
    }

    fn prompt_and_response(
        &self,
        prompt: &str,
        response: Option<&str>,
        choices: &[String],
    ) -> Result<Pieces, ChatError> {
        let mut pieces = self.prompt(prompt)?;
        let Some(response) = response else { return Ok(Pieces { row: pieces, ..Pieces::default() }) };
        pieces.push(Piece { text: self.said_after(&self.asked(prompt), response)?, kind: Kind::Said });
        let own = !choices.is_empty();
        let choices = if own { choices } else { self.labels };
        let Some(right) = choices.iter().position(|choice| choice == response) else {
            return Ok(Pieces { row: pieces, ..Pieces::default() });
        };
        let choices = if own { self.answers(choices)? } else { self.label_answers()?.to_vec() };
        Ok(Pieces { row: pieces, choices, right })
    }

    /// [`Composer::answers`] of the labels of the run.
    fn label_answers(&self) -> Result<&[String], ChatError> {
        if let Some(answers) = self.label_answers.get() {
            return Ok(answers);
        }
        let answers = self.answers(self.labels)?;
        Ok(self.label_answers.get_or_init(|| answers))
    }

    /// What the template writes for each of these answers. It is the same after every prompt.
    fn answers(&self, choices: &[String]) -> Result<Vec<String>, ChatError> {
        let asked = self.asked(STAND_IN);
        choices.iter().map(|choice| self.said_after(&asked, choice)).collect()
    }

    /// What the template writes for an answer after `asked`.
    fn said_after(&self, asked: &[Turn], response: &str) -> Result<String, ChatError> {
        let before = self.chat.render(asked, true)?;
        let whole = self.chat.render(&[asked, &[Turn::new("assistant", response)]].concat(), false)?;
        let said = whole.strip_prefix(before.as_str()).ok_or(ChatError::Prefix)?;
        Ok(self.to_the_end_of_the_answer(said).to_owned())
    }

    /// Up to the token that ends the answer; what the template writes behind it is not the model's to say.
    fn to_the_end_of_the_answer<'t>(&self, said: &'t str) -> &'t str {
        let eos = self.chat.eos();
        let end = said.rfind(eos).filter(|_| !eos.is_empty()).map(|at| at + eos.len());
        end.map_or(said, |end| &said[..end])
    }

    /// Every answer of the conversation is to be said.
    fn conversation(&self, turns: &[Turn]) -> Result<Pieces, ChatError> {
        let mut pieces = Vec::new();
        let mut written = String::new();
        let answers = turns.iter().enumerate().filter(|(_, turn)| turn.is_answer());
        for (index, _) in answers {
            let before = self.chat.render(&turns[..index], true)?;
            let whole = self.chat.render(&turns[..=index], false)?;
            let fixed = before.strip_prefix(written.as_str()).ok_or(ChatError::Prefix)?;
            let said = self.to_the_end_of_the_answer(whole.strip_prefix(before.as_str()).ok_or(ChatError::Prefix)?);
            pieces.push(Piece { text: fixed.to_owned(), kind: Kind::Fixed });
            pieces.push(Piece { text: said.to_owned(), kind: Kind::Said });
            written = before + said;
        }
        Ok(Pieces { row: pieces, ..Pieces::default() })
    }
}

/// Puts tokenised pieces together.
#[derive(Debug)]
pub(super) struct Assembler<'a> {
    plan: &'a LanguagePlan,
    /// Tokens that stand before every text, where the template does not write them.
    start: &'a [u32],
    max_length: usize,
    /// Tokens of each text.
    tokens: &'a HashMap<&'a str, Vec<u32>>,
    /// Responses that were cut.
    pub(super) cut: usize,
}

impl<'a> Assembler<'a> {
    pub(super) fn new(
        plan: &'a LanguagePlan,
        start: &'a [u32],
        max_length: usize,
        tokens: &'a HashMap<&'a str, Vec<u32>>,
    ) -> Self {
        Self { plan, start, max_length, tokens, cut: 0 }
    }

    /// The record of a row. Only where it is held out are answers chosen from; elsewhere all that is kept of them is how
    /// long they are.
    pub(super) fn record(&mut self, row: &Row, pieces: &Pieces, held_out: bool) -> Result<Record, DataError> {
        let choices: Vec<Vec<u32>> = pieces.choices.iter().map(|text| self.tokens_of(text).to_vec()).collect();
        let room = self.room_for_prompt(row, pieces, &choices)?;
        let (tokens, said) = self.join(&pieces.row, room);
        let start = said.iter().position(|said| *said).unwrap_or(said.len());
        let room = self.max_length - start.min(self.max_length);
        let longest = choices.iter().map(|choice| choice.len().min(room)).max().unwrap_or(0);
        let choices = if held_out { choices } else { Vec::new() };
        let choices = choices.into_iter().map(|choice| choice[..choice.len().min(room)].to_vec()).collect();
        let answer = Answer { said, choices, right: pieces.right, longest };
        Ok(Record { tokens, label: row.label.clone(), answer: Some(answer) })
    }

    fn tokens_of(&self, text: &str) -> &[u32] {
        self.tokens.get(text).map(Vec::as_slice).unwrap_or_default()
    }

    fn count(&self, pieces: &[Piece], kind: Kind) -> usize {
        pieces.iter().filter(|piece| piece.kind == kind).map(|piece| self.tokens_of(&piece.text).len()).sum()
    }

    /// How many tokens the prompt's own text may take, so that the longest answer fits behind it: in training too, or how
    /// much of a prompt is left would tell which answer follows, and nothing else would be learnt.
    fn room_for_prompt(&mut self, row: &Row, pieces: &Pieces, choices: &[Vec<u32>]) -> Result<usize, DataError> {
        let length = self.max_length;
        let fixed = self.start.len() + self.count(&pieces.row, Kind::Fixed);
        let said = self.count(&pieces.row, Kind::Said);
        let longest = choices.iter().map(Vec::len).chain([said]).max().unwrap_or(0);
        match &row.said {
            // A text is cut like any text.
            Said::Label | Said::All => Ok(0),
            Said::Response(_) if fixed >= length => {
                Err(LanguageError::NoRoom { place: row.place.to_string(), length, fixed }.into())
            }
            Said::Response(_) | Said::Turns(_) => {
                let room = length.saturating_sub(fixed);
                self.check_answer(row, longest, room)?;
                Ok(room.saturating_sub(longest))
            }
        }
    }

    fn check_answer(&mut self, row: &Row, tokens: usize, room: usize) -> Result<(), LanguageError> {
        if tokens <= room {
            return Ok(());
        }
        match self.plan.long_response {
            LongResponse::Truncate => {
                self.cut += 1;
                Ok(())
            }
            LongResponse::Refuse => {
                let (place, length) = (row.place.to_string(), self.max_length);
                Err(LanguageError::LongResponse { place, tokens, room, length })
            }
        }
    }

    /// Tokens of the pieces one after the other, and which of them are to be said.
    fn join(&self, pieces: &[Piece], room_for_prompt: usize) -> (Vec<u32>, Vec<bool>) {
        let mut tokens = self.start.to_vec();
        let mut said = vec![false; tokens.len()];
        for piece in pieces {
            let of_piece = self.tokens_of(&piece.text);
            let kept = if piece.kind == Kind::Prompt { of_piece.len().min(room_for_prompt) } else { of_piece.len() };
            tokens.extend(&of_piece[..kept]);
            said.resize(tokens.len(), piece.kind == Kind::Said);
        }
        tokens.truncate(self.max_length);
        said.truncate(self.max_length);
        (tokens, said)
    }
}

#[cfg(test)]
mod tests;
