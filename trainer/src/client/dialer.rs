//! A client's way to its server: again and again, with pauses that grow and differ from client to client.
//! Must not give up before its patience ends on anything that a restarted server would mend.

use std::{
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tracing::warn;

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

/// Why there is no session, and no further attempt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DialError {
    /// What no attempt would mend.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What another attempt might have mended.
    #[error("{last}; gave up after {} s", patience.as_secs())]
    GaveUp {
        /// How long no server let this client in.
        patience: Duration,
        /// What the last attempt came to.
        last: ConnectError,
    },
}

/// Dials one server.
#[derive(Debug)]
pub struct Dialer {
    url: String,
    options: ConnectOptions,
    /// How long to wait for a server that does not answer, or is not trusted, before giving up.
    patience: Duration,
    pause: Duration,
    /// Spreads the clients of a server that comes back.
    jitter: Stream,
    /// Since when no server has let this client in; nothing while it has a session.
    alone_since: Option<Instant>,
    /// The server that is not trusted is spoken of once.
    distrusted: Option<ConnectError>,
}

impl Dialer {
    /// For the server at `url`, which may be away for `patience`; `incarnation` decides the jitter.
    pub fn new(url: &str, options: ConnectOptions, patience: Duration, incarnation: u64) -> Self {
        let jitter = Key { seed: incarnation, ..Key::default() }.stream(Site::Backoff);
        let url = url.to_owned();
        Self { url, options, patience, pause: FIRST_PAUSE, jitter, alone_since: None, distrusted: None }
    }

    /// A pause between half and one and a half of the current one, which doubles.
    fn rest(&mut self) {
        thread::sleep(self.pause.mul_f32(0.5 + self.jitter.unit()));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn is_patient(&self) -> bool {
        let alone = self.alone_since.map_or(Duration::ZERO, |since| since.elapsed());
        alone + self.pause < self.patience
    }

    /// Rests before another attempt, or gives up.
    fn rest_after(&mut self, last: ConnectError) -> Result<(), DialError> {
        if !self.is_patient() {
            return Err(DialError::GaveUp { patience: self.patience, last });
        }
        if matches!(last, ConnectError::Distrusted { .. }) && self.distrusted.as_ref() != Some(&last) {
            warn!("{last}; trying again");
            self.distrusted = Some(last);
        }
        self.rest();
        Ok(())
    }
}

impl Dial for Dialer {
    fn open(&mut self, trouble: Option<&str>) -> Result<Box<dyn Line>, DialError> {
        self.alone_since.get_or_insert_with(Instant::now);
        if let Some(trouble) = trouble {
            warn!(reason = trouble, "the session ended; trying again");
            self.rest_after(ConnectError::Unreachable { url: self.url.clone(), reason: trouble.to_owned() })?;
        }
        loop {
            match connect(&self.url, &self.options) {
                Ok(link) => return Ok(Box::new(link)),
                Err(error) if error.is_passing() => self.rest_after(error)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn held(&mut self) {
        self.pause = FIRST_PAUSE;
        self.alone_since = None;
        self.distrusted = None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};

    use super::*;
    use crate::{
        run::local::terms,
        wire::{Message, Subject, runtime, server::Listener},
    };

    const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    const PATIENCE: Duration = Duration::from_secs(60);

    fn dialer(address: SocketAddr, patience: Duration, runtime: &tokio::runtime::Runtime) -> Dialer {
        Dialer::new(&format!("http://{address}"), ConnectOptions::plain(terms("run"), runtime.handle()), patience, 1)
    }

    #[test]
    fn a_client_that_starts_first_waits_for_its_server() {
        let runtime = runtime().unwrap();
        // Hangs up once, as a port does whose program is just stopping, and then nobody is there.
        let early = TcpListener::bind(ANY_PORT).unwrap();
        let address = early.local_addr().unwrap();
        thread::scope(|scope| {
            let mut dialer = dialer(address, PATIENCE, &runtime);
            scope.spawn(move || dialer.open(None).unwrap().send(Message::new(Subject::Join, 0)).unwrap());
            drop(early.accept().unwrap());
            drop(early);
            let mut listener = Listener::bind(address, terms("run"), runtime.handle()).unwrap();
            let arrival = listener.accept_until(Instant::now() + PATIENCE).expect("the client joins");
            assert_eq!(arrival.join, Message::new(Subject::Join, 0));
        });
    }

    #[test]
    fn a_server_that_never_comes_and_one_that_never_comes_back_are_given_up_in_the_end() {
        let runtime = runtime().unwrap();
        let free = TcpListener::bind(ANY_PORT).unwrap().local_addr().unwrap();
        let sentence = |trouble| {
            let error = dialer(free, Duration::ZERO, &runtime).open(trouble).err().expect("nobody is there");
            error.to_string()
        };
        let url = format!("no server answers at http://{free}");
        assert_eq!(sentence(None), format!("{url}: Connection refused (os error 111); gave up after 0 s"));
        assert_eq!(sentence(Some("it broke")), format!("{url}: it broke; gave up after 0 s"));
    }

    #[test]
    fn what_no_attempt_would_mend_is_not_tried_again() {
        let runtime = runtime().unwrap();
        let mut dialer = dialer(ANY_PORT, PATIENCE, &runtime);
        "https://127.0.0.1:1".clone_into(&mut dialer.url);
        let error = dialer.open(None).err().expect("it has no certificate");
        assert_eq!(error, DialError::Connect(ConnectError::NoPapers { url: dialer.url.clone() }));
    }
}
