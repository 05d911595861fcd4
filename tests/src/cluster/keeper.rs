//! The harness' end of the process that keeps its cluster.
//! Must not start parts itself: a test that is killed could not end them.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::{
    enclosure::Number,
    orders::{Answer, Order, Part},
};
use crate::program::built;

/// A keeper that has been started; when it is dropped, or the test is killed, it ends its parts.
#[derive(Debug)]
pub(super) struct Keeper {
    child: Child,
    /// Taken when it is dropped: its end is what the keeper waits for.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    is_detached: bool,
}

impl Keeper {
    /// Starts a keeper for the cluster in `folder`.
    pub(super) fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[], Stdio::inherit())
    }

    /// Starts a keeper whose parts have an enclosure to themselves, and gives its number. What goes wrong at the end it
    /// says to `errors`.
    pub(super) fn start_enclosed(folder: &Path, errors: Stdio) -> (Self, Number) {
        let mut keeper = Self::start_with(folder, &["--enclosed"], errors);
        let Answer::Enclosed(number) = keeper.listen() else { panic!("an enclosure's number is its first answer") };
        (keeper, Number(number))
    }

    /// A terminal's Ctrl-C is not for it: it ends after the test.
    fn start_with(folder: &Path, flags: &[&str], errors: Stdio) -> Self {
        let mut command = Command::new(program());
        command.arg("keep").args(flags).arg(folder).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(errors);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, orders, answers, is_detached: false }
    }

    /// Starts a part.
    pub(super) fn start_part(&mut self, part: Part) {
        let name = part.name.clone();
        let answer = self.ask(&Order::Start(part));
        assert_eq!(answer, Answer::Done, "{name} cannot be started");
    }

    /// How a part ended; none where it runs.
    pub(super) fn end_of(&mut self, part: &str) -> Option<String> {
        match self.ask(&Order::Ask(part.to_owned())) {
            Answer::Done => None,
            Answer::Ended(how) => Some(how),
            answer @ (Answer::Refused(_) | Answer::Enclosed(_)) => panic!("{part}: {answer:?}"),
        }
    }

    /// Does something and waits until it is done; fails the test where it cannot be.
    pub(super) fn order(&mut self, order: &Order) {
        self.try_order(order).unwrap_or_else(|why| panic!("a cluster's keeper cannot do {order:?}: {why}"));
    }

    /// Does something and waits until it is done, or says why it cannot be.
    pub(super) fn try_order(&mut self, order: &Order) -> Result<(), String> {
        match self.ask(order) {
            Answer::Refused(why) => Err(why),
            Answer::Done | Answer::Ended(_) | Answer::Enclosed(_) => Ok(()),
        }
    }

    /// Lets it go on alone, and gives the process that ends it on SIGTERM.
    pub(super) fn detach(&mut self) -> u32 {
        self.order(&Order::Detach);
        self.is_detached = true;
        self.child.id()
    }

    /// Runs a program where the parts run.
    pub(super) fn run(&mut self, program: impl Into<PathBuf>, arguments: &[&str]) {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.order(&Order::Run(program.into(), arguments));
    }

    fn ask(&mut self, order: &Order) -> Answer {
        let line = serde_json::to_string(order).expect("an order is plain data");
        let orders = self.orders.as_mut().expect("it is there until the drop");
        writeln!(orders, "{line}").expect("a keeper listens as long as its harness speaks");
        self.listen()
    }

    fn listen(&mut self) -> Answer {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("a pipe can be read");
        assert!(!answer.is_empty(), "the cluster's keeper has ended");
        serde_json::from_str(&answer).expect("a keeper's answer is one of ours")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.is_detached {
            return;
        }
        drop(self.orders.take());
        // What it could not clean it has said on standard error.
        let _ = self.child.wait();
    }
}

/// The program beside this test, or this program itself.
fn program() -> PathBuf {
    let this = env::current_exe().expect("a program has a path");
    if this.file_name().is_some_and(|name| name == "fedtune-cluster") { this } else { built("fedtune-cluster") }
}
