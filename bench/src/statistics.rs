//! Median and spread of repeated figures.
//! Must not drop a figure: an outlier belongs to the spread.

use serde::Serialize;

/// Of one figure, over its repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// How many.
    pub count: usize,
}

impl Spread {
    /// Of these figures; nothing of none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let (lower, upper) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: f64::midpoint(lower, upper), least, most, count: sorted.len() })
    }
}

/// Ratios of figures that were taken one after the other: drift of the machine is in both and cancels.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64]) -> Option<Spread> {
    Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_figures_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 2.0, 9.0]).unwrap();
        assert_eq!(spread, Spread { median: 3.0, least: 1.0, most: 9.0, count: 4 });
        assert_eq!(Spread::of([5.0, 1.0, 3.0]), Some(Spread { median: 3.0, least: 1.0, most: 5.0, count: 3 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_machine_that_slows_down_does_not_change_a_ratio() {
        let ratio = ratios(&[1.0, 2.0, 4.0], &[2.0, 4.0, 8.0]).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (0.5, 0.5, 0.5));
    }
}
