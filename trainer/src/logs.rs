//! Sets up logging: text for people, JSON for machines, both on standard error.
//! Must not write over progress bars, and must not decide what is logged: that is the filter's.

use std::io::{self, Write};

use clap::ValueEnum;
use indicatif::MultiProgress;
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt, fmt::MakeWriter, fmt::format::FmtSpan};

/// The shape of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line to read.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// What is logged unless asked otherwise. In JSON, progress is logged too; in text, bars or lines show it.
    fn default_filter(self) -> &'static str {
        match self {
            Self::Text => "warn",
            Self::Json => "info",
        }
    }
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter has no meaning.
    #[error(
        "cannot read the log filter `{filter}`: {reason}; expected a level (error, warn, info, debug, trace) or module=level"
    )]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody was first.
    #[error("logging is set up already")]
    Twice,
}

/// Starts logging for the whole process. `filter` is `--log`, else `RUST_LOG`; lines go above the bars of `screen`.
pub fn start(
    format: LogFormat,
    filter: Option<&str>,
    colour: bool,
    screen: Option<&MultiProgress>,
) -> Result<(), LogError> {
    let writer = AboveBars { screen: screen.cloned() };
    tracing::subscriber::set_global_default(subscriber(format, filter, colour, writer)?).map_err(|_| LogError::Twice)
}

type Boxed = Box<dyn Subscriber + Send + Sync>;

fn subscriber<W>(format: LogFormat, filter: Option<&str>, colour: bool, writer: W) -> Result<Boxed, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt().with_env_filter(parse(format, filter)?).with_writer(writer).with_span_events(FmtSpan::NONE);
    Ok(match format {
        LogFormat::Text => Box::new(lines.with_ansi(colour).with_target(false).compact().finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).finish()),
    })
}

/// The filter, or a sentence that says what it should be.
fn parse(format: LogFormat, filter: Option<&str>) -> Result<EnvFilter, LogError> {
    let text = filter.filter(|text| !text.trim().is_empty()).unwrap_or(format.default_filter());
    EnvFilter::try_new(text).map_err(|error| LogError::Filter { filter: text.to_owned(), reason: error.to_string() })
}

/// Standard error, with the bars taken down for the moment of a line.
#[derive(Debug, Clone)]
struct AboveBars {
    screen: Option<MultiProgress>,
}

impl Write for AboveBars {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match &self.screen {
            Some(screen) => screen.suspend(|| io::stderr().write_all(line))?,
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for AboveBars {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{
        events::Event,
        progress::{self, ProgressMode},
    };

    /// A buffer that the test keeps a hold of.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(format: LogFormat, filter: Option<&str>, log: impl FnOnce()) -> String {
        let out = Shared::default();
        let writer = out.clone();
        let subscriber = subscriber(format, filter, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        out.text()
    }

    #[test]
    fn a_round_is_one_json_object_with_its_figures_as_numbers() {
        let text = logged(LogFormat::Json, None, || {
            let round =
                Event::RoundFinished { round: 2, accuracy: 0.82, loss: 0.44, payload_bytes: 812_304, seconds: 40.2 };
            progress::listener(ProgressMode::Json).tell(round);
        });
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["message"], "round finished");
        assert_eq!((&line["round"], &line["payload_bytes"]), (&2.into(), &812_304.into()));
        assert_eq!(line["accuracy"], 0.82);
    }

    #[test]
    fn text_logs_are_silent_below_a_warning_unless_asked() {
        let log = || {
            tracing::info!("listening");
            tracing::warn!(client = "silo-a/1", "late");
        };
        let plain = logged(LogFormat::Text, None, log);
        assert!(!plain.contains("listening") && plain.contains("WARN") && plain.contains("late"), "{plain}");
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(logged(LogFormat::Text, Some("info"), log).contains("listening"));
    }

    #[test]
    fn a_filter_without_meaning_is_refused_with_the_levels_there_are() {
        let error = parse(LogFormat::Text, Some("fedtune=loud")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read the log filter `fedtune=loud`: "), "{error}");
        assert!(error.contains("expected a level (error, warn, info, debug, trace)"), "{error}");
    }
}
