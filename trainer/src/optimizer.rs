//! Optimizers over a list of F32 parameters: AdamW and SGD, as PyTorch computes them.
//! Must not know where gradients come from: the local step, the split halves and the server use the same code.

use tch::Tensor;

use crate::schedule::Schedule;

/// How parameters move, parsed from `spec.training`.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerSettings {
    /// Which rule.
    pub rule: Rule,
    /// Step size, above zero, before the schedule.
    pub learning_rate: f64,
    /// How the step size changes over the run.
    pub schedule: Schedule,
    /// Decoupled for AdamW, added to the gradient for SGD; zero for none.
    pub weight_decay: f64,
    /// Largest L2 norm of all gradients together; zero for no clipping.
    pub gradient_clipping: f64,
}

/// The update rules.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, algorithm 2.
    AdamW {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of their squares.
        beta2: f64,
        /// Keeps the denominator from zero.
        epsilon: f64,
    },
    /// Stochastic gradient descent with heavy-ball momentum (zero for none).
    Sgd {
        /// Share of the last velocity that is kept.
        momentum: f64,
    },
}

/// An optimizer and its state: one entry a parameter.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    steps: i32,
    moments: Vec<Moments>,
}

/// Running means of one parameter's gradient and of its square (AdamW), or its velocity (SGD, `first` alone).
#[derive(Debug)]
struct Moments {
    first: Tensor,
    second: Tensor,
}

impl Optimizer {
    /// An optimizer without history for `parameters`.
    pub fn new(settings: &OptimizerSettings, parameters: &[&Tensor]) -> Self {
        let moments = parameters.iter().map(|p| Moments { first: p.zeros_like(), second: p.zeros_like() }).collect();
        Self { settings: settings.clone(), steps: 0, moments }
    }

    /// The same rule with a copy of the same history.
    #[must_use]
    pub fn copy(&self) -> Self {
        let moments = self.moments.iter().map(|m| Moments { first: m.first.copy(), second: m.second.copy() }).collect();
        Self { settings: self.settings.clone(), steps: self.steps, moments }
    }

    /// Steps taken, and each parameter's running means in turn, for [`Optimizer::resume`].
    pub fn history(&self) -> (i32, Vec<&Tensor>) {
        (self.steps, self.moments.iter().flat_map(|moments| [&moments.first, &moments.second]).collect())
    }

    /// Goes on from a [`Optimizer::history`] of the same parameters; anything else changes nothing.
    pub fn resume(&mut self, steps: i32, history: Vec<Tensor>) {
        if history.len() != 2 * self.moments.len() {
            return;
        }
        self.steps = steps;
        let mut history = history.into_iter();
        for moments in &mut self.moments {
            if let (Some(first), Some(second)) = (history.next(), history.next()) {
                *moments = Moments { first, second };
            }
        }
    }

    /// Moves `parameters` in place along `gradients`; both in the order given to [`Optimizer::new`]. `factor` is what the
    /// schedule multiplies the learning rate with at this step.
    pub fn step(&mut self, parameters: &[&Tensor], gradients: &[Tensor], factor: f64) {
        let _no_graph = tch::no_grad_guard();
        self.steps += 1;
        let rate = self.settings.learning_rate * factor;
        let scale = clip_scale(gradients, self.settings.gradient_clipping);
        for ((parameter, gradient), moments) in parameters.iter().zip(gradients).zip(&mut self.moments) {
            let gradient = scale.map_or_else(|| gradient.shallow_clone(), |scale| gradient * scale);
            match self.settings.rule {
                Rule::AdamW { beta1, beta2, epsilon } => {
                    let rule = AdamW { beta1, beta2, epsilon, rate, steps: self.steps };
                    rule.step(&self.settings, parameter, &gradient, moments);
                }
                Rule::Sgd { momentum } => {
                    let rule = Sgd { momentum, rate };
                    rule.step(&self.settings, parameter, gradient, moments);
                }
            }
        }
    }
}

struct AdamW {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    rate: f64,
    steps: i32,
}

impl AdamW {
    fn step(&self, settings: &OptimizerSettings, parameter: &Tensor, gradient: &Tensor, moments: &mut Moments) {
        let Self { beta1, beta2, epsilon, rate, steps } = *self;
        let mut parameter = parameter.shallow_clone();
        if settings.weight_decay > 0.0 {
            let _ = parameter.g_mul_scalar_(1.0 - rate * settings.weight_decay);
        }
        moments.first = &moments.first * beta1 + gradient * (1.0 - beta1);
        moments.second = &moments.second * beta2 + gradient * gradient * (1.0 - beta2);
        let step_size = rate / (1.0 - beta1.powi(steps));
        let denominator = moments.second.sqrt() / (1.0 - beta2.powi(steps)).sqrt() + epsilon;
        let _ = parameter.g_sub_(&(&moments.first / denominator * step_size));
    }
}

struct Sgd {
    momentum: f64,
    rate: f64,
}

impl Sgd {
    fn step(&self, settings: &OptimizerSettings, parameter: &Tensor, gradient: Tensor, moments: &mut Moments) {
        let mut parameter = parameter.shallow_clone();
        let mut direction = gradient;
        if settings.weight_decay > 0.0 {
            direction += &parameter * settings.weight_decay;
        }
        if self.momentum > 0.0 {
            moments.first = &moments.first * self.momentum + direction;
            direction = moments.first.shallow_clone();
        }
        let _ = parameter.g_sub_(&(direction * self.rate));
    }
}

/// What gradients are multiplied with so that their common L2 norm is at most `limit`; nothing where it already is.
fn clip_scale(gradients: &[Tensor], limit: f64) -> Option<f64> {
    if limit <= 0.0 {
        return None;
    }
    let squares: f64 = gradients.iter().map(|g| g.square().sum(tch::Kind::Double).double_value(&[])).sum();
    // PyTorch's `clip_grad_norm_` adds the same 1e-6.
    Some(limit / (squares.sqrt() + 1e-6)).filter(|scale| *scale < 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rule: Rule) -> OptimizerSettings {
        let schedule = Schedule::Constant { warmup: 0 };
        OptimizerSettings { rule, learning_rate: 0.1, schedule, weight_decay: 0.0, gradient_clipping: 0.0 }
    }

    const ADAM_W: Rule = Rule::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

    /// Values after each of three steps with the gradients `[1, -2]`, `[0.5, 0]`, `[-3, 4]`.
    fn three_steps(settings: &OptimizerSettings) -> Vec<Vec<f32>> {
        let parameter = Tensor::from_slice(&[1.0f32, -1.0]);
        let mut optimizer = Optimizer::new(settings, &[&parameter]);
        let gradients = [[1.0f32, -2.0], [0.5, 0.0], [-3.0, 4.0]];
        let step = |gradient: &[f32; 2]| {
            optimizer.step(&[&parameter], &[Tensor::from_slice(gradient)], 1.0);
            Vec::try_from(&parameter).unwrap()
        };
        gradients.iter().map(step).collect()
    }

    fn assert_near(actual: &[Vec<f32>], expected: &[[f32; 2]]) {
        for (actual, expected) in actual.iter().zip(expected) {
            assert!(
                actual.iter().zip(expected).all(|(a, e)| (a - e).abs() < 2e-6),
                "{actual:?}, expected {expected:?}"
            );
        }
    }

    /// Expected: `torch.optim.AdamW` 2.13 on the same values.
    #[test]
    fn adam_w_moves_parameters_as_pytorch_does() {
        let plain = three_steps(&settings(ADAM_W));
        assert_near(&plain, &[[0.9, -0.9], [0.806_782_1, -0.832_994_2], [0.841_504_4, -0.866_997_7]]);
        let decayed = three_steps(&OptimizerSettings { weight_decay: 0.1, ..settings(ADAM_W) });
        assert_near(&decayed, &[[0.89, -0.89], [0.787_882_1, -0.814_094_2], [0.814_725_6, -0.839_956_8]]);
    }

    /// Expected by hand: v1 = g1, v2 = 0.9 v1 + g2, v3 = 0.9 v2 + g3; p -= 0.1 v.
    #[test]
    fn sgd_with_momentum_is_a_heavy_ball() {
        let plain = three_steps(&settings(Rule::Sgd { momentum: 0.0 }));
        assert_near(&plain, &[[0.9, -0.8], [0.85, -0.8], [1.15, -1.2]]);
        let heavy = three_steps(&settings(Rule::Sgd { momentum: 0.9 }));
        assert_near(&heavy, &[[0.9, -0.8], [0.76, -0.62], [0.934, -0.858]]);
    }

    #[test]
    fn clipping_bounds_the_common_norm_of_all_gradients() {
        let gradients = [Tensor::from_slice(&[3.0f32]), Tensor::from_slice(&[4.0f32])];
        let scale = clip_scale(&gradients, 1.0).unwrap();
        assert!((scale - 0.2).abs() < 1e-6, "{scale}");
        assert_eq!(clip_scale(&gradients, 10.0), None);
        assert_eq!(clip_scale(&gradients, 0.0), None);
    }
}
