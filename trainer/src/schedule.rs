//! How the learning rate changes over the steps of a run.
//! Must not know who steps, or how many rounds there are: it is told the step and how many steps the run has.

use std::f64::consts::PI;

/// How the learning rate changes; `warmup` are steps over which it rises in a line from 0.
///
/// The same values as transformers' `get_constant_schedule_with_warmup`, `get_linear_schedule_with_warmup` and
/// `get_cosine_schedule_with_warmup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the type says what `warmup` is")]
pub enum Schedule {
    /// It stays as it is.
    Constant { warmup: u64 },
    /// Down in a line; the step after the last would be 0.
    Linear { warmup: u64 },
    /// Down along half a cosine; the step after the last would be 0.
    Cosine { warmup: u64 },
}

impl Schedule {
    /// What the learning rate is multiplied with at `step`, from 0, of a run of `steps`: from 0 to 1.
    pub fn factor(self, step: u64, steps: u64) -> f64 {
        let (Self::Constant { warmup } | Self::Linear { warmup } | Self::Cosine { warmup }) = self;
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let (gone, all) = ((step - warmup) as f64, steps.saturating_sub(warmup).max(1) as f64);
        match self {
            Self::Constant { .. } => 1.0,
            Self::Linear { .. } => (1.0 - gone / all).max(0.0),
            Self::Cosine { .. } => f64::midpoint(1.0, (PI * gone / all).cos()).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_factors(schedule: Schedule, expected: &[f64]) {
        for (step, expected) in expected.iter().enumerate() {
            let factor = schedule.factor(step as u64, 10);
            assert!((factor - expected).abs() < 1e-12, "{schedule:?} at step {step}: {factor}, expected {expected}");
        }
    }

    /// Expected: `get_linear_schedule_with_warmup(optimizer, warmup, 10)` of transformers, the rate before each step.
    #[test]
    fn a_linear_schedule_is_that_of_transformers() {
        assert_factors(Schedule::Linear { warmup: 0 }, &[1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]);
        let sevenths = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0].map(|sevenths| sevenths / 7.0);
        let rises = [0.0, 0.333_333_333_333_333_3, 0.666_666_666_666_666_6, 1.0];
        assert_factors(Schedule::Linear { warmup: 3 }, &[&rises[..], &sevenths].concat());
    }

    /// Expected: `get_cosine_schedule_with_warmup(optimizer, warmup, 10)` of transformers, the rate before each step.
    #[test]
    fn a_cosine_schedule_is_that_of_transformers() {
        let falls = [
            1.0,
            0.975_528_258_147_576_8,
            0.904_508_497_187_473_7,
            0.793_892_626_146_236_6,
            0.654_508_497_187_473_7,
            0.5,
            0.345_491_502_812_526_33,
            0.206_107_373_853_763_5,
            0.095_491_502_812_526_33,
            0.024_471_741_852_423_234,
            0.0,
        ];
        assert_factors(Schedule::Cosine { warmup: 0 }, &falls);
        let warmed = [
            0.0,
            0.333_333_333_333_333_3,
            0.666_666_666_666_666_6,
            1.0,
            0.950_484_433_951_209_5,
            0.811_744_900_929_366_8,
            0.611_260_466_978_157_2,
            0.388_739_533_021_842_83,
            0.188_255_099_070_633_26,
            0.049_515_566_048_790_48,
            0.0,
        ];
        assert_factors(Schedule::Cosine { warmup: 3 }, &warmed);
    }

    /// Expected: `get_constant_schedule_with_warmup(optimizer, warmup)` of transformers.
    #[test]
    fn a_constant_schedule_only_warms_up() {
        assert_factors(Schedule::Constant { warmup: 0 }, &[1.0; 11]);
        assert_factors(Schedule::Constant { warmup: 4 }, &[0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]);
    }

    /// Expected: transformers' schedules with a warm-up of 20 and of 10 steps in a run of 10.
    #[test]
    fn a_warm_up_that_outlasts_the_run_is_cut_off_with_it() {
        assert_factors(Schedule::Linear { warmup: 20 }, &[0.0, 0.05, 0.1, 0.15, 0.2]);
        assert_factors(Schedule::Cosine { warmup: 10 }, &[0.0, 0.1, 0.2, 0.3, 0.4]);
        assert!((Schedule::Cosine { warmup: 10 }.factor(10, 10) - 1.0).abs() < 1e-12);
    }
}
