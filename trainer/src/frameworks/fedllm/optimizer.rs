//! The server's step along the mean of the clients' parameters (Reddi et al., arXiv 2003.00295, algorithm 2).
//! Must not see a client: the mean is what it gets.
//!
//! The pseudo-gradient is `Delta = mean - theta`. As in the paper there is no bias correction, the second moment takes
//! the square of the first, and it starts from tau squared. Unlike there the mean is weighted by examples.

use tch::{Kind, Tensor};

/// What the server does with the mean.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerRule {
    /// Takes it as it is.
    Mean,
    /// `m = momentum m + Delta; theta += eta m`.
    FedAvgM {
        /// eta.
        learning_rate: f64,
        /// Share of the last m that is kept.
        momentum: f64,
    },
    /// `v = beta2 v + (1 - beta2) m^2`.
    FedAdam(Adaptive),
    /// `v = v - (1 - beta2) m^2 sign(v - m^2)`.
    FedYogi(Adaptive),
}

/// `m = beta1 m + (1 - beta1) Delta; theta += eta m / (sqrt v + tau)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// eta.
    pub learning_rate: f64,
    /// Decay of m.
    pub beta1: f64,
    /// Decay of v.
    pub beta2: f64,
    /// Keeps the denominator from zero; its square is the first v.
    pub tau: f64,
}

/// A rule and its state, which lives on over the rounds: m and v of each parameter, F32, as a checkpoint keeps them.
pub(super) struct ServerOptimizer {
    rule: ServerRule,
    moments: Vec<[Tensor; 2]>,
}

impl ServerOptimizer {
    /// Without history.
    pub(super) fn new(rule: ServerRule, parameters: &[&Tensor]) -> Self {
        let second = match &rule {
            ServerRule::Mean => return Self { rule, moments: Vec::new() },
            ServerRule::FedAvgM { .. } => 0.0,
            ServerRule::FedAdam(adaptive) | ServerRule::FedYogi(adaptive) => adaptive.tau * adaptive.tau,
        };
        let moments = parameters.iter().map(|p| [p.zeros_like(), p.full_like(second)]).collect();
        Self { rule, moments }
    }

    /// m and v of each parameter in turn, for [`ServerOptimizer::resume`].
    pub(super) fn history(&self) -> impl Iterator<Item = &Tensor> {
        self.moments.iter().flatten()
    }

    /// Goes on from a [`ServerOptimizer::history`] of the same parameters; anything else changes nothing.
    pub(super) fn resume(&mut self, history: Vec<Tensor>) {
        if history.len() != 2 * self.moments.len() {
            return;
        }
        for (moment, kept) in self.moments.iter_mut().flatten().zip(history) {
            *moment = kept;
        }
    }

    /// Moves `parameters` in place, given the clients' mean; both in the order given to [`ServerOptimizer::new`]. In
    /// F64, rounded once.
    pub(super) fn step(&mut self, parameters: &[&Tensor], means: &[Tensor]) {
        let _no_graph = tch::no_grad_guard();
        for (index, (parameter, mean)) in parameters.iter().zip(means).enumerate() {
            let (theta, mean) = (parameter.to_kind(Kind::Double), mean.to_kind(Kind::Double));
            let moments = self.moments.get_mut(index);
            let moved = match (&self.rule, moments) {
                (ServerRule::FedAvgM { learning_rate, momentum }, Some(moments)) => {
                    with_momentum(&theta, &mean, *learning_rate, *momentum, moments)
                }
                (ServerRule::FedAdam(adaptive), Some(moments)) => adaptive.step(&theta, &mean, moments, adam),
                (ServerRule::FedYogi(adaptive), Some(moments)) => adaptive.step(&theta, &mean, moments, yogi),
                (ServerRule::Mean, _) | (_, None) => mean,
            };
            parameter.shallow_clone().copy_(&moved.to_kind(Kind::Float));
        }
    }
}

/// `theta + eta (momentum m + mean - theta)`, put so that eta 1 without momentum gives the mean to the last bit.
fn with_momentum(theta: &Tensor, mean: &Tensor, eta: f64, momentum: f64, moments: &mut [Tensor; 2]) -> Tensor {
    let kept = moments[0].to_kind(Kind::Double) * momentum;
    moments[0] = (&kept + mean - theta).to_kind(Kind::Float);
    let mut moved = mean * eta;
    if (1.0 - eta).abs() > 0.0 {
        moved += theta * (1.0 - eta);
    }
    if momentum > 0.0 {
        moved += kept * eta;
    }
    moved
}

impl Adaptive {
    fn step(
        &self,
        theta: &Tensor,
        mean: &Tensor,
        moments: &mut [Tensor; 2],
        second: fn(&Tensor, &Tensor, f64) -> Tensor,
    ) -> Tensor {
        let [m, v] = &*moments;
        let m = m.to_kind(Kind::Double) * self.beta1 + (mean - theta) * (1.0 - self.beta1);
        let v = second(&v.to_kind(Kind::Double), &m.square(), self.beta2);
        let moved = theta + &m / (v.sqrt() + self.tau) * self.learning_rate;
        *moments = [m.to_kind(Kind::Float), v.to_kind(Kind::Float)];
        moved
    }
}

fn adam(v: &Tensor, square: &Tensor, beta2: f64) -> Tensor {
    v * beta2 + square * (1.0 - beta2)
}

fn yogi(v: &Tensor, square: &Tensor, beta2: f64) -> Tensor {
    v - square * (v - square).sign() * (1.0 - beta2)
}
