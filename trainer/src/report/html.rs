//! The comparison as one HTML file that needs nothing else: no network, no script.
//! Must not hold markup: `report.html` beside it does, and escapes every text that comes from a report.

mod clients;
mod figures;
mod tables;

use fedtune_crds::report::RunReport;
use minijinja::{AutoEscape, Environment, Value, value::Serde};
use serde::Serialize;

use super::{
    charts::{Drawing, Shape, Style, swatch},
    measures, units, words,
};

/// All that the template shows.
#[derive(Debug, Serialize)]
struct Page<'a> {
    title: String,
    experiment: String,
    summary: String,
    headline: String,
    failures: Vec<(&'a str, String)>,
    cautions: Vec<String>,
    /// The runs that have curves.
    drawn: Vec<Entry>,
    overview: Drawing,
    measures: Vec<tables::Measured>,
    /// What guessing reaches, where all runs agree on it.
    majority: Option<String>,
    labels: Vec<tables::LabelScores>,
    by_round: Vec<Drawing>,
    by_cost: Vec<Drawing>,
    rounds: Vec<tables::Round>,
    kinds: Option<figures::Kinds>,
    divisions: Vec<words::Division>,
    clients: Vec<clients::Roster>,
    facts: Vec<tables::Fact>,
    specs: Vec<Spec>,
    versions: String,
}

/// A run in a legend.
#[derive(Debug, Serialize)]
struct Entry {
    label: String,
    framework: &'static str,
    swatch: Drawing,
}

#[derive(Debug, Serialize)]
struct Spec {
    label: String,
    yaml: String,
}

/// A run with the name and the look that it has all over the page.
struct Run<'a> {
    report: &'a RunReport,
    label: String,
    style: Style,
}

impl Run<'_> {
    fn entry(&self) -> Entry {
        Entry { label: self.label.clone(), framework: self.report.framework.as_str(), swatch: swatch(&self.style) }
    }
}

/// The page that compares `reports`; of a single one, its own report.
pub fn comparison(reports: &[RunReport]) -> String {
    let ordered = measures::in_reading_order(reports);
    let labels = measures::labels(&ordered);
    let runs = styled(&ordered, &labels);
    render(&page(&ordered, &labels, &runs))
}

fn page<'a>(ordered: &[&'a RunReport], labels: &'a [String], runs: &[Run]) -> Page<'a> {
    Page {
        title: title(ordered),
        experiment: distinct(ordered.iter().map(|report| report.experiment.clone())).join(", "),
        summary: summary(ordered),
        headline: units::unbroken(&words::headline(ordered, labels)),
        failures: words::failures(ordered, labels),
        cautions: words::cautions(ordered),
        drawn: runs.iter().filter(|run| !run.report.rounds.is_empty()).map(Run::entry).collect(),
        overview: figures::overview(runs),
        measures: tables::measured(runs),
        majority: figures::majority(runs).map(|(level, _)| units::percent(level)),
        labels: tables::label_scores(runs),
        by_round: figures::by_round(runs),
        by_cost: figures::by_cost(runs),
        rounds: tables::rounds(runs),
        kinds: figures::kinds(runs),
        divisions: distinct(ordered.iter().map(|report| report.framework)).into_iter().map(words::division).collect(),
        clients: runs.iter().filter_map(clients::roster).collect(),
        facts: tables::facts(runs),
        specs: runs.iter().map(spec).collect(),
        versions: distinct(ordered.iter().map(|report| report.environment.fedtune.clone())).join(", "),
    }
}

fn render(page: &Page) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let templates = [("style.css", include_str!("html/style.css")), ("report.html", include_str!("html/report.html"))];
    for (name, source) in templates {
        environment.add_template(name, source).expect("the template is part of the program, and tests parse it");
    }
    let template = environment.get_template("report.html").expect("it was added above");
    template
        .render(Value::from(Serde(page)))
        .expect("the template reads only fields of `Page`, and tests render each of them")
}

/// Colour by framework; point by place in the list, hollow from the seventh run on; dashes by place in the framework.
fn styled<'a>(ordered: &[&'a RunReport], labels: &[String]) -> Vec<Run<'a>> {
    let styled = ordered.iter().zip(labels).enumerate().map(|(at, (report, label))| {
        let variant = ordered[..at].iter().filter(|earlier| earlier.framework == report.framework).count() % 4;
        let fill = if at / Shape::ALL.len() % 2 == 1 { " hollow" } else { "" };
        let class = format!("{} v{variant}{fill}", words::class(report.framework));
        let shape = Shape::ALL[at % Shape::ALL.len()];
        Run { report, label: label.clone(), style: Style { class, shape } }
    });
    styled.collect()
}

fn title(reports: &[&RunReport]) -> String {
    match reports {
        [] => "No runs".into(),
        [one] => one.name.clone(),
        many => format!("{} runs compared", many.len()),
    }
}

/// What all runs share, in a line: rounds, clients, seeds.
fn summary(reports: &[&RunReport]) -> String {
    let span = |figures: Vec<u64>, one: &str, many: &str| match (figures.iter().min(), figures.iter().max()) {
        (Some(1), Some(1)) => Some(format!("1 {one}")),
        (Some(low), Some(high)) if low == high => Some(format!("{} {many}", units::count(*high))),
        (Some(low), Some(high)) => Some(format!("{} to {} {many}", units::count(*low), units::count(*high))),
        _ => None,
    };
    let rounds = reports.iter().map(|report| report.rounds.len() as u64).filter(|rounds| *rounds > 0).collect();
    let clients = reports.iter().map(|report| report.clients.len() as u64).filter(|clients| *clients > 0).collect();
    let seeds = distinct(reports.iter().map(|report| report.seed));
    let seeds = match seeds[..] {
        [] => None,
        [seed] => Some(format!("seed {seed}")),
        _ => Some(format!("{} seeds", seeds.len())),
    };
    let devices = distinct(reports.iter().map(|report| report.environment.device.clone())).join(", ");
    let devices = (!devices.is_empty()).then_some(devices);
    let parts = [span(rounds, "round", "rounds"), span(clients, "client", "clients"), seeds, devices];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

fn spec(run: &Run) -> Spec {
    let json = run.report.spec.to_string();
    // By way of the text, which YAML reads as it stands: numbers of `serde_json` may keep their digits in a wrapper
    // that another serializer would show. Should the text ever be no YAML, the JSON is as good to read.
    let yaml = serde_yaml::from_str::<serde_yaml::Value>(&json).and_then(|spec| serde_yaml::to_string(&spec));
    Spec { label: run.label.clone(), yaml: yaml.unwrap_or(json) }
}

/// Each value once, in order of first appearance.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut seen, value| {
        if !seen.contains(&value) {
            seen.push(value);
        }
        seen
    })
}

#[cfg(test)]
mod tests;
