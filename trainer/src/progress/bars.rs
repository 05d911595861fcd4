//! Progress as bars on a terminal: one for the stage of set-up, one for the run, with the time that is left.
//! Must not leave a bar behind: what is done becomes a line above the bars.

use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::lines;
use crate::{
    events::{Event, Events},
    report::units,
};

/// A stage that took less than this is not worth a line of its own.
const WORTH_A_LINE: f64 = 1.0;
/// Redraws of the spinner and of the time that is left.
const TICK: std::time::Duration = std::time::Duration::from_millis(200);

/// Draws bars on `screen`.
pub(super) fn listener(screen: MultiProgress, colour: bool) -> Events {
    let board = Mutex::new(Board::on(screen, colour));
    Events::to(move |event| board.lock().unwrap_or_else(PoisonError::into_inner).show(event))
}

/// What is on the screen now.
struct Board {
    screen: MultiProgress,
    colour: bool,
    stage: Option<(String, ProgressBar)>,
    run: Option<RunBar>,
}

/// The bar of a run counts steps over all its rounds.
struct RunBar {
    bar: ProgressBar,
    rounds: u32,
    /// Steps that had been announced before the current round, and those that it announced.
    before: u64,
    steps: u64,
    /// Figures of the last round.
    last: String,
}

impl Board {
    fn on(screen: MultiProgress, colour: bool) -> Self {
        Self { screen, colour, stage: None, run: None }
    }

    fn show(&mut self, event: Event) {
        let line = lines::line(&event, self.run.as_ref().map_or(0, |run| run.rounds));
        match event {
            Event::StageStarted { stage, of } => self.start_stage(stage, of),
            Event::StageAdvanced { at } => self.stage.iter().for_each(|(_, bar)| bar.set_position(at)),
            Event::StageFinished => self.finish_stage(),
            Event::RunStarted { run, rounds, .. } => {
                self.say(line);
                self.start_run(&run, rounds);
            }
            Event::RoundStarted { round, steps } => self.run.iter_mut().for_each(|run| run.start_round(round, steps)),
            Event::StepFinished { .. } => self.run.iter().for_each(|run| run.bar.inc(1)),
            Event::RoundFinished { accuracy, loss, .. } => {
                self.run.iter_mut().for_each(|run| run.finish_round(accuracy, loss));
                self.say(line);
            }
            Event::ClientJoined { client, joined, of } => {
                self.run
                    .iter()
                    .for_each(|run| run.bar.set_message(format!("{joined} of {of} clients, {client} joined")));
            }
            Event::Note { .. }
            | Event::Listening { .. }
            | Event::Disconnected { .. }
            | Event::UploadRefused { .. }
            | Event::ClientFailed { .. }
            | Event::ClientAbsent { .. }
            | Event::Stopped { .. } => self.say(line),
            Event::Connected
            | Event::ClientLeft { .. }
            | Event::WaitingFor { .. }
            | Event::ClientFigures { .. }
            | Event::Checkpointed { .. } => {}
            Event::RunFinished { .. } => {
                self.finish_stage();
                self.run.take().iter().for_each(|run| run.bar.finish_and_clear());
                self.say(line);
            }
        }
    }

    /// A line above the bars; a terminal that is gone does not end the run.
    fn say(&self, line: Option<String>) {
        if let Some(line) = line {
            let _ = self.screen.println(line);
        }
    }

    fn start_stage(&mut self, stage: String, of: u64) {
        self.finish_stage();
        let (bar, style) = match of {
            0 => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
            of => (ProgressBar::new(of), "{msg} {bar:24.cyan/dim} {percent:>3} %, {eta} left"),
        };
        let bar = self.screen.add(bar.with_style(self.style(style)).with_message(stage.clone()));
        // At once: the steady tick draws only after its first pause.
        bar.tick();
        bar.enable_steady_tick(TICK);
        self.stage = Some((stage, bar));
    }

    fn finish_stage(&mut self) {
        let Some((stage, bar)) = self.stage.take() else { return };
        let seconds = bar.elapsed().as_secs_f64();
        bar.finish_and_clear();
        if seconds >= WORTH_A_LINE {
            self.say(Some(format!("{stage}: {}", units::duration(seconds))));
        }
    }

    fn start_run(&mut self, run: &str, rounds: u32) {
        let style = self.style("{prefix} {bar:24.cyan/dim} {percent:>3} %, {eta} left  {msg}");
        let bar = ProgressBar::new(0).with_style(style).with_prefix(run.to_owned()).with_message("waiting for clients");
        let bar = self.screen.add(bar);
        bar.enable_steady_tick(TICK);
        self.run = Some(RunBar { bar, rounds, before: 0, steps: 0, last: String::new() });
    }

    fn style(&self, template: &str) -> ProgressStyle {
        let plain = template.replace(".cyan/dim", "");
        let template = if self.colour { template } else { &plain };
        ProgressStyle::with_template(template).expect("the templates are written above").progress_chars("━━╌")
    }
}

impl RunBar {
    /// Rounds to come are taken to be as long as this one.
    fn start_round(&mut self, round: u32, steps: u64) {
        self.before += self.steps;
        self.steps = steps;
        let to_come = u64::from(self.rounds.saturating_sub(round));
        self.bar.set_length(self.before.saturating_add(steps.saturating_mul(to_come + 1)));
        self.bar.set_position(self.before);
        self.bar.set_message(format!("round {round}/{}{}", self.rounds, self.last));
    }

    fn finish_round(&mut self, accuracy: f64, loss: f64) {
        self.bar.set_position(self.before + self.steps);
        self.last = format!(", accuracy {}, loss {}", units::percent(accuracy), units::decimal(loss));
    }
}

/// A screen in memory, for tests.
#[cfg(test)]
fn screen_on(terminal: indicatif::InMemoryTerm) -> MultiProgress {
    MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::term_like_with_hz(Box::new(terminal), 255))
}

#[cfg(test)]
pub(super) mod tests {
    use indicatif::InMemoryTerm;

    use super::*;

    /// Two rounds of four steps; one client is late in the second.
    pub(in crate::progress) fn a_run() -> Vec<Event> {
        let step = || Event::StepFinished { worker: "silo-a/0".into() };
        let finished = |round, accuracy, loss, payload_bytes, seconds| Event::RoundFinished {
            round,
            accuracy,
            loss,
            payload_bytes,
            seconds,
        };
        vec![
            Event::StageStarted { stage: "Tokenising 6,046 texts".into(), of: 6046 },
            Event::StageAdvanced { at: 3000 },
            Event::StageFinished,
            Event::RunStarted { run: "mail-fedllm".into(), framework: "FedLLM".into(), rounds: 2, clients: 4 },
            Event::ClientJoined { client: "silo-a/0".into(), joined: 1, of: 4 },
            Event::RoundStarted { round: 1, steps: 4 },
            step(),
            step(),
            step(),
            step(),
            finished(1, 0.71, 0.58, 3_249_216, 41.5),
            Event::RoundStarted { round: 2, steps: 4 },
            step(),
            Event::ClientAbsent { round: 2, client: "silo-a/1".into(), reason: "its upload came late".into() },
            finished(2, 0.82, 0.44, 2_436_912, 40.2),
            Event::RunFinished { run: "mail-fedllm".into(), error: None },
        ]
    }

    fn shown(events: &[Event], colour: bool) -> String {
        let terminal = InMemoryTerm::new(20, 120);
        let screen = screen_on(terminal.clone());
        let events_to = listener(screen, colour);
        for event in events {
            events_to.tell(event.clone());
        }
        terminal.contents()
    }

    #[test]
    fn a_running_round_shows_its_share_of_the_run_and_the_last_figures() {
        let mut board = Board::on(screen_on(InMemoryTerm::new(20, 120)), false);
        a_run().into_iter().take(13).for_each(|event| board.show(event));
        let bar = &board.run.as_ref().unwrap().bar;
        // Five of the eight steps of two rounds.
        assert_eq!((bar.position(), bar.length()), (5, Some(8)));
        assert_eq!(bar.message(), "round 2/2, accuracy 71.0 %, loss 0.580");
    }

    #[test]
    fn a_finished_run_leaves_lines_and_no_bar() {
        let screen = shown(&a_run(), false);
        assert!(screen.ends_with("mail-fedllm: done"), "{screen}");
        assert!(screen.contains("round 1/2: accuracy 71.0 %") && screen.contains("without silo-a/1"), "{screen}");
        assert!(!screen.contains('━'), "{screen}");
    }

    #[test]
    fn a_stage_of_known_length_shows_how_far_it_is() {
        let mut board = Board::on(screen_on(InMemoryTerm::new(20, 120)), true);
        a_run().into_iter().take(2).for_each(|event| board.show(event));
        let (stage, bar) = board.stage.as_ref().unwrap();
        assert_eq!((stage.as_str(), bar.position(), bar.length()), ("Tokenising 6,046 texts", 3000, Some(6046)));
    }

    #[test]
    fn a_stage_is_on_the_screen_as_soon_as_it_begins() {
        let screen = shown(&a_run()[..1], false);
        assert!(screen.starts_with("Tokenising 6,046 texts ") && screen.contains("  0 %"), "{screen}");
    }

    #[test]
    fn events_out_of_order_do_not_panic() {
        let mut events = a_run();
        events.reverse();
        shown(&events, false);
    }
}
