//! `rounds.csv`: one row a round and run, for spreadsheets and data frames.
//! Must not round: figures are written with every digit that tells them apart.

use fedtune_crds::report::{ByteCount, Direction, RoundReport, RunReport};
use serde::Serialize;

/// One row. Field order is column order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    name: &'a str,
    framework: &'a str,
    round: u32,
    accuracy: f64,
    #[serde(rename = "macroF1")]
    macro_f1: f64,
    loss: f64,
    payload_up: u64,
    payload_down: u64,
    wire_up: u64,
    wire_down: u64,
    seconds: f64,
    participants: usize,
    /// Of a language model; empty for a classifier.
    perplexity: Option<f64>,
    token_accuracy: Option<f64>,
    exact_match: Option<f64>,
    choices_accuracy: Option<f64>,
}

/// The rounds of all runs, header first, also where there is no round at all.
pub fn rounds_csv(reports: &[RunReport]) -> Result<String, csv::Error> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(HEADER)?;
    for report in reports {
        for round in &report.rounds {
            writer.serialize(row(report, round))?;
        }
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Stated, since a file without rows needs it too.
const HEADER: [&str; 16] = [
    "name",
    "framework",
    "round",
    "accuracy",
    "macroF1",
    "loss",
    "payloadUp",
    "payloadDown",
    "wireUp",
    "wireDown",
    "seconds",
    "participants",
    "perplexity",
    "tokenAccuracy",
    "exactMatch",
    "choicesAccuracy",
];

fn row<'a>(report: &'a RunReport, round: &RoundReport) -> Row<'a> {
    let sum = |direction: Direction, figure: fn(&ByteCount) -> u64| {
        let counts = round.bytes.iter().filter(|count| count.direction == direction);
        counts.fold(0_u64, |sum, count| sum.saturating_add(figure(count)))
    };
    Row {
        name: &report.name,
        framework: report.framework.as_str(),
        round: round.round,
        accuracy: round.accuracy,
        macro_f1: round.macro_f1,
        loss: round.loss,
        payload_up: sum(Direction::Up, |count| count.payload),
        payload_down: sum(Direction::Down, |count| count.payload),
        wire_up: sum(Direction::Up, |count| count.wire),
        wire_down: sum(Direction::Down, |count| count.wire),
        seconds: round.seconds,
        participants: round.participants.len(),
        perplexity: round.perplexity,
        token_accuracy: round.token_accuracy,
        exact_match: round.exact_match,
        choices_accuracy: round.choices_accuracy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn each_round_of_each_run_is_a_row_under_one_header() {
        let reports = [samples::fedllm(), samples::central()];
        let text = rounds_csv(&reports).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "name,framework,round,accuracy,macroF1,loss,payloadUp,payloadDown,wireUp,wireDown,seconds,participants,\
             perplexity,tokenAccuracy,exactMatch,choicesAccuracy"
        );
        assert_eq!(lines.len(), 1 + reports[0].rounds.len() + reports[1].rounds.len());
        // Four clients, 400,000 B of adapter and 6,152 B of head each way; wire is 1 % more.
        assert_eq!(lines[1], "mail-fedllm,FedLLM,1,0.71,0.66,0.58,1624608,1624608,1640852,1640852,41.5,4,,,,");
    }

    #[test]
    fn columns_keep_their_names_in_the_order_of_the_fields() {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let report = samples::fedllm();
        writer.serialize(row(&report, &report.rounds[0])).unwrap();
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        assert_eq!(text.lines().next().unwrap(), HEADER.join(","));
    }

    #[test]
    fn a_name_with_commas_and_quotes_is_quoted() {
        let mut report = samples::fedllm();
        report.name = r#"a,"b""#.into();
        let text = rounds_csv(&[report]).unwrap();
        assert!(text.lines().nth(1).unwrap().starts_with(r#""a,""b""",FedLLM,1,"#));
    }

    #[test]
    fn a_run_without_rounds_gives_the_header_alone() {
        assert_eq!(rounds_csv(&[samples::failed()]).unwrap().lines().count(), 1);
    }
}
