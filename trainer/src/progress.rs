//! Shows a run to the person who waits for it: bars on a terminal, lines in a pipe, tracing events for machines.
//! Must not write to standard output, which belongs to the result, nor slow the run that it shows.

mod bars;
mod lines;
mod traced;

use std::{ffi::OsStr, io};

use indicatif::MultiProgress;

use crate::events::Events;

/// How progress is shown.
#[derive(Debug, Clone)]
pub enum ProgressMode {
    /// Bars that redraw themselves on `screen`; logs must be written through the same one.
    Bars {
        /// Where the bars are.
        screen: MultiProgress,
        /// Whether escape codes for colour may be used.
        colour: bool,
    },
    /// A line of plain text now and then.
    Lines,
    /// A tracing event, with fields, for each event: JSON logs write it as an object.
    Json,
    /// Nothing.
    Silent,
}

impl ProgressMode {
    /// What fits: events where logs are JSON, bars where standard error is a terminal, lines where it is not.
    pub fn fitting(json_logs: bool, stderr_is_terminal: bool, no_color: Option<&OsStr>) -> Self {
        match (json_logs, stderr_is_terminal) {
            (true, _) => Self::Json,
            (false, true) => Self::Bars { screen: MultiProgress::new(), colour: colour_wanted(true, no_color) },
            (false, false) => Self::Lines,
        }
    }

    /// The bars that text logs must not write over.
    pub fn screen(&self) -> Option<&MultiProgress> {
        match self {
            Self::Bars { screen, .. } => Some(screen),
            Self::Lines | Self::Json | Self::Silent => None,
        }
    }
}

/// Whether to colour: on a terminal, unless `NO_COLOR` is set and not empty (<no-color.org>).
pub fn colour_wanted(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// A listener that shows what it hears in this way, on standard error.
pub fn listener(mode: ProgressMode) -> Events {
    match mode {
        ProgressMode::Bars { screen, colour } => bars::listener(screen, colour),
        ProgressMode::Lines => lines::listener(io::stderr()),
        ProgressMode::Json => Events::to(traced::trace),
        ProgressMode::Silent => Events::silent(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gets_lines_a_terminal_bars_and_json_logs_events() {
        assert!(matches!(ProgressMode::fitting(false, false, None), ProgressMode::Lines));
        assert!(matches!(ProgressMode::fitting(false, true, None), ProgressMode::Bars { colour: true, .. }));
        assert!(matches!(ProgressMode::fitting(true, true, None), ProgressMode::Json));
    }

    #[test]
    fn no_color_counts_only_where_it_is_not_empty() {
        assert!(!colour_wanted(true, Some(OsStr::new("1"))));
        assert!(colour_wanted(true, Some(OsStr::new(""))));
        assert!(!colour_wanted(false, None));
    }
}
