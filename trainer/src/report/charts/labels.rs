//! Places the names of runs in a chart so that none covers another.
//! Must not drop a name in the margin; inside the plot a name without room is left to the legend.

/// Width of a letter and height of a line of label text, in pixels, measured generously.
const LETTER: f64 = 6.4;
pub(crate) const LINE: f64 = 13.0;

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

impl Area {
    pub(crate) fn around((x, y): (f64, f64), reach: f64) -> Self {
        Self { left: x - reach, top: y - reach, right: x + reach, bottom: y + reach }
    }

    fn meets(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn holds(&self, other: &Self) -> bool {
        self.left <= other.left && other.right <= self.right && self.top <= other.top && other.bottom <= self.bottom
    }
}

/// Moves heights apart until each is a line from the next, within `top..bottom` as far as they fit. Order is kept.
pub(crate) fn spread(heights: &[f64], (top, bottom): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|a, b| heights[*a].total_cmp(&heights[*b]));
    let mut placed: Vec<f64> = order.iter().map(|at| heights[*at]).collect();
    let mut floor = top;
    for height in &mut placed {
        *height = height.max(floor);
        floor = *height + LINE;
    }
    let mut ceiling = bottom;
    for height in placed.iter_mut().rev() {
        *height = height.min(ceiling);
        ceiling = *height - LINE;
    }
    let mut spread = vec![0.0; heights.len()];
    order.into_iter().zip(placed).for_each(|(at, height)| spread[at] = height);
    spread
}

/// Where to write each text beside its point: right of it, left, above or below, the first that is free.
/// Returns the left end of the text's base line.
pub(crate) fn beside(points: &[((f64, f64), &str)], plot: Area, busy: &[(f64, f64)]) -> Vec<Option<(f64, f64)>> {
    let mut taken: Vec<Area> = busy.iter().map(|point| Area::around(*point, 4.0)).collect();
    points
        .iter()
        .map(|((x, y), text)| {
            let width = text.chars().count() as f64 * LETTER;
            let candidates = [
                (x + 9.0, y + 4.0),
                (x - 9.0 - width, y + 4.0),
                (x - width / 2.0, y - 9.0),
                (x - width / 2.0, y + 18.0),
                (x + 6.0, y - 8.0),
                (x + 6.0, y + 16.0),
                (x - 6.0 - width, y - 8.0),
                (x - 6.0 - width, y + 16.0),
            ];
            let area =
                |(left, base): (f64, f64)| Area { left, top: base - 10.0, right: left + width, bottom: base + 3.0 };
            let free =
                |at: &&(f64, f64)| plot.holds(&area(**at)) && !taken.iter().any(|other| other.meets(&area(**at)));
            let place = candidates.iter().find(free).copied();
            taken.extend(place.map(area));
            place
        })
        .collect()
}

/// The labels of an axis that have room beside each other, from the first on; the rest keep their grid line only.
pub(crate) fn apart(ticks: impl Iterator<Item = (f64, String)>) -> Vec<(f64, String)> {
    let mut end = f64::NEG_INFINITY;
    ticks
        .filter(|(place, text)| {
            let half = text.chars().count() as f64 * LETTER / 2.0;
            let free = place - half >= end;
            end = if free { place + half + 2.0 } else { end };
            free
        })
        .collect()
}

/// At most `letters` letters of a name, the middle given up: names of a sweep differ at the end.
pub(crate) fn shorten(name: &str, letters: usize) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= letters {
        return name.into();
    }
    let kept = letters.saturating_sub(1);
    let (head, tail) = (kept.div_ceil(2), kept / 2);
    all[..head].iter().chain(&['…']).chain(&all[all.len() - tail..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_margin_keep_a_line_apart_and_stay_in_order() {
        let placed = spread(&[50.0, 51.0, 49.0, 200.0], (10.0, 205.0));
        assert_eq!(placed, [62.0, 75.0, 49.0, 200.0]);
    }

    #[test]
    fn names_at_the_bottom_move_up() {
        assert_eq!(spread(&[100.0, 100.0], (0.0, 100.0)), [87.0, 100.0]);
    }

    #[test]
    fn names_beside_points_do_not_meet_and_stay_inside() {
        let plot = Area { left: 0.0, top: 0.0, right: 200.0, bottom: 100.0 };
        let points = [((190.0, 50.0), "mail-kd"), ((188.0, 52.0), "mail-split"), ((20.0, 50.0), "central")];
        let at: Vec<(f64, f64)> = points.iter().map(|(point, _)| *point).collect();
        let placed = beside(&points, plot, &at);
        let areas: Vec<Area> = placed
            .iter()
            .zip(points)
            .filter_map(|(place, (_, text))| {
                let (left, base) = (*place)?;
                let right = left + text.chars().count() as f64 * LETTER;
                Some(Area { left, top: base - 10.0, right, bottom: base + 3.0 })
            })
            .collect();
        assert_eq!(areas.len(), 3);
        for (at, area) in areas.iter().enumerate() {
            assert!(plot.holds(area));
            assert!(areas[at + 1..].iter().all(|other| !other.meets(area)));
        }
    }

    #[test]
    fn a_point_with_no_room_around_it_gets_no_name() {
        let plot = Area { left: 0.0, top: 0.0, right: 30.0, bottom: 30.0 };
        assert_eq!(beside(&[((15.0, 15.0), "a long name")], plot, &[]), [None]);
    }

    #[test]
    fn labels_of_an_axis_without_room_are_left_out() {
        let ticks = [(0.0, "0".to_owned()), (30.0, "5 TFLOP".to_owned()), (60.0, "10 TFLOP".to_owned())];
        let kept: Vec<f64> = apart(ticks.into_iter()).into_iter().map(|(place, _)| place).collect();
        assert_eq!(kept, [0.0, 30.0]);
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shorten("mail-fedllm-seed-41", 12), "mail-f…ed-41");
        assert_eq!(shorten("mail", 12), "mail");
    }
}
