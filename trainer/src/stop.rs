//! When a run may end before its last round: the stop rules of `spec.stop`, read from the rounds that are over.
//! Must not end anything or remember anything: the same rounds give the same answer, also after a restart.

use fedtune_crds::{
    quantities::{ByteSize, Decimal},
    report::{RoundReport, RunPhase, RunReport},
    training as spec,
};

use crate::report::units;

/// Why a run that did all its rounds ended, as reports have it.
pub const ROUNDS: &str = "rounds";

/// The rules; none that is not set is ever met.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StopRules {
    /// Accuracy on the held-out examples that is good enough.
    pub target_accuracy: Option<f64>,
    /// Payload bytes of all clients, both directions.
    pub max_bytes: Option<u64>,
    /// Headline FLOPs of all clients.
    pub max_client_flops: Option<f64>,
    /// Rounds without a lower held-out loss.
    pub patience: Option<u32>,
}

/// A rule that is met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Its name in the spec, for `stopReason`.
    pub rule: &'static str,
    /// The figure that met it, for people.
    pub sentence: String,
}

impl StopRules {
    /// The rules of a spec.
    pub fn of(stop: &spec::Stop) -> Self {
        Self {
            target_accuracy: stop.target_accuracy.as_ref().map(Decimal::value),
            max_bytes: stop.max_bytes.as_ref().map(ByteSize::bytes),
            max_client_flops: stop.max_client_flops.as_ref().map(Decimal::value),
            patience: stop.patience,
        }
    }

    /// The rule that ends a run of at most `of` rounds after these; of several the first in the spec's order. After the
    /// last round none is needed.
    pub fn met(&self, rounds: &[RoundReport], of: u32) -> Option<Stop> {
        let last = rounds.last().filter(|last| last.round < of)?;
        self.accuracy_reached(last)
            .or_else(|| self.bytes_spent(rounds))
            .or_else(|| self.flops_spent(rounds))
            .or_else(|| self.patience_lost(rounds))
    }

    fn accuracy_reached(&self, last: &RoundReport) -> Option<Stop> {
        let target = self.target_accuracy.filter(|target| last.accuracy >= *target)?;
        let (reached, target) = (units::percent(last.accuracy), units::percent(target));
        Some(stop("targetAccuracy", format!("the accuracy is {reached}, and {target} were to be reached")))
    }

    fn bytes_spent(&self, rounds: &[RoundReport]) -> Option<Stop> {
        let spent: u64 = rounds.iter().flat_map(|round| &round.bytes).map(|count| count.payload).sum();
        let most = self.max_bytes.filter(|most| spent >= *most)?;
        let (spent, most) = (units::bytes(spent as f64), units::bytes(most as f64));
        Some(stop("maxBytes", format!("{spent} were exchanged, and after {most} no further round was to begin")))
    }

    fn flops_spent(&self, rounds: &[RoundReport]) -> Option<Stop> {
        let spent = rounds.iter().fold(0.0, |sum, round| sum + round.client_flops);
        let most = self.max_client_flops.filter(|most| spent >= *most)?;
        let (spent, most) = (units::flops(spent), units::flops(most));
        Some(stop("maxClientFlops", format!("the clients did {spent}, and after {most} no further round was to begin")))
    }

    fn patience_lost(&self, rounds: &[RoundReport]) -> Option<Stop> {
        let patience = self.patience?;
        let best = rounds.iter().reduce(|best, round| if round.loss < best.loss { round } else { best })?;
        let since = rounds.last()?.round.saturating_sub(best.round);
        let sentence = || {
            let (loss, round) = (units::decimal(best.loss), best.round);
            format!("no round lowered the loss of {loss} that round {round} had, and there was patience for {patience}")
        };
        (since >= patience).then(|| stop("patience", sentence()))
    }
}

fn stop(rule: &'static str, sentence: String) -> Stop {
    Stop { rule, sentence }
}

/// How a run that a rule stopped says so; nothing where it did all its rounds or failed.
pub fn words(report: &RunReport) -> Option<String> {
    if report.phase != RunPhase::Succeeded || report.stop_reason == ROUNDS {
        return None;
    }
    let rules = serde_json::from_value::<spec::Stop>(report.spec["stop"].clone()).ok();
    let met = rules.and_then(|rules| StopRules::of(&rules).met(&report.rounds, u32::MAX));
    let why = met
        .filter(|stop| stop.rule == report.stop_reason)
        .map_or_else(String::new, |stop| format!(": {}", stop.sentence));
    Some(format!("stopped by {} after round {}{why}", report.stop_reason, report.rounds.len()))
}

#[cfg(test)]
mod tests {
    use fedtune_crds::report::{ByteCount, Direction, PayloadKind};

    use super::*;

    /// Rounds of these losses, each of 100 bytes up and 50 down, 1e12 FLOPs and 0.1 more accuracy.
    fn rounds(losses: &[f64]) -> Vec<RoundReport> {
        let count = |direction, payload| ByteCount {
            client: "silo/0".to_owned(),
            direction,
            kind: PayloadKind::Adapter,
            payload,
            wire: 2 * payload,
            retransmitted: 1_000_000,
        };
        let round = |(index, loss): (usize, &f64)| RoundReport {
            round: index as u32 + 1,
            accuracy: (index + 1) as f64 / 10.0,
            loss: *loss,
            client_flops: 1e12,
            bytes: vec![count(Direction::Up, 100), count(Direction::Down, 50)],
            ..RoundReport::default()
        };
        losses.iter().enumerate().map(round).collect()
    }

    /// After how many rounds of ten each the rules stop a run, and which did.
    fn stops(rules: StopRules, losses: &[f64]) -> Option<(usize, &'static str)> {
        let all = rounds(losses);
        (1..=all.len()).find_map(|count| Some((count, rules.met(&all[..count], 10)?.rule)))
    }

    const FALLING: [f64; 10] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05];

    #[test]
    fn without_rules_every_round_is_done() {
        assert_eq!(stops(StopRules::default(), &FALLING), None);
    }

    #[test]
    fn a_run_ends_with_the_round_that_reaches_its_accuracy() {
        assert_eq!(
            stops(StopRules { target_accuracy: Some(0.4), ..StopRules::default() }, &FALLING),
            Some((4, "targetAccuracy"))
        );
    }

    /// 150 bytes a round: retransmissions and what the sockets carried do not count.
    #[test]
    fn a_run_ends_with_the_round_that_spends_its_bytes() {
        let most = |most| StopRules { max_bytes: Some(most), ..StopRules::default() };
        assert_eq!(stops(most(300), &FALLING), Some((2, "maxBytes")));
        assert_eq!(stops(most(301), &FALLING), Some((3, "maxBytes")));
    }

    #[test]
    fn a_run_ends_with_the_round_that_spends_its_operations() {
        let rules = StopRules { max_client_flops: Some(2.5e12), ..StopRules::default() };
        assert_eq!(stops(rules, &FALLING), Some((3, "maxClientFlops")));
    }

    #[test]
    fn a_run_ends_when_as_many_rounds_as_its_patience_lowered_no_loss() {
        let patience = |patience| StopRules { patience: Some(patience), ..StopRules::default() };
        assert_eq!(stops(patience(2), &FALLING), None);
        // An equal loss is no lower one.
        assert_eq!(stops(patience(2), &[0.9, 0.8, 0.8, 0.85, 0.1]), Some((4, "patience")));
        assert_eq!(stops(patience(3), &[0.9, 0.8, 0.8, 0.85, 0.1, 0.2]), None);
    }

    #[test]
    fn of_several_rules_the_first_met_ends_the_run() {
        let rules = StopRules { target_accuracy: Some(0.3), max_bytes: Some(300), ..StopRules::default() };
        assert_eq!(stops(rules, &FALLING), Some((2, "maxBytes")));
        let together = StopRules { max_bytes: Some(450), ..rules };
        assert_eq!(stops(together, &FALLING), Some((3, "targetAccuracy")));
    }

    #[test]
    fn a_rule_that_the_last_round_meets_stops_nothing() {
        assert_eq!(stops(StopRules { target_accuracy: Some(1.0), ..StopRules::default() }, &FALLING), None);
    }

    #[test]
    fn a_report_says_which_rule_stopped_its_run_and_with_which_figure() {
        let mut report = crate::report::samples::fedllm();
        assert_eq!(words(&report), None);
        report.stop_reason = "targetAccuracy".to_owned();
        report.spec["stop"] = serde_json::json!({ "targetAccuracy": "0.86" });
        let said = "stopped by targetAccuracy after round 3: the accuracy is 86.4 %, and 86.0 % were to be reached";
        assert_eq!(words(&report).unwrap().replace('\u{a0}', " "), said);
    }
}
