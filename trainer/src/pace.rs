//! From the gradients of a round's batches to optimizer steps: how many batches make a step, at which rate it is taken.
//! Must not keep an optimizer: that of a back which clients take turns on outlives the round of each.

use tch::Tensor;

use crate::{averages::Mean, local::Recipe, optimizer::Optimizer, schedule::Schedule};

/// How one worker steps through the batches of one round.
///
/// Its steps of all rounds are counted together: every round has as many, so the schedule knows the last of the run
/// before it comes. Each worker counts its own, as with `localEpochs` clients take unlike numbers of steps.
#[derive(Debug)]
pub struct Pace {
    schedule: Schedule,
    /// Steps of the earlier rounds, and of the whole run.
    before: u64,
    steps_of_run: u64,
    /// Batches of a step, at most: the last of a round has what is left.
    batches_a_step: usize,
    /// Batches of the round, and how many of them were taken.
    batches: usize,
    taken: usize,
    means: Vec<Mean>,
}

impl Pace {
    /// For one who takes `batches` batches in each round, at the start of `round`.
    pub fn new(recipe: &Recipe, round: u32, batches: usize) -> Self {
        let steps = batches.div_ceil(recipe.accumulation) as u64;
        Self {
            schedule: recipe.optimizer.schedule,
            before: u64::from(round.saturating_sub(1)) * steps,
            steps_of_run: u64::from(recipe.rounds) * steps,
            batches_a_step: recipe.accumulation,
            batches,
            taken: 0,
            means: Vec::new(),
        }
    }

    /// Takes the gradients of the round's next batch. Where they complete a step, `parameters` move along the mean of
    /// its batches' gradients; says whether they did.
    pub fn take(&mut self, optimizer: &mut Optimizer, parameters: &[&Tensor], gradients: &[Tensor]) -> bool {
        let step = self.before + (self.taken / self.batches_a_step) as u64;
        self.taken += 1;
        if self.batches_a_step == 1 {
            optimizer.step(parameters, gradients, self.schedule.factor(step, self.steps_of_run));
            return true;
        }
        self.means.resize_with(gradients.len(), Mean::default);
        self.means.iter_mut().zip(gradients).for_each(|(mean, gradient)| mean.add(gradient, 1.0));
        if !self.taken.is_multiple_of(self.batches_a_step) && self.taken < self.batches {
            return false;
        }
        let means: Vec<Tensor> = self.means.drain(..).filter_map(Mean::finish).collect();
        optimizer.step(parameters, &means, self.schedule.factor(step, self.steps_of_run));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        optimizer::{OptimizerSettings, Rule},
        testing::plan,
    };

    fn recipe(sets: &[&str]) -> Recipe {
        let sgd = r#"training.optimizer={"sgd":{"learningRate":"1"}}"#;
        let plan = plan("fedLLM: {}", &[sets, &[sgd]].concat());
        plan.recipe(3, 0, plan.lora.clone())
    }

    /// Where a parameter of 0 stands after each batch of a round, by steps of SGD with a rate of 1.
    fn places(recipe: &Recipe, round: u32, gradients: &[f32]) -> Vec<f32> {
        let parameter = Tensor::from_slice(&[0.0f32]);
        let mut optimizer = Optimizer::new(&recipe.optimizer, &[&parameter]);
        let mut pace = Pace::new(recipe, round, gradients.len());
        let place = |gradient: &f32| {
            pace.take(&mut optimizer, &[&parameter], &[Tensor::from_slice(&[*gradient])]);
            parameter.double_value(&[0]) as f32
        };
        gradients.iter().map(place).collect()
    }

    #[test]
    fn a_step_moves_along_the_mean_of_its_batches_and_the_last_of_a_round_has_what_is_left() {
        let recipe = recipe(&["training.gradientAccumulation=2"]);
        // -(1 + 3) / 2, then -(5 + 7) / 2 more, then -9 more.
        assert_eq!(places(&recipe, 1, &[1.0, 3.0, 5.0, 7.0, 9.0]), [0.0, -2.0, -2.0, -8.0, -17.0]);
    }

    #[test]
    fn the_rate_falls_over_the_rounds_together() {
        let recipe = recipe(&[r#"training.schedule={"linear":{}}"#]);
        // Two rounds of two steps: 1, 3/4, 1/2, 1/4.
        assert_eq!(places(&recipe, 1, &[1.0, 1.0]), [-1.0, -1.75]);
        assert_eq!(places(&recipe, 2, &[1.0, 1.0]), [-0.5, -0.75]);
    }

    #[test]
    fn a_schedule_counts_steps_and_not_batches() {
        let recipe = recipe(&["training.gradientAccumulation=2", r#"training.schedule={"linear":{"warmupSteps":1}}"#]);
        // Two rounds of two steps: 0, 1, 2/3, 1/3.
        assert_eq!(places(&recipe, 1, &[9.0, 9.0, 1.0, 1.0]), [0.0, 0.0, 0.0, -1.0]);
        let second = places(&recipe, 2, &[3.0, 3.0, 3.0, 3.0]);
        assert!(second.iter().zip([0.0, -2.0, -2.0, -3.0]).all(|(place, expected)| (place - expected).abs() < 1e-6));
    }

    /// By hand: the mean of [3, 0] and [5, 8] is [4, 4], of norm 4 sqrt 2; clipped to 1, each is 1 / sqrt 2. Decay adds
    /// 0.5 of the parameter to it, and half the rate is taken.
    #[test]
    fn clipping_and_weight_decay_see_the_mean_at_the_scheduled_rate() {
        let mut recipe = recipe(&["training.gradientAccumulation=2"]);
        recipe.optimizer = OptimizerSettings {
            rule: Rule::Sgd { momentum: 0.0 },
            weight_decay: 0.5,
            gradient_clipping: 1.0,
            schedule: Schedule::Linear { warmup: 0 },
            ..recipe.optimizer
        };
        let parameter = Tensor::from_slice(&[1.0f32, 2.0]);
        let mut optimizer = Optimizer::new(&recipe.optimizer, &[&parameter]);
        let mut pace = Pace::new(&recipe, 2, 2);
        for gradients in [[3.0f32, 0.0], [5.0, 8.0]] {
            pace.take(&mut optimizer, &[&parameter], &[Tensor::from_slice(&gradients)]);
        }
        let moved: Vec<f32> = Vec::try_from(&parameter).unwrap();
        let clipped = 0.5f32.sqrt();
        let expected = [1.0 - 0.5 * (clipped + 0.5), 2.0 - 0.5 * (clipped + 1.0)];
        assert!(moved.iter().zip(expected).all(|(moved, expected)| (moved - expected).abs() < 1e-5), "{moved:?}");
    }
}
