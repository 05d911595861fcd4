//! The last words of a process, in the file that the kubelet copies into the pod's status.
//! Must not fail what it tells of: a file that cannot be written is a warning.

use std::{fs, path::Path};

use fedtune_crds::live::LiveStatus;

/// Bytes of the last words, at most; the kubelet keeps the last 4,096.
pub const BYTES: usize = 3 << 10;

/// Writes the final figures of a run, as JSON.
pub fn write_summary(path: &Path, status: &LiveStatus) {
    write(path, &summary(status));
}

/// Writes why the process cannot go on, as a sentence.
pub fn write_error(path: &Path, sentence: &str) {
    write(path, cut(sentence, BYTES));
}

/// The figures as JSON that is whole: where it is too long the message is what is shortened.
fn summary(status: &LiveStatus) -> String {
    let json = |status: &LiveStatus| serde_json::to_string(status).expect("a status is text and numbers");
    let whole = json(status);
    if whole.len() <= BYTES {
        return whole;
    }
    // Escapes make six bytes of one.
    let message = cut(&status.message, status.message.len().saturating_sub(whole.len() - BYTES) / 6).to_owned();
    json(&LiveStatus { message, ..status.clone() })
}

/// In place: a kubelet mounts this one file, which so cannot be replaced by another.
fn write(path: &Path, text: &str) {
    match fs::write(path, text) {
        Ok(()) => tracing::info!(file = %path.display(), "the termination message is written"),
        Err(error) => tracing::warn!(file = %path.display(), %error, "the termination message cannot be written"),
    }
}

/// The first `bytes` bytes of a text, or fewer where that would cut a character.
pub fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use fedtune_crds::{
        live::{LivePhase, moment},
        report::UpDown,
    };

    use super::*;

    fn status(message: String) -> LiveStatus {
        LiveStatus {
            uid: "0".repeat(36),
            epoch: u64::MAX,
            seq: u64::MAX,
            phase: LivePhase::Succeeded,
            round: u32::MAX,
            rounds: u32::MAX,
            clients_ready: u32::MAX,
            clients: u32::MAX,
            accuracy: Some(0.123_456_789_012_345_67),
            loss: Some(1.234_567_890_123_456_7e-300),
            payload_bytes: u64::MAX,
            payload: UpDown { up: u64::MAX, down: u64::MAX },
            wire: UpDown { up: u64::MAX, down: u64::MAX },
            client_flops: 1.234_567_890_123_456_7e300,
            client_seconds: 1.234_567_890_123_456_7e300,
            eta_seconds: Some(0.0),
            waiting_for: vec!["silo-silo-si/9999".to_owned(); LiveStatus::NAMED],
            since: moment(UNIX_EPOCH),
            stop_reason: Some("maxClientFlops".to_owned()),
            message,
        }
    }

    #[test]
    fn a_text_is_cut_where_a_character_ends() {
        assert_eq!(cut("naïve", 3), "na");
        assert_eq!(cut("naïve", 4), "naï");
        assert_eq!((cut("naïve", 99), cut("ï", 1), cut("", 5)), ("naïve", "", ""));
    }

    #[test]
    fn the_longest_summary_fits_and_is_whole() {
        for letter in ['x', 'ß', '"', '\u{1}'] {
            let status = status(String::from(letter).repeat(1024 / letter.len_utf8()));
            let text = summary(&status);
            assert!(text.len() <= BYTES, "{} bytes", text.len());
            let read: LiveStatus = serde_json::from_str(&text).unwrap();
            assert!(status.message.starts_with(&read.message));
            assert_eq!(read.loss.unwrap().to_string(), status.loss.unwrap().to_string());
        }
    }

    #[test]
    fn a_long_error_keeps_its_begin() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_error(file.path(), &format!("a{}", "ß".repeat(BYTES)));
        let text = fs::read_to_string(file.path()).unwrap();
        assert_eq!(text.len(), BYTES - 1);
        assert!(text.starts_with("aß"));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_no_failure() {
        let folder = tempfile::tempdir().unwrap();
        write_error(&folder.path().join("not-there/log"), "a sentence");
        assert!(!folder.path().join("not-there").exists());
    }
}
