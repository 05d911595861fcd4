//! The back of the model on the server, and the turn that is taken on it.
//! Must not keep what a turn made unless it is over: a client that dies in its turn leaves no trace.

use tch::Tensor;

use super::Split;
use crate::{
    flops::BatchSize,
    frameworks::{FrameworkError, StepSizes, adapter},
    local::{Recipe, tensors},
    meter::Worker,
    models::{Model, Part, Ran},
    optimizer::Optimizer,
    rounds::Client,
    wire::Subject,
};

/// A back, its optimizer, and what it was before the turn that runs.
pub(super) struct Back {
    pub(super) model: Model,
    pub(super) worker: Worker,
    pub(super) optimizer: Optimizer,
    part: Part,
    turn: Option<Turn>,
}

/// Whose steps are taken now.
struct Turn {
    client: Client,
    round: u32,
    /// What its steps held so far.
    sizes: StepSizes,
    /// The step that is under way, where a step has two halves.
    half: Option<HalfStep>,
    /// How the back stood before it.
    before: (Vec<Tensor>, Optimizer),
}

/// A step whose blocks have run forward and not yet backward.
pub(super) struct HalfStep {
    /// What the blocks made of what the client sent.
    pub(super) ran: Ran,
    pub(super) size: BatchSize,
}

impl Back {
    /// The back that this client's steps are taken on; in V2 that of any.
    pub(super) fn new(split: &Split, client: Client, model: Model, recipe: &Recipe, worker: Worker) -> Self {
        let part = split.server_part(client);
        let optimizer = Optimizer::new(&recipe.optimizer, &tensors(&model, part));
        Self { model, worker, optimizer, part, turn: None }
    }

    /// Starts a round from `values`, with a new optimizer.
    pub(super) fn reset(&mut self, values: &[Tensor], recipe: &Recipe) {
        adapter::assign(&self.model, self.part, values);
        self.optimizer = Optimizer::new(&recipe.optimizer, &tensors(&self.model, self.part));
        self.turn = None;
    }

    /// Takes this client's steps from here on, and remembers how it stands, so that they can be rolled back.
    pub(super) fn begin_turn(&mut self, client: Client, round: u32) {
        let before = (self.values(), self.optimizer.copy());
        self.turn = Some(Turn { client, round, sizes: StepSizes::default(), half: None, before });
    }

    /// Refuses an end of this client's turn in the middle of a step.
    pub(super) fn check_over(&self, client: Client, who: &str) -> Result<(), FrameworkError> {
        let turn = self.turn.as_ref().filter(|turn| turn.client == client);
        if turn.is_none_or(|turn| turn.half.is_none()) {
            return Ok(());
        }
        let (got, expected) = (Subject::Upload, Subject::StepGradient);
        Err(FrameworkError::Unexpected { who: who.to_owned(), got, expected })
    }

    /// Keeps what this client's turn made; later steps of it are not taken. Gives what its steps held.
    pub(super) fn end_turn(&mut self, client: Client) -> StepSizes {
        self.turn.take_if(|turn| turn.client == client).map_or(StepSizes::default(), |turn| turn.sizes)
    }

    /// Keeps a step that is under way.
    pub(super) fn begin_step(&mut self, half: HalfStep) {
        if let Some(turn) = &mut self.turn {
            turn.half = Some(half);
        }
    }

    /// The step that is under way, to be ended.
    pub(super) fn take_half_step(&mut self) -> Option<HalfStep> {
        self.turn.as_mut()?.half.take()
    }

    /// Counts what a step of the turn held.
    pub(super) fn count_step(&mut self, size: BatchSize) {
        if let Some(turn) = &mut self.turn {
            turn.sizes.rows += size.rows as u64;
            turn.sizes.tokens += size.tokens() as u64;
        }
    }

    /// Rolls this client's unfinished turn back, if there is one.
    pub(super) fn undo_turn(&mut self, client: Client) {
        if let Some(Turn { before: (values, optimizer), .. }) = self.turn.take_if(|turn| turn.client == client) {
            adapter::assign(&self.model, self.part, &values);
            self.optimizer = optimizer;
        }
    }

    /// Whether this client's steps of this round are taken now.
    pub(super) fn is_open_for(&self, client: Client, round: u32) -> bool {
        self.turn.as_ref().is_some_and(|turn| (turn.client, turn.round) == (client, round))
    }

    /// Copies of its parameters.
    pub(super) fn values(&self) -> Vec<Tensor> {
        adapter::snapshot(&self.model, self.part)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, kind::FLOAT_CPU};

    use super::*;
    use crate::{
        events::Events,
        frameworks::{
            split::{Codec, HeadSide, Variant},
            tests::tiny,
        },
        meter::Slots,
        wire::Element,
    };

    /// A back of a tiny model, and what moves every parameter of it.
    fn back() -> Back {
        let (model, recipe) = tiny();
        let (cuts, codec) = (vec![1; 3], Codec::As(Element::F32));
        let split = Split { cuts, variant: Variant::V2, head: HeadSide::Client, codec };
        Back::new(&split, 0, model, &recipe, Worker::new("server", Slots::new(1, 1), Events::silent()))
    }

    fn step(back: &Back) {
        let moved: Vec<Tensor> = back.values().iter().map(|value| value + 1.0).collect();
        adapter::assign(&back.model, back.part, &moved);
    }

    fn first_value(back: &Back) -> f64 {
        back.values()[0].double_value(&[0, 0])
    }

    #[test]
    fn a_client_that_dies_in_its_turn_is_rolled_back() {
        let mut back = back();
        let before = first_value(&back);
        back.begin_turn(1, 1);
        step(&back);
        back.undo_turn(1);
        assert!((first_value(&back) - before).abs() < 1e-12);
        assert!(!back.is_open_for(1, 1));
    }

    #[test]
    fn a_turn_that_is_over_is_not_rolled_back_by_the_next_client() {
        let mut back = back();
        let before = first_value(&back);
        back.begin_turn(0, 1);
        step(&back);
        back.end_turn(0);
        back.undo_turn(1);
        assert!((first_value(&back) - before - 1.0).abs() < 1e-6);
    }

    #[test]
    fn steps_are_taken_from_the_client_whose_turn_it_is_and_in_its_round_alone() {
        let mut back = back();
        assert!(!back.is_open_for(0, 1));
        back.begin_turn(0, 1);
        assert!(back.is_open_for(0, 1) && !back.is_open_for(1, 1) && !back.is_open_for(0, 2));
        back.end_turn(0);
        assert!(!back.is_open_for(0, 1));
    }

    #[test]
    fn a_turn_does_not_end_in_the_middle_of_a_step() {
        let mut back = back();
        back.begin_turn(0, 1);
        assert!(back.check_over(0, "silo/0").is_ok());
        let size = BatchSize::of_rows(2, 3);
        let hidden = Tensor::zeros([2, 3, back.model.shape().hidden as i64], FLOAT_CPU);
        let mask = Tensor::ones([2, 3], (Kind::Bool, Device::Cpu));
        let ran = back.model.run_middle(1, &hidden, &mask, None, true);
        back.begin_step(HalfStep { ran, size });
        assert!(back.check_over(1, "silo/1").is_ok());
        let refused = back.check_over(0, "silo/0").unwrap_err().to_string();
        assert_eq!(refused, "silo/0 sent a upload where a step gradient belongs");
        assert!(back.take_half_step().is_some());
        back.count_step(size);
        assert!(back.check_over(0, "silo/0").is_ok());
        assert_eq!(back.end_turn(0), StepSizes { rows: 2, tokens: 6 });
    }
}
