//! `fedtune predict`.
//! Must not read texts from where none were promised: arguments first, lines of standard input only without them.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{CONFIGURATION, FAILED, SUCCESS, base::BaseArgs, complain};
use crate::{
    events::Events,
    models::{Choice, Precision},
    plan::DeviceChoice,
    predict::{Answer, Classifier, PredictError, PredictOptions, Predictor, Speaker},
    random::Key,
    report::units,
    run::materials::{DeviceError, choose_device},
};

/// Arguments of `fedtune predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// Folder of the adapter, as `out/<run>/adapter`, or one that PEFT wrote.
    #[arg(long, value_name = "DIR")]
    adapter: PathBuf,
    #[command(flatten)]
    base: BaseArgs,
    /// Type of the base's weights in memory.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = Element::F32)]
    precision: Element,
    /// Where the model runs.
    #[arg(long, value_enum, default_value_t = Place::Auto)]
    device: Place,
    /// A line of JSON for each text instead of words.
    #[arg(long)]
    json: bool,
    /// Tokens of a generated answer, at most.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Draws each token of a generated answer from softmax(logits / TEMPERATURE); 0 takes the likeliest.
    #[arg(long, value_name = "TEMPERATURE", default_value_t = 0.0)]
    temperature: f64,
    /// Draws among the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Decides what is drawn.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Texts; without any, each line of standard input is one.
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
}

/// Types of weights in memory.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Element {
    /// 32-bit floats.
    F32,
    /// 16-bit brain floats.
    Bf16,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Place {
    /// CUDA if there is any, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA GPU.
    Cuda,
}

/// Answers each text in turn, as soon as it is there.
pub(super) fn predict(arguments: &PredictArgs, events: &Events) -> u8 {
    let base = match arguments.base.bring(&arguments.adapter, events) {
        Ok(base) => base,
        Err(error) => return complain(&error, error.code()),
    };
    let predictor = match load(arguments, base.as_deref()) {
        Ok(predictor) => predictor,
        Err(sentence) => return complain(sentence, CONFIGURATION),
    };
    let texts = arguments.texts.iter().cloned().map(Ok);
    let ended = if arguments.texts.is_empty() {
        if io::stdin().is_terminal() {
            eprintln!("One text a line; Ctrl-D ends.");
        }
        answer_all(&predictor, io::stdin().lock().lines(), arguments)
    } else {
        answer_all(&predictor, texts, arguments)
    };
    ended.unwrap_or_else(|error| match error.kind() {
        // Whoever closed the pipe has read enough.
        io::ErrorKind::BrokenPipe => SUCCESS,
        _ => complain(error, FAILED),
    })
}

fn load(arguments: &PredictArgs, base: Option<&Path>) -> Result<Predictor, String> {
    let precision = match arguments.precision {
        Element::F32 => Precision::F32,
        Element::Bf16 => Precision::BF16,
    };
    let place = match arguments.device {
        Place::Auto => DeviceChoice::Auto,
        Place::Cpu => DeviceChoice::Cpu,
        Place::Cuda => DeviceChoice::Cuda,
    };
    let device = choose_device(place).map_err(|error: DeviceError| error.to_string())?;
    let options = PredictOptions { base, precision, device };
    Predictor::load(&arguments.adapter, options).map_err(|error: PredictError| error.to_string())
}

/// Answers what can be answered; the exit code says whether that was everything.
fn answer_all(
    predictor: &Predictor,
    texts: impl Iterator<Item = io::Result<String>>,
    arguments: &PredictArgs,
) -> io::Result<u8> {
    let (mut out, mut code) = (io::stdout().lock(), SUCCESS);
    for text in texts {
        let answered = match predictor {
            Predictor::Labels(classifier) => label(classifier, &text?, arguments.json, &mut out)?,
            Predictor::Text(speaker) => speak(speaker, &text?, arguments, &mut out)?,
        };
        if let Err(error) = answered {
            code = complain(error, FAILED);
        }
        out.flush()?;
    }
    Ok(code)
}

fn label(
    classifier: &Classifier,
    text: &str,
    json: bool,
    out: &mut impl Write,
) -> io::Result<Result<(), PredictError>> {
    match classifier.answer(text) {
        Ok(answer) => writeln!(out, "{}", if json { in_json(&answer) } else { in_words(&answer) }).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

/// Each piece is written as soon as it is there; JSON comes when the answer is whole.
fn speak(
    speaker: &Speaker,
    text: &str,
    arguments: &PredictArgs,
    out: &mut impl Write,
) -> io::Result<Result<(), PredictError>> {
    let mut written = Ok(());
    let answer = speaker.answer(text, arguments.max_tokens, arguments.choice(), |piece| {
        if !arguments.json {
            written = write!(out, "{piece}").and_then(|()| out.flush());
        }
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    written?;
    match answer {
        Ok(answer) if arguments.json => writeln!(out, "{}", json!({ "answer": answer })).map(Ok),
        Ok(_) => writeln!(out).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

impl PredictArgs {
    fn choice(&self) -> Choice {
        if self.temperature <= 0.0 {
            return Choice::Greedy;
        }
        let key = Key { seed: self.seed, ..Key::default() };
        Choice::Sample { temperature: self.temperature, top_p: self.top_p, key }
    }
}

fn in_json(Answer { label, probabilities }: &Answer) -> String {
    let shares: serde_json::Map<_, _> =
        probabilities.iter().map(|(label, share)| (label.clone(), json!(share))).collect();
    json!({ "label": label, "probabilities": shares }).to_string()
}

fn in_words(answer: &Answer) -> String {
    let shares = answer.probabilities.iter().map(|(label, share)| format!("{label} {}", units::percent(*share)));
    format!("{}\t{}", answer.label, shares.collect::<Vec<_>>().join(", "))
}
