use super::*;

fn style() -> Style {
    Style { class: "kd v0".into(), shape: Shape::Circle }
}

fn series(label: &str, points: &[(f64, f64)]) -> Series {
    let points = points.iter().map(|(x, y)| (*x, *y, format!("{y}"))).collect();
    Series { label: label.into(), style: style(), points }
}

fn chart(scale: AxisScale, series: &[Series], names: Placement) -> Drawing {
    let plain = |figure: f64| format!("{figure}");
    curves(&Curves {
        id: "chart",
        title: "Accuracy".into(),
        description: "Lines.".into(),
        x: Axis { caption: "bytes", show: plain, scale },
        y: Axis { caption: "accuracy", show: plain, scale: AxisScale::Linear },
        series,
        reference: None,
        names,
    })
}

fn points(drawing: &Drawing) -> usize {
    let point = |mark: &&Mark| matches!(mark, Mark::Path { class, .. } if class.starts_with("point"));
    drawing.marks.iter().filter(point).count()
}

fn names(drawing: &Drawing) -> Vec<String> {
    let name = |mark: &'_ Mark| match mark {
        Mark::Text { class, text, .. } if class.starts_with("name") => Some(text.clone()),
        Mark::Text { .. } | Mark::Line { .. } | Mark::Path { .. } | Mark::Rect { .. } => None,
    };
    drawing.marks.iter().filter_map(name).collect()
}

#[test]
fn runs_without_bytes_stand_left_of_those_with_bytes() {
    let all = [series("central", &[(0.0, 0.8), (0.0, 0.9)]), series("kd", &[(1e3, 0.7), (1e4, 0.8)])];
    let drawing = chart(AxisScale::Logarithmic, &all, Placement::Point);
    assert_eq!(points(&drawing), 4);
    assert_eq!(names(&drawing), ["central", "kd"]);
}

#[test]
fn a_point_that_is_not_a_number_is_left_out_and_the_rest_is_drawn() {
    let all = [series("kd", &[(1.0, 0.7), (2.0, f64::NAN), (3.0, 0.8)])];
    assert_eq!(points(&chart(AxisScale::Rounds, &all, Placement::Margin)), 2);
}

#[test]
fn a_long_run_is_a_line_with_a_point_at_its_end() {
    let long: Vec<(f64, f64)> = (1..=500).map(|round| (f64::from(round), 0.5)).collect();
    assert_eq!(points(&chart(AxisScale::Rounds, &[series("kd", &long)], Placement::Margin)), 1);
}

#[test]
fn a_run_without_rounds_has_no_name_in_a_chart() {
    let all = [series("broken", &[]), series("kd", &[(1.0, 0.7)])];
    assert_eq!(names(&chart(AxisScale::Rounds, &all, Placement::Margin)), ["kd"]);
}

#[test]
fn twelve_names_in_the_margin_are_all_there() {
    let all: Vec<Series> = (0..12).map(|at| series(&format!("run-{at}"), &[(1.0, 0.5), (2.0, 0.6)])).collect();
    assert_eq!(names(&chart(AxisScale::Rounds, &all, Placement::Margin)).len(), 12);
}

#[test]
fn the_parts_of_a_bar_add_up_and_small_ones_can_be_seen() {
    let part = |value: f64| Segment { value, class: "label".into(), title: String::new() };
    let all =
        [Bar { label: "split up".into(), total: "1 MB".into(), segments: vec![part(1e6), part(1.0)], first: true }];
    let drawing = bars("bars", String::new(), String::new(), &all, |figure| format!("{figure}"));
    let mut rects = drawing.marks.iter().filter_map(|mark| match mark {
        Mark::Rect { x, width, .. } => Some((*x, *width)),
        Mark::Line { .. } | Mark::Text { .. } | Mark::Path { .. } => None,
    });
    let (large, small) = (rects.next().unwrap(), rects.next().unwrap());
    assert!((large.0 + large.1 - small.0).abs() < 0.11, "{large:?} {small:?}");
    assert!((small.1 - 1.5).abs() < 0.11, "{small:?}");
}
