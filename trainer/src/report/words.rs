//! The report's sentences, and the one place in it that names a framework.
//! Must not draw or lay out anything: it returns plain text, which whoever shows it escapes.

use fedtune_crds::report::{FrameworkName, RunPhase, RunReport};
use serde::Serialize;

use super::{
    measures::{self, Better},
    units,
};

/// What each side does in a framework, in the words of the comparison in the paper.
#[derive(Debug, Serialize)]
pub(crate) struct Division {
    pub(crate) framework: &'static str,
    pub(crate) class: &'static str,
    pub(crate) server_sends: &'static str,
    pub(crate) client_does: &'static str,
    pub(crate) server_does: &'static str,
    pub(crate) leaves_client: &'static str,
}

/// The CSS class that gives a framework its colour.
pub(crate) fn class(framework: FrameworkName) -> &'static str {
    match framework {
        FrameworkName::FedLlm => "fedllm",
        FrameworkName::KdFedLlm => "kd",
        FrameworkName::SplitFedLlm => "split",
        FrameworkName::Central => "central",
        FrameworkName::LocalOnly => "local",
    }
}

/// Who did what in this framework.
pub(crate) fn division(framework: FrameworkName) -> Division {
    let (server_sends, client_does, server_does, leaves_client) = match framework {
        FrameworkName::FedLlm => (
            "the adapter, at the start of each round",
            "trains the whole model on its own data; uploads its adapter, or gradients of it",
            "averages the uploads by number of examples, then takes a server optimizer step where one is set",
            "parameters of adapter and head, or their gradients",
        ),
        FrameworkName::KdFedLlm => (
            "the logits of its student on the public set",
            "trains the whole model on its own data; uploads logits on the public set; distils from the server’s",
            "averages the logits, distils them into its own student, and shares the student’s logits",
            "logits on public examples",
        ),
        FrameworkName::SplitFedLlm => (
            "the client half of the adapter each round; gradients at the cut each step",
            "runs the front of the model; uploads hidden states each step, and its half of the adapter each round",
            "runs the back of the model, sends gradients back through the cut, averages the client halves",
            "hidden states at the cut, lengths of its texts, parameters of the client half; labels too, unless the client holds the head",
        ),
        FrameworkName::Central => (
            "nothing: there are no clients at work",
            "nothing; its data was copied to the server",
            "trains on the union of all data",
            "all of its data (the baseline that federation avoids)",
        ),
        FrameworkName::LocalOnly => (
            "nothing",
            "trains alone on its own data, and keeps its adapter",
            "nothing; accuracy is the mean over the clients",
            "nothing (the baseline that federation should beat)",
        ),
    };
    Division {
        framework: framework.as_str(),
        class: class(framework),
        server_sends,
        client_does,
        server_does,
        leaves_client,
    }
}

/// Which framework is best on each of the three measures, in one sentence; then the baselines in another.
pub(crate) fn headline(runs: &[&RunReport], labels: &[String]) -> String {
    let competing = runs.iter().filter(|run| measures::competes(run)).count();
    let verdict = match competing {
        0 => "No federated run finished, so there is nothing to compare.".to_owned(),
        1 => single(runs, labels),
        _ => winners(runs, labels),
    };
    [Some(verdict), baselines(runs)].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// The sentence of each failed run, by label.
pub(crate) fn failures<'a>(runs: &[&'a RunReport], labels: &'a [String]) -> Vec<(&'a str, String)> {
    runs.iter()
        .zip(labels)
        .filter(|(run, _)| run.phase == RunPhase::Failed)
        .map(|(run, label)| (label.as_str(), failure(run)))
        .collect()
}

/// Where a run failed and why.
pub(crate) fn failure(run: &RunReport) -> String {
    match run.rounds.last() {
        Some(last) => format!("failed after round {}: {}", last.round, run.stop_reason),
        None => format!("failed before its first round was done: {}", run.stop_reason),
    }
}

/// What differs between the runs that should not, if their figures are to be set side by side.
pub(crate) fn cautions(runs: &[&RunReport]) -> Vec<String> {
    let differs = |pick: fn(&RunReport) -> &str| {
        let first = runs.first().map(|run| pick(run));
        runs.iter()
            .any(|run| !pick(run).is_empty() && first.is_some_and(|first| !first.is_empty() && pick(run) != first))
    };
    let checks: [(bool, &str); 5] = [
        (differs(|run| &run.experiment), "These runs belong to different experiments."),
        (differs(|run| &run.hashes.data), "These runs read different examples: compare their accuracies with care."),
        (differs(|run| &run.hashes.base_model), "These runs start from different base models."),
        (differs(|run| &run.hashes.partition), "Examples are divided among the clients in different ways."),
        (
            differs(|run| &run.environment.device),
            "These runs used different devices or precisions: seconds do not compare.",
        ),
    ];
    checks.into_iter().filter(|(differs, _)| *differs).map(|(_, sentence)| sentence.to_owned()).collect()
}

fn single(runs: &[&RunReport], labels: &[String]) -> String {
    let (run, label) =
        runs.iter().zip(labels).find(|(run, _)| measures::competes(run)).expect("called where one run competes");
    let accuracy = run.final_figures.accuracy;
    format!(
        "{} ({label}) reached {} accuracy{}, for {} of payload and {} of client compute.",
        run.framework,
        units::percent(accuracy),
        above_majority(run),
        units::bytes(measures::payload(run)),
        units::flops(run.totals.client_flops),
    )
}

fn above_majority(run: &RunReport) -> String {
    let gain = (run.final_figures.accuracy - run.final_figures.majority) * 100.0;
    match run.final_figures.majority > 0.0 && gain.is_finite() {
        true if gain >= 0.0 => format!(", {gain:.1} points above guessing the most frequent label"),
        true => format!(", {:.1} points below guessing the most frequent label", -gain),
        false => String::new(),
    }
}

fn winners(runs: &[&RunReport], labels: &[String]) -> String {
    let of = |better, figure: fn(&RunReport) -> Option<f64>| {
        let best = measures::best(runs, better, figure);
        let winners: Vec<usize> = best.iter().enumerate().filter_map(|(at, best)| best.then_some(at)).collect();
        // Where all are equal nobody is best, and the figure is anyone's.
        let shown = winners.first().copied().or_else(|| runs.iter().position(|run| measures::competes(run)));
        (winners, shown.and_then(|at| figure(runs[at])).unwrap_or(f64::NAN))
    };
    let (accurate, accuracy) = of(Better::Larger, |run| Some(run.final_figures.accuracy));
    let (frugal, payload) = of(Better::Smaller, |run| Some(measures::payload(run)));
    let (light, flops) = of(Better::Smaller, |run| Some(run.totals.client_flops));
    let (accuracy, payload, flops) = (units::percent(accuracy), units::bytes(payload), units::flops(flops));
    let [best, sender, computer] = [&accurate, &frugal, &light].map(|winners| subject(winners, runs, labels));
    if let Subject::One(name) = &best
        && accurate == frugal
        && accurate == light
    {
        return format!(
            "{name} is best on all three measures: {accuracy} accuracy, {payload} of payload, {flops} of client compute."
        );
    }
    let accuracy = best.clause(["is", "are"], "equally accurate", "most accurate", &accuracy);
    let payload = sender.clause(["exchanges", "exchange"], "equally many bytes", "the fewest bytes", &payload);
    let flops = computer.clause(["computes", "compute"], "equally much on clients", "the least on clients", &flops);
    capitalised(&format!("{accuracy}, {payload}, and {flops}."))
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// `FedLLM`, `FedLLM and KD-FedLLM`; the run's label too, where it alone wins among several of its framework.
fn subject(winners: &[usize], runs: &[&RunReport], labels: &[String]) -> Subject {
    let of = |framework| winners.iter().copied().filter(move |at| runs[*at].framework == framework);
    let name = |framework| -> Option<String> {
        let first = of(framework).next()?;
        let ran = runs.iter().filter(|run| run.framework == framework).count();
        let alone = ran > 1 && of(framework).count() == 1;
        Some(if alone { format!("{framework} ({})", labels[first]) } else { framework.to_string() })
    };
    let names: Vec<String> = FrameworkName::ALL.into_iter().filter_map(name).collect();
    match names.split_last() {
        None => Subject::All,
        Some((one, [])) => Subject::One(one.clone()),
        Some((last, others)) => Subject::Several(format!("{} and {last}", others.join(", "))),
    }
}

/// Who a sentence is about.
enum Subject {
    /// Nobody in particular: all are equal.
    All,
    One(String),
    Several(String),
}

impl Subject {
    /// `KD-FedLLM exchanges the fewest bytes (76.8 kB)`, or `all exchange equally many bytes (76.8 kB)`.
    fn clause(&self, [does, do_all]: [&str; 2], equally: &str, best: &str, figure: &str) -> String {
        match self {
            Self::All => format!("all {do_all} {equally} ({figure})"),
            Self::One(name) => format!("{name} {does} {best} ({figure})"),
            Self::Several(names) => format!("{names} {do_all} {best} ({figure})"),
        }
    }
}

fn baselines(runs: &[&RunReport]) -> Option<String> {
    let accuracy = |framework| {
        let mut of = runs.iter().filter(|run| run.framework == framework && run.phase == RunPhase::Succeeded);
        // With several baselines of a kind there is no one figure to state in a sentence.
        let one = of.next()?;
        of.next().is_none().then(|| units::percent(one.final_figures.accuracy))
    };
    match (accuracy(FrameworkName::Central), accuracy(FrameworkName::LocalOnly)) {
        (Some(central), Some(local)) => Some(format!(
            "For scale: all data in one place reaches {central}, clients on their own {local} on average."
        )),
        (Some(central), None) => Some(format!("For scale: all data in one place reaches {central}.")),
        (None, Some(local)) => Some(format!("For scale: clients on their own reach {local} on average.")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn sentence(reports: &[RunReport]) -> String {
        let runs = measures::in_reading_order(reports);
        headline(&runs, &measures::labels(&runs))
    }

    #[test]
    fn the_headline_names_the_best_on_each_measure_and_the_baselines() {
        assert_eq!(
            sentence(&samples::five()),
            "Split-FedLLM is most accurate (87.0 %), KD-FedLLM exchanges the fewest bytes (76.8 kB), and Split-FedLLM \
             computes the least on clients (1.40 TFLOP). For scale: all data in one place reaches 88.5 %, clients \
             on their own 74.1 % on average."
        );
    }

    #[test]
    fn one_that_is_best_at_all_is_said_to_be() {
        let mut best = samples::kd();
        best.final_figures.accuracy = 0.9;
        best.totals.client_flops = 1e12;
        assert_eq!(
            sentence(&[best, samples::fedllm()]),
            "KD-FedLLM is best on all three measures: 90.0 % accuracy, 76.8 kB of payload, 1.00 TFLOP of client compute."
        );
    }

    #[test]
    fn equal_runs_share_the_praise_or_get_none() {
        let sentence = sentence(&samples::twelve());
        assert!(
            sentence.starts_with("Split-FedLLM (mail-split-seed-51) is most accurate (89.0 %), KD-FedLLM exchanges"),
            "{sentence}"
        );
        let (kd, mut twin) = (samples::kd(), samples::kd());
        twin.framework = FrameworkName::FedLlm;
        let sentence = self::sentence(&[kd, twin]);
        assert!(
            sentence.starts_with("All are equally accurate (80.2 %), all exchange equally many bytes"),
            "{sentence}"
        );
    }

    #[test]
    fn a_single_run_is_compared_with_guessing() {
        assert_eq!(
            sentence(&[samples::kd()]),
            "KD-FedLLM (mail-kd) reached 80.2 % accuracy, 11.6 points above guessing the most frequent label, for \
             76.8 kB of payload and 17.6 TFLOP of client compute."
        );
    }

    #[test]
    fn where_nothing_finished_nothing_is_compared() {
        assert_eq!(sentence(&[samples::failed()]), "No federated run finished, so there is nothing to compare.");
    }

    #[test]
    fn runs_on_other_examples_come_with_a_caution() {
        let mut other = samples::kd();
        other.hashes.data = "ff".repeat(32);
        let (kd, fedllm) = (samples::kd(), samples::fedllm());
        assert_eq!(cautions(&[&kd, &fedllm]), [""; 0]);
        assert_eq!(
            cautions(&[&kd, &other]),
            ["These runs read different examples: compare their accuracies with care."]
        );
    }
}
