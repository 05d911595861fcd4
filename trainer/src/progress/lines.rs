//! Progress as plain lines: a line a stage, a round, an absence.
//! Must not write an escape code, nor a line a step: this ends up in files.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
};

use crate::{
    events::{Event, Events},
    report::units,
};

/// Writes a line to `out` for each event that deserves one.
pub(super) fn listener(out: impl Write + Send + 'static) -> Events {
    let out = Mutex::new((out, 0));
    Events::to(move |event| {
        let (out, rounds) = &mut *out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::RunStarted { rounds: of, .. } = &event {
            *rounds = *of;
        }
        if let Some(line) = line(&event, *rounds) {
            // Whoever closed the pipe does not want to know, and the run goes on.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    })
}

/// What is said of an event in a run of `rounds` rounds, if anything.
pub(super) fn line(event: &Event, rounds: u32) -> Option<String> {
    match event {
        Event::StageStarted { stage, .. } => Some(stage.clone()),
        Event::Note { text } => Some(text.clone()),
        Event::RunStarted { run, framework, rounds, clients } => {
            Some(format!("{run}: {framework}, {rounds} rounds, {clients} clients"))
        }
        Event::RoundFinished { round, accuracy, loss, payload_bytes, seconds } => Some(format!(
            "round {round}/{rounds}: accuracy {}, loss {}, {} payload, {}",
            units::percent(*accuracy),
            units::decimal(*loss),
            units::bytes(*payload_bytes as f64),
            units::duration(*seconds),
        )),
        Event::ClientAbsent { round, client, reason } => Some(format!("round {round}: without {client}: {reason}")),
        Event::Stopped { round, rule, sentence } => Some(format!("stopped by {rule} after round {round}: {sentence}")),
        Event::Listening { address } => Some(format!("listening on {address}")),
        Event::Disconnected { reason } => Some(reason.clone()),
        Event::UploadRefused { client, sentence, .. } => Some(format!("refused {client}: {sentence}")),
        Event::ClientFailed { client, reason } => Some(format!("{client} gave up: {reason}")),
        Event::RunFinished { run, error: None } => Some(format!("{run}: done")),
        Event::RunFinished { run, error: Some(error) } => Some(format!("{run}: failed: {error}")),
        Event::StageAdvanced { .. }
        | Event::StageFinished
        | Event::Connected
        | Event::ClientJoined { .. }
        | Event::ClientLeft { .. }
        | Event::WaitingFor { .. }
        | Event::ClientFigures { .. }
        | Event::Checkpointed { .. }
        | Event::RoundStarted { .. }
        | Event::StepFinished { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::progress::bars::tests::a_run;

    /// A buffer that the test keeps a hold of.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_run_in_a_pipe_is_a_line_a_round_without_escape_codes() {
        let out = Shared::default();
        let events = listener(out.clone());
        for event in a_run() {
            events.tell(event);
        }
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            text,
            "Tokenising 6,046 texts\n\
             mail-fedllm: FedLLM, 2 rounds, 4 clients\n\
             round 1/2: accuracy 71.0 %, loss 0.580, 3.25 MB payload, 41.5 s\n\
             round 2: without silo-a/1: its upload came late\n\
             round 2/2: accuracy 82.0 %, loss 0.440, 2.44 MB payload, 40.2 s\n\
             mail-fedllm: done\n"
        );
    }

    #[test]
    fn a_failed_run_ends_with_its_sentence() {
        let event = Event::RunFinished { run: "mail".into(), error: Some("client 3 sent no logits".into()) };
        assert_eq!(line(&event, 3).unwrap(), "mail: failed: client 3 sent no logits");
    }
}
