//! A client's way to its server: again and again, with pauses that grow and differ from client to client.
//! Must not give up before its patience ends on anything that a restarted server would mend.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::Dial;
use crate::{
    random::{Key, Site, Stream},
    wire::{
        Line,
        client::{ConnectError, ConnectOptions, connect},
    },
};

/// First pause between two attempts; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Dials one server.
#[derive(Debug)]
pub struct Dialer {
    url: String,
    options: ConnectOptions,
    pause: Duration,
    /// Spreads the clients of a server that comes back.
    jitter: Stream,
    /// Since when no server has let this client in; nothing while it has a session.
    alone_since: Option<Instant>,
}

impl Dialer {
    /// For the server at `url`; `incarnation` decides the jitter.
    pub fn new(url: &str, options: ConnectOptions, incarnation: u64) -> Self {
        let jitter = Key { seed: incarnation, ..Key::default() }.stream(Site::Backoff);
        Self { url: url.to_owned(), options, pause: FIRST_PAUSE, jitter, alone_since: None }
    }

    /// A pause between half and one and a half of the current one, which doubles.
    fn rest(&mut self) {
        thread::sleep(self.pause.mul_f32(0.5 + self.jitter.unit()));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn is_patient(&self) -> bool {
        let alone = self.alone_since.map_or(Duration::ZERO, |since| since.elapsed());
        alone + self.pause < self.options.patience
    }
}

impl Dial for Dialer {
    fn open(&mut self, trouble: Option<&str>) -> Result<Box<dyn Line>, ConnectError> {
        let patience = self.options.patience;
        self.alone_since.get_or_insert_with(Instant::now);
        if let Some(trouble) = trouble {
            if !self.is_patient() {
                let (url, reason) = (self.url.clone(), trouble.to_owned());
                return Err(ConnectError::Unreachable { url, patience, reason });
            }
            tracing::warn!(reason = trouble, "the session ended; trying again");
            self.rest();
        }
        loop {
            let once = ConnectOptions { patience: Duration::ZERO, ..self.options.clone() };
            match connect(&self.url, &once) {
                Ok(link) => return Ok(Box::new(link)),
                Err(ConnectError::Unreachable { .. } | ConnectError::Distrusted { .. }) if self.is_patient() => {
                    self.rest();
                }
                Err(ConnectError::Unreachable { url, reason, .. }) => {
                    return Err(ConnectError::Unreachable { url, patience, reason });
                }
                Err(ConnectError::Distrusted { url, reason, .. }) => {
                    return Err(ConnectError::Distrusted { url, patience, reason });
                }
                Err(
                    error @ (ConnectError::Address { .. }
                    | ConnectError::NoPapers { .. }
                    | ConnectError::PlainText { .. }
                    | ConnectError::Refused { .. }),
                ) => return Err(error),
            }
        }
    }

    fn held(&mut self) {
        self.pause = FIRST_PAUSE;
        self.alone_since = None;
    }
}
