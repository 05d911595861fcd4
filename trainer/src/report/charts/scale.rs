//! Axis scales: from a figure to a place, with round numbers to label.
//! Must not fail on any figure: what has no place (not a number, zero on a logarithmic scale without room for it) gets `None`.

/// Room that a logarithmic axis sets aside for zero, which has no logarithm.
const ZERO_ROOM: f64 = 34.0;
/// Figures past this are left out: spans between them overflow.
const LARGEST: f64 = 1e200;

/// Figures from `low` to `high` on the stretch from `start` to `end`, in pixels; `end` may lie before `start`.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
    logarithmic: bool,
    zero: Option<f64>,
    ticks: Vec<f64>,
}

impl Scale {
    /// Even steps, with round ends a little outside the figures.
    pub(crate) fn linear(figures: impl Iterator<Item = f64>, (start, end): (f64, f64)) -> Self {
        let (low, high) = range(figures.filter(|figure| figure.abs() < LARGEST)).unwrap_or((0.0, 1.0));
        let (low, high) = if high > low { (low, high) } else { around(low) };
        let step = round_step((high - low) / 4.0);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        let ticks = (0..=(last - first) as usize).map(|at| (first + at as f64) * step).collect();
        Self { low: first * step, high: last * step, start, end, logarithmic: false, zero: None, ticks }
    }

    /// Rounds from 1, labelled at whole numbers only.
    pub(crate) fn rounds(rounds: impl Iterator<Item = f64>, (start, end): (f64, f64)) -> Self {
        let last = range(rounds).map_or(1.0, |(_, last)| last.max(1.0));
        let step = round_step((last - 1.0) / 6.0).max(1.0);
        let between = (1..).map(|at| f64::from(at) * step).take_while(|tick| *tick <= last);
        let mut ticks: Vec<f64> = between.filter(|tick| *tick - 1.0 >= step / 2.0).collect();
        ticks.insert(0, 1.0);
        // One round alone stands in the middle.
        let (low, high) = if last > 1.0 { (1.0, last) } else { (0.5, 1.5) };
        Self { low, high, start, end, logarithmic: false, zero: None, ticks }
    }

    /// Even factors. Zeros get a place of their own before the axis begins.
    pub(crate) fn logarithmic(figures: impl Iterator<Item = f64>, (start, end): (f64, f64)) -> Self {
        let figures: Vec<f64> = figures.filter(|figure| *figure >= 0.0 && *figure < LARGEST).collect();
        let zero = figures.contains(&0.0).then_some(start + ZERO_ROOM.copysign(end - start) * 0.3);
        let start = if zero.is_some() { start + ZERO_ROOM.copysign(end - start) } else { start };
        let (low, high) = range(figures.into_iter().filter(|figure| *figure > 0.0)).unwrap_or((1.0, 10.0));
        let (mut low, mut high) = (step_below(low), step_above(high));
        // Without a label at both ends a logarithmic axis cannot be read.
        if high / low < 5.0 {
            (low, high) = (step_below(low * 0.99), step_above(high * 1.01));
        }
        let ticks = factors(low, high);
        Self { low, high, start, end, logarithmic: true, zero, ticks }
    }

    /// Where `figure` is.
    pub(crate) fn place(&self, figure: f64) -> Option<f64> {
        if self.logarithmic && figure == 0.0 {
            return self.zero;
        }
        let share = if self.logarithmic {
            (figure / self.low).log10() / (self.high / self.low).log10()
        } else {
            (figure - self.low) / (self.high - self.low)
        };
        let in_sight = share.is_finite() && (-0.001..=1.001).contains(&share);
        in_sight.then_some(self.start + share * (self.end - self.start))
    }

    /// The round numbers to label, each with its place.
    pub(crate) fn ticks(&self) -> impl Iterator<Item = (f64, f64)> {
        let zero = self.zero.map(|place| (0.0, place));
        zero.into_iter().chain(self.ticks.iter().filter_map(|tick| Some((*tick, self.place(*tick)?))))
    }

    /// Where the axis is broken to make room for zero.
    pub(crate) fn broken_at(&self) -> Option<f64> {
        self.zero.map(|zero| f64::midpoint(zero, self.start))
    }
}

fn range(figures: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let mut range = None;
    for figure in figures.filter(|figure| figure.is_finite()) {
        let (low, high) = range.unwrap_or((figure, figure));
        range = Some((figure.min(low), figure.max(high)));
    }
    range
}

/// A range with one figure in it; what is never negative, such as bytes, gets no negative axis.
fn around(figure: f64) -> (f64, f64) {
    if figure == 0.0 { (0.0, 1.0) } else { (figure - figure.abs() / 2.0, figure + figure.abs() / 2.0) }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    if step > 0.0 { step_above(step) } else { 1.0 }
}

fn step_above(figure: f64) -> f64 {
    let decade = 10_f64.powf(figure.log10().floor());
    // Powers of ten are not exact, so a figure that is such a step itself must be met with some room.
    let steps = [1.0, 2.0, 5.0].map(|step| step * decade);
    steps.into_iter().find(|step| *step >= figure * (1.0 - 1e-9)).unwrap_or(10.0 * decade)
}

fn step_below(figure: f64) -> f64 {
    let decade = 10_f64.powf(figure.log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|step| step * decade);
    steps.into_iter().find(|step| *step <= figure * (1.0 + 1e-9)).unwrap_or(decade)
}

/// Labels from `low` to `high`: 1, 2 and 5 in each decade where there are few, else decades, else every so many decades.
fn factors(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    let within: &[f64] = match decades {
        few if few <= 1.5 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let every = (decades / 6.0).ceil().max(1.0) as i32;
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let all = (first..=last).step_by(every as usize);
    all.flat_map(|decade| within.iter().map(move |step| step * 10_f64.powi(decade)))
        .filter(|tick| *tick >= low * 0.999 && *tick <= high * 1.001)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_scale_ends_on_round_numbers_around_its_figures() {
        let scale = Scale::linear([0.66, 0.885].into_iter(), (0.0, 100.0));
        let ticks: Vec<String> = scale.ticks().map(|(tick, _)| format!("{tick:.1}")).collect();
        assert_eq!(ticks, ["0.6", "0.7", "0.8", "0.9"]);
        assert_eq!((scale.place(0.6).unwrap().round(), scale.place(0.9).unwrap().round()), (0.0, 100.0));
    }

    #[test]
    fn zero_has_its_own_place_on_a_logarithmic_scale() {
        let scale = Scale::logarithmic([0.0, 1e3, 1e6].into_iter(), (0.0, 334.0));
        assert!(scale.place(0.0).unwrap() < scale.broken_at().unwrap());
        assert!(scale.broken_at().unwrap() < scale.place(1e3).unwrap());
        // A thousandfold over three hundred pixels: a hundred a decade.
        assert!((scale.place(1e5).unwrap() - scale.place(1e4).unwrap() - 100.0).abs() < 1e-6);
    }

    #[test]
    fn a_logarithmic_scale_of_zeros_alone_still_has_an_axis() {
        let scale = Scale::logarithmic([0.0, 0.0].into_iter(), (0.0, 100.0));
        assert!(scale.place(0.0).is_some());
        assert!(scale.ticks().count() >= 2);
    }

    #[test]
    fn equal_figures_get_an_axis_with_at_least_two_labels() {
        for figure in [0.0, 0.5, -3.0, 7e12] {
            assert!(Scale::linear([figure].into_iter(), (0.0, 100.0)).ticks().count() >= 2, "{figure}");
        }
        assert!(Scale::logarithmic([2e6].into_iter(), (0.0, 100.0)).ticks().count() >= 2);
    }

    #[test]
    fn few_labels_stand_on_an_axis_over_many_decades() {
        let scale = Scale::logarithmic([1.0, 1e19].into_iter(), (0.0, 400.0));
        assert!((3..=8).contains(&scale.ticks().count()), "{}", scale.ticks().count());
    }

    #[test]
    fn what_is_no_figure_has_no_place() {
        let linear = Scale::linear([0.0, f64::NAN, 1.0, f64::INFINITY, 1e300].into_iter(), (0.0, 1.0));
        let logarithmic = Scale::logarithmic([1.0, 100.0].into_iter(), (0.0, 1.0));
        for figure in [f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!((linear.place(figure), logarithmic.place(figure)), (None, None));
        }
        assert_eq!((logarithmic.place(0.0), logarithmic.place(-1.0)), (None, None));
    }

    #[test]
    fn rounds_are_labelled_at_whole_numbers_from_one() {
        let labels = |last: u32| -> Vec<f64> {
            Scale::rounds((1..=last).map(f64::from), (0.0, 100.0)).ticks().map(|(tick, _)| tick).collect()
        };
        assert_eq!(labels(1), [1.0]);
        assert_eq!(labels(3), [1.0, 2.0, 3.0]);
        assert_eq!(labels(30), [1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
    }
}
