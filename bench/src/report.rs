//! What was measured: one line of JSON a contest, then the table.
//! Must not hide a goal that is not met.

use std::fmt::Write as _;

use serde_json::json;

use crate::{
    contest::Measured,
    process::Taken,
    rows::{Claim, Contest, Figure, Goal, Unit},
    statistics::{Spread, ratios},
};

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    work: String,
    figure: String,
    ours: String,
    theirs: String,
    ratio: String,
    goal: String,
    met: Option<bool>,
}

impl Figure {
    fn of(self, taken: &Taken) -> Option<f64> {
        match self {
            Self::Wall => Some(taken.wall_seconds),
            Self::Cpu => Some(taken.cpu_seconds),
            Self::Memory => Some(taken.peak_bytes as f64),
            Self::Said(key, _) => taken.said[key].as_f64(),
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::Wall | Self::Cpu => Unit::Seconds,
            Self::Memory => Unit::Bytes,
            Self::Said(_, unit) => unit,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "CPU",
            Self::Memory | Self::Said("peakBytes", _) => "peak memory",
            Self::Said("seconds", _) => "step",
            Self::Said("cpuSeconds", _) => "step, CPU",
            Self::Said("sinceStart", _) => "since start",
            Self::Said("examplesPerSecond", _) => "rate",
            Self::Said("loopbackOverPayload", _) => "loopback / payload",
            Self::Said("socketOverPayload", _) => "socket / payload",
            Self::Said("grownBytes" | "grownAdapters", _) => "memory grown",
            Self::Said(_, _) => "throughput",
        }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{value:.3} s"),
            Self::Bytes => format!("{:.0} MiB", value / f64::from(1 << 20)),
            Self::BytesPerSecond => format!("{:.0} MB/s", value / 1e6),
            Self::ExamplesPerSecond => format!("{value:.1} /s"),
            Self::Times => format!("{value:.3}"),
        }
    }
}

/// The lines of one contest.
pub(crate) fn lines(contest: &Contest, measured: &[Measured]) -> Vec<Line> {
    contest.claims.iter().map(|claim| line(contest, claim, measured)).collect()
}

fn line(contest: &Contest, claim: &Claim, measured: &[Measured]) -> Line {
    let figures =
        |side: usize| -> Vec<f64> { measured[side].runs.iter().filter_map(|run| claim.figure.of(run)).collect() };
    let (ours, theirs) = (figures(0), claim.against.map(figures).unwrap_or_default());
    let unit = claim.figure.unit();
    let show = |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |spread| unit.show(spread.median));
    let (our_spread, their_spread) = (Spread::of(ours.iter().copied()), Spread::of(theirs.iter().copied()));
    let ratio = ratios(&ours, &theirs);
    let name = claim.against.map_or_else(String::new, |side| format!(" {}", contest.sides[side].name));
    Line {
        work: contest.work.clone(),
        figure: claim.figure.words().to_owned(),
        ours: show(our_spread),
        theirs: format!("{}{name}", show(their_spread)),
        ratio: ratio.map_or_else(
            || "-".to_owned(),
            |ratio| format!("{:.2} ({:.2}-{:.2})", ratio.median, ratio.least, ratio.most),
        ),
        goal: claim.goal.map_or_else(|| "-".to_owned(), |goal| goal_words(goal, unit)),
        met: claim.goal.and_then(|goal| is_met(goal, our_spread, their_spread, ratio)),
    }
}

fn goal_words(goal: Goal, unit: Unit) -> String {
    match goal {
        Goal::RatioAtMost(most) => format!("<= {most:.2}x"),
        Goal::RatioAtLeast(least) => format!(">= {least:.2}x"),
        Goal::GrowthBelow(_, most) => format!("< {} a client", unit.show(most)),
        Goal::Below(most) => format!("< {}", unit.show(most)),
        Goal::Above(least) => format!("> {}", unit.show(least)),
    }
}

fn is_met(goal: Goal, ours: Option<Spread>, theirs: Option<Spread>, ratio: Option<Spread>) -> Option<bool> {
    match goal {
        Goal::RatioAtMost(most) => ratio.map(|ratio| ratio.median <= most),
        Goal::RatioAtLeast(least) => ratio.map(|ratio| ratio.median >= least),
        Goal::GrowthBelow(count, most) => Some((ours?.median - theirs?.median) / count < most),
        Goal::Below(most) => ours.map(|ours| ours.median < most),
        Goal::Above(least) => ours.map(|ours| ours.median > least),
    }
}

/// One contest as a line of JSON.
pub(crate) fn json_line(contest: &Contest, measured: &[Measured]) -> String {
    json!({"contest": contest.name, "work": contest.work, "sides": measured}).to_string()
}

/// The table, as Markdown.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| work | figure | ours | theirs | ratio (least-most) | goal | |\n|---|---|---|---|---|---|---|\n",
    );
    let mut last = "";
    for line in lines {
        let work = if line.work == last { "" } else { &line.work };
        let met = match line.met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "",
        };
        let Line { figure, ours, theirs, ratio, goal, .. } = line;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {work} | {figure} | {ours} | {theirs} | {ratio} | {goal} | {met} |");
        last = &line.work;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{Program, Side};

    fn taken(seconds: f64) -> Taken {
        Taken {
            wall_seconds: seconds,
            cpu_seconds: 0.0,
            peak_bytes: (seconds * 1e8) as u64,
            processes: 1,
            others_cores: 0.0,
            said: json!({}),
        }
    }

    fn contest(claims: Vec<Claim>) -> Contest {
        let side = |name: &str, program| Side { name: name.into(), program, arguments: Vec::new() };
        let sides = vec![side("ours", Program::Work), side("theirs", Program::Peer("x.py"))];
        Contest { name: "c".into(), work: "w".into(), sides, claims, own_network: false }
    }

    fn measured(side: &str, seconds: &[f64]) -> Measured {
        let runs = seconds.iter().map(|seconds| taken(*seconds)).collect();
        Measured { side: side.into(), command: String::new(), runs }
    }

    #[test]
    fn a_goal_is_held_against_the_median_of_the_ratios() {
        let goals =
            [(Goal::RatioAtMost(0.5), true), (Goal::RatioAtMost(0.49), false), (Goal::RatioAtLeast(0.6), false)];
        for (goal, met) in goals {
            let contest = contest(vec![Claim { figure: Figure::Wall, against: Some(1), goal: Some(goal) }]);
            let lines = lines(&contest, &[measured("ours", &[1.0, 2.0, 9.0]), measured("theirs", &[2.0, 4.0, 9.0])]);
            assert_eq!(lines[0].met, Some(met), "{goal:?}");
        }
    }

    #[test]
    fn a_side_that_was_left_out_leaves_its_claim_open() {
        let claim = Claim { figure: Figure::Wall, against: Some(1), goal: Some(Goal::RatioAtMost(0.5)) };
        let lines = lines(&contest(vec![claim]), &[measured("ours", &[1.0]), measured("theirs", &[])]);
        assert_eq!(lines[0].met, None);
        assert!(table(&lines).contains("| w | wall | 1.000 s | - theirs | - | <= 0.50x |  |"), "{}", table(&lines));
    }

    #[test]
    fn growth_is_counted_a_client() {
        let growth =
            |most| Claim { figure: Figure::Memory, against: Some(1), goal: Some(Goal::GrowthBelow(10.0, most)) };
        let contest = contest(vec![growth(11e6), growth(9e6)]);
        let lines = lines(&contest, &[measured("ours", &[2.0]), measured("theirs", &[1.0])]);
        assert_eq!([lines[0].met, lines[1].met], [Some(true), Some(false)]);
    }
}
