//! What a run reached and cost, read off its report: the figures that table, page and charts share.
//! Must not format anything, and must not invent a figure that a failed run never measured.

use std::collections::BTreeMap;

use fedtune_crds::report::{Direction, FrameworkName, PayloadKind, RunPhase, RunReport};

/// The scores of a run: of its final model, or of its last finished round where it failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scores {
    pub(crate) accuracy: f64,
    /// None where a language model's answers are no labels.
    pub(crate) macro_f1: Option<f64>,
    pub(crate) loss: f64,
    /// Of a language model.
    pub(crate) perplexity: Option<f64>,
}

/// Which end of a measure is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Larger,
    Smaller,
}

/// The scores, if the run got as far as a round.
pub(crate) fn scores(report: &RunReport) -> Option<Scores> {
    let end = &report.final_figures;
    match report.phase {
        RunPhase::Succeeded => Some(Scores {
            accuracy: end.accuracy,
            macro_f1: of_labels(end.macro_f1, end.token_accuracy),
            loss: end.loss,
            perplexity: end.perplexity,
        }),
        RunPhase::Failed => report.rounds.last().map(|round| Scores {
            accuracy: round.accuracy,
            macro_f1: of_labels(round.macro_f1, round.token_accuracy),
            loss: round.loss,
            perplexity: round.perplexity,
        }),
    }
}

/// A language model whose answers are no labels has no F1, and its report a zero.
fn of_labels(macro_f1: f64, token_accuracy: Option<f64>) -> Option<f64> {
    (token_accuracy.is_none() || macro_f1 > 0.0).then_some(macro_f1)
}

/// Whether the run is compared for the best: it finished, and is no baseline.
pub(crate) fn competes(report: &RunReport) -> bool {
    report.phase == RunPhase::Succeeded && !is_baseline(report.framework)
}

/// Baselines exchange nothing, so they would win on bytes without taking part.
pub(crate) fn is_baseline(framework: FrameworkName) -> bool {
    match framework {
        FrameworkName::Central | FrameworkName::LocalOnly => true,
        FrameworkName::FedLlm | FrameworkName::KdFedLlm | FrameworkName::SplitFedLlm => false,
    }
}

/// For each run whether it has the best figure; nobody has where all that compete are equal.
pub(crate) fn best(reports: &[&RunReport], better: Better, figure: impl Fn(&RunReport) -> Option<f64>) -> Vec<bool> {
    let figures: Vec<Option<f64>> =
        reports.iter().map(|report| figure(report).filter(|value| competes(report) && value.is_finite())).collect();
    let known = || figures.iter().flatten().copied();
    let winner = match better {
        Better::Larger => known().max_by(f64::total_cmp),
        Better::Smaller => known().min_by(f64::total_cmp),
    };
    let contested = known().any(|figure| Some(figure) != winner);
    figures.iter().map(|figure| contested && figure.is_some() && *figure == winner).collect()
}

/// Bytes that the sockets carried for each byte of payload; `None` where nothing was sent.
pub(crate) fn wire_per_payload(report: &RunReport) -> Option<f64> {
    let payload = report.totals.payload_bytes;
    let wire = report.totals.wire_bytes;
    let payload = payload.up as f64 + payload.down as f64;
    (payload > 0.0).then(|| (wire.up as f64 + wire.down as f64) / payload)
}

/// Payload of the run, both directions together. In floating point: two counts near the end of `u64` may not overflow.
pub(crate) fn payload(report: &RunReport) -> f64 {
    report.totals.payload_bytes.up as f64 + report.totals.payload_bytes.down as f64
}

/// The largest peak memory of a client, and whether it is a modelled figure.
pub(crate) fn client_memory(report: &RunReport) -> Option<(u64, bool)> {
    let largest = report.clients.iter().max_by_key(|client| client.peak_memory_bytes)?;
    (largest.peak_memory_bytes > 0).then_some((largest.peak_memory_bytes, largest.peak_memory_modelled))
}

/// Payload bytes sent by the end of each round.
pub(crate) fn payload_by_round(report: &RunReport) -> Vec<f64> {
    running_sum(report.rounds.iter().map(|round| round.bytes.iter().map(|count| count.payload as f64).sum()))
}

/// Client FLOPs spent by the end of each round.
pub(crate) fn flops_by_round(report: &RunReport) -> Vec<f64> {
    running_sum(report.rounds.iter().map(|round| round.client_flops))
}

/// Payload of the run by direction and kind; kinds that never carried a byte are left out.
pub(crate) fn payload_by_kind(report: &RunReport) -> BTreeMap<(Direction, PayloadKind), u64> {
    let mut kinds: BTreeMap<(Direction, PayloadKind), u64> = BTreeMap::new();
    for count in report.rounds.iter().flat_map(|round| &round.bytes).filter(|count| count.payload > 0) {
        let sum = kinds.entry((count.direction, count.kind)).or_default();
        *sum = sum.saturating_add(count.payload);
    }
    kinds
}

/// Reports in reading order: frameworks in the order of the paper, baselines last, each in the order given.
pub(crate) fn in_reading_order(reports: &[RunReport]) -> Vec<&RunReport> {
    let mut ordered: Vec<&RunReport> = reports.iter().collect();
    ordered.sort_by_key(|report| report.framework);
    ordered
}

/// A name for each run that no other has: its own, with the seed and then an ordinal where names are shared.
pub(crate) fn labels(reports: &[&RunReport]) -> Vec<String> {
    let names: Vec<String> = reports.iter().map(|report| report.name.clone()).collect();
    let seeded: Vec<String> = reports
        .iter()
        .zip(&names)
        .map(|(report, name)| if shared(&names, name) { format!("{name} seed {}", report.seed) } else { name.clone() })
        .collect();
    (0..seeded.len())
        .map(|at| {
            let earlier = seeded[..at].iter().filter(|label| **label == seeded[at]).count();
            if shared(&seeded, &seeded[at]) { format!("{} ({})", seeded[at], earlier + 1) } else { seeded[at].clone() }
        })
        .collect()
}

fn shared(names: &[String], name: &str) -> bool {
    names.iter().filter(|other| *other == name).count() > 1
}

fn running_sum(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    figures
        .scan(0.0, |sum, figure: f64| {
            *sum += figure;
            Some(*sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn payload_by_round_ends_at_the_total() {
        for report in samples::five() {
            assert_eq!(payload_by_round(&report).last().copied(), Some(payload(&report)));
        }
    }

    #[test]
    fn flops_by_round_end_at_the_total() {
        let report = samples::fedllm();
        let last = flops_by_round(&report).last().copied().unwrap();
        assert!((last - report.totals.client_flops).abs() < 1.0, "{last}");
    }

    #[test]
    fn a_failed_run_has_the_scores_of_its_last_round_or_none() {
        let mut stopped = samples::fedllm();
        stopped.phase = RunPhase::Failed;
        stopped.final_figures.accuracy = 0.0;
        assert_eq!(scores(&stopped).map(|scores| scores.accuracy), Some(0.864));
        assert_eq!(scores(&samples::failed()), None);
    }

    #[test]
    fn neither_baselines_nor_failed_runs_nor_what_is_not_a_number_is_best() {
        let mut lost = samples::kd();
        lost.final_figures.accuracy = f64::NAN;
        let reports = [samples::fedllm(), lost, samples::split(), samples::central(), samples::failed()];
        let runs: Vec<&RunReport> = reports.iter().collect();
        let best = best(&runs, Better::Larger, |run| Some(run.final_figures.accuracy));
        assert_eq!(best, [false, false, true, false, false]);
    }

    #[test]
    fn where_all_are_equal_nobody_is_best() {
        let (one, other) = (samples::kd(), samples::kd());
        assert_eq!(best(&[&one, &other], Better::Smaller, |run| Some(payload(run))), [false, false]);
    }

    #[test]
    fn wire_over_payload_is_unknown_where_nothing_was_sent() {
        assert_eq!(wire_per_payload(&samples::central()), None);
        // A hundredth is added to each count, rounded down.
        assert!((wire_per_payload(&samples::fedllm()).unwrap() - 1.01).abs() < 1e-4);
    }
}
