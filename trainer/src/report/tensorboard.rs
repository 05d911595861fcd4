//! A run's rounds as a TensorBoard event file: scalars by round, one folder a run.
//! Must not measure: every figure is the report's.
//!
//! A file is a row of records, each `length | CRC of length | data | CRC of data`, the data a protobuf `Event`
//! (tensorflow's `record_writer.h` and `event.proto`; both are read back by TensorBoard in `scripts/check_tensorboard.py`).

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fedtune_crds::report::{Direction, RoundReport, RunReport};
use prost::Message;

use crate::durable;

/// What names of event files begin with; readers look for it.
const BEGINNING: &str = "events.out.tfevents.";
/// What names of ours end with.
const ENDING: &str = ".fedtune";
/// The first record says which version of events follows.
const VERSION: &str = "brain.Event:2";

/// What happened at a step.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Writes `folder/<run>/events...`, in the place of what an earlier call wrote there; `ended` is when the last round was
/// over.
///
/// # Errors
/// Where the folder cannot be written.
pub fn write(report: &RunReport, folder: &Path, ended: SystemTime) -> io::Result<()> {
    let folder = folder.join(&report.name);
    durable::create_folder(&folder)?;
    let seconds = report.rounds.iter().fold(0.0, |sum, round| sum + round.seconds);
    let began = ended.checked_sub(Duration::try_from_secs_f64(seconds).unwrap_or_default()).unwrap_or(UNIX_EPOCH);
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("{BEGINNING}{}{ENDING}", began.as_secs());
    remove_others(&folder, &name)?;
    durable::write_whole(&folder.join(name), &records(report, began.as_secs_f64()))
}

/// Files of an earlier run of the same name would be read together with this one's.
fn remove_others(folder: &Path, name: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let other = entry?.file_name().to_string_lossy().into_owned();
        if other != name && other.starts_with(BEGINNING) && other.ends_with(ENDING) {
            fs::remove_file(folder.join(other))?;
        }
    }
    Ok(())
}

fn records(report: &RunReport, began: f64) -> Vec<u8> {
    let version = Event { wall_time: began, file_version: Some(VERSION.to_owned()), ..Event::default() };
    let mut bytes = record(&version);
    let (mut wall_time, mut so_far) = (began, [0.0; 2]);
    for round in &report.rounds {
        wall_time += round.seconds;
        let value = scalars(round, &mut so_far);
        let event = Event { wall_time, step: round.round.into(), summary: Some(Summary { value }), file_version: None };
        bytes.extend(record(&event));
    }
    bytes
}

/// Each figure under its tag; `so_far` are bytes and operations up to this round.
fn scalars(round: &RoundReport, so_far: &mut [f64; 2]) -> Vec<Scalar> {
    let counts = |wanted| round.bytes.iter().filter(move |count| count.direction == wanted);
    let [up, down] =
        [Direction::Up, Direction::Down].map(|way| counts(way).map(|count| count.payload).sum::<u64>() as f64);
    so_far[0] += up + down;
    so_far[1] += round.client_flops;
    let figures = [
        ("accuracy", Some(round.accuracy)),
        ("macro_f1", Some(round.macro_f1)),
        ("loss", Some(round.loss)),
        ("train_loss", Some(round.train_loss)),
        ("perplexity", round.perplexity),
        ("token_accuracy", round.token_accuracy),
        ("exact_match", round.exact_match),
        ("choices_accuracy", round.choices_accuracy),
        ("client_mean_accuracy", round.client_mean_accuracy),
        ("payload_bytes/up", Some(up)),
        ("payload_bytes/down", Some(down)),
        ("payload_bytes/total", Some(so_far[0])),
        ("client_flops/round", Some(round.client_flops)),
        ("client_flops/total", Some(so_far[1])),
        ("seconds", Some(round.seconds)),
    ];
    figures.into_iter().filter_map(|(tag, figure)| Some(scalar(tag, figure?))).collect()
}

fn scalar(tag: &str, figure: f64) -> Scalar {
    Scalar { tag: tag.to_owned(), simple_value: Some(figure as f32) }
}

fn record(event: &Event) -> Vec<u8> {
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), &data, &checksum(&data)].concat()
}

/// CRC-32C, rotated and moved, so that a file whose records hold records does not meet its own checksums.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    /// Golden: the bytes of `tensorboard.summary.writer.record_writer.RecordWriter` for the same two events.
    #[test]
    fn records_are_those_that_tensorboard_writes() {
        let version = Event { wall_time: 1.5, file_version: Some(VERSION.to_owned()), ..Event::default() };
        let value = vec![scalar("loss", 0.25), scalar("accuracy", 0.5)];
        let scalars = Event { wall_time: 2.5, step: 3, summary: Some(Summary { value }), file_version: None };
        let written = [record(&version), record(&scalars)].concat();
        let golden = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c2b0000000000000\
                      0861bc34b09000000000000044010032a1e0a0b0a046c6f7373150000803e0a0f0a0861636375726163791500\
                      00003f1f22b19c";
        assert_eq!(fedtune_crds::hex(&written), golden);
    }

    #[test]
    fn every_round_is_a_step_with_its_figures_and_the_sums_so_far() {
        let folder = tempfile::tempdir().unwrap();
        let (report, ended) = (samples::fedllm(), UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        write(&report, folder.path(), ended).unwrap();
        let run = folder.path().join("mail-fedllm");
        let names: Vec<_> = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // Three rounds of 41.5 seconds each before its end.
        assert_eq!(names, ["events.out.tfevents.1699999875.fedtune"]);
        let bytes = fs::read(run.join(&names[0])).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*length) as usize;
            events.push(Event::decode(&after[4..4 + length]).unwrap());
            rest = &after[8 + length..];
        }
        assert_eq!(events.iter().map(|event| event.step).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let last = events[3].summary.clone().unwrap().value;
        let of = |tag: &str| last.iter().find(|scalar| scalar.tag == tag).unwrap().simple_value.unwrap();
        assert!((of("accuracy") - 0.864).abs() < 1e-6 && (of("loss") - 0.36).abs() < 1e-6);
        assert!((f64::from(of("payload_bytes/total")) - report.totals.payload_bytes.sum() as f64).abs() < 1.0);
    }

    #[test]
    fn a_run_that_is_done_again_leaves_one_file() {
        let folder = tempfile::tempdir().unwrap();
        for seconds in [1_700_000_000, 1_700_001_000] {
            write(&samples::kd(), folder.path(), UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        }
        assert_eq!(fs::read_dir(folder.path().join("mail-kd")).unwrap().count(), 1);
    }
}
