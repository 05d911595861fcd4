//! SIGTERM and SIGINT: the program ends soon, with the exit code that shells know, and may be started again.
//! Must not wait for work that may take an hour: what counts is on the disk already, and the rest is done again.
//!
//! A server says to its clients that it stops. `fedtune run` and a client have nobody to tell: they end at once.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
    low_level,
};

use super::complain;
use crate::server::{Inbox, ServerError};

/// How long a server may take to stop: less than the 10 s that it is given.
const ORDERLY: Duration = Duration::from_secs(8);

/// What asks a program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// A supervisor.
    Term,
    /// A person at the keyboard.
    Int,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::Int => "SIGINT",
        }
    }

    /// The exit code: 128 and the signal's number, as a shell says it.
    pub(super) fn code(self) -> u8 {
        128 + self.number() as u8
    }

    fn number(self) -> i32 {
        match self {
            Self::Term => SIGTERM,
            Self::Int => SIGINT,
        }
    }

    fn of(number: i32) -> Option<Self> {
        [Self::Term, Self::Int].into_iter().find(|signal| signal.number() == number)
    }
}

/// The signals of this process, from now on.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    caught: Arc<OnceLock<Signal>>,
    /// The server that is to be stopped, where there is one.
    server: Arc<Mutex<Option<mpsc::Sender<Inbox>>>>,
}

impl Watch {
    /// Watches on a thread of its own.
    pub(super) fn begin() -> io::Result<Self> {
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let watch = Self::default();
        let watching = watch.clone();
        thread::spawn(move || signals.forever().filter_map(Signal::of).for_each(|signal| watching.obey(signal)));
        Ok(watch)
    }

    /// The first signal that came.
    pub(super) fn caught(&self) -> Option<Signal> {
        self.caught.get().copied()
    }

    /// Stops the server whose inbox this is, instead of ending at once.
    pub(super) fn stop_through(&self, inbox: mpsc::Sender<Inbox>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(inbox);
    }

    /// The first signal stops a server in order; one more, or a server that takes long, ends the process as it is.
    fn obey(&self, signal: Signal) {
        if self.caught.set(signal).is_err() || !self.stop_server(signal) {
            leave(signal);
        }
        thread::spawn(move || {
            thread::sleep(ORDERLY);
            leave(signal);
        });
    }

    /// Whether there is a server, which now knows that it must stop.
    fn stop_server(&self, signal: Signal) -> bool {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = Inbox::Stop(ServerError::Stopped(signal.name()));
        server.as_ref().is_some_and(|inbox| inbox.send(stop).is_ok())
    }
}

/// Ends the process without any clean-up, which other threads that still compute would not survive.
fn leave(signal: Signal) -> ! {
    low_level::exit(complain(ServerError::Stopped(signal.name()), signal.code()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_exit_codes_of_the_shell() {
        assert_eq!([Signal::Term, Signal::Int].map(Signal::code), [143, 130]);
        assert_eq!(Signal::of(SIGTERM), Some(Signal::Term));
        assert_eq!(Signal::of(1), None);
    }

    #[test]
    fn a_server_is_stopped_through_its_inbox() {
        let watch = Watch::default();
        assert!(!watch.stop_server(Signal::Term));
        let (sender, receiver) = mpsc::channel();
        watch.stop_through(sender);
        assert!(watch.stop_server(Signal::Int));
        assert!(matches!(receiver.try_recv(), Ok(Inbox::Stop(ServerError::Stopped("SIGINT")))));
    }
}
