//! Server and clients of a run, killed at chosen moments and started again at once with the same command.
//! Must not look into the processes: what it knows of them is what they log.

use std::{
    collections::VecDeque,
    fmt::Write,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::{self, Child, ChildStderr, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::Bench;

/// How long nothing may be heard, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// After so long without a word a server that is finished is started again for those who were not told.
const UNTOLD: Duration = Duration::from_secs(3);

/// Lines of each process that a failure quotes.
const QUOTED: usize = 25;

/// The server among the processes; client `n` is `n + 1`.
const SERVER: usize = 0;

/// Which kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The server.
    Server,
    /// A client.
    Client,
}

/// A phase of the protocol, as the processes log it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Phase {
    /// Who logs it.
    pub side: Side,
    /// Its name.
    pub name: &'static str,
    /// In which exchange of the round.
    pub exchange: u64,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// The one that logged the phase.
    Speaker,
    /// The server, whoever logged it.
    Server,
    /// Server and clients.
    All,
}

/// A kill.
#[derive(Debug, Clone, Copy)]
pub struct Kill {
    /// When this phase is logged...
    pub phase: Phase,
    /// ...in this round or a later one...
    pub from_round: u64,
    /// ...and so much time has passed...
    pub delay: Duration,
    /// ...this one gets a SIGKILL.
    pub whom: Whom,
    /// Whether the speaker's round states are deleted before it starts again.
    pub forgets: bool,
}

/// A run under siege.
#[derive(Debug)]
pub struct Siege<'a> {
    bench: &'a Bench,
    /// Names the run in every failure.
    what: String,
    /// The commands, the server's first.
    commands: Vec<Vec<String>>,
    /// Where client `n` keeps its round states, below the bench.
    states: Vec<String>,
    processes: Vec<Process>,
    lines: Receiver<Line>,
    sender: Sender<Line>,
    starts: u64,
    finished_servers: usize,
}

#[derive(Debug)]
struct Process {
    /// Tells it from those before it.
    start: u64,
    child: Child,
    said: VecDeque<String>,
    ended_well: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is past killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line of a process; none when its output has ended.
struct Line {
    who: usize,
    start: u64,
    text: Option<String>,
}

/// A process logged a phase.
struct Heard {
    who: usize,
    phase: Value,
}

impl<'a> Siege<'a> {
    /// Starts the server of `spec` with results below `<out>/`, and its clients; each gets `sets`.
    pub fn begin(bench: &'a Bench, what: String, spec: &str, out: &str, clients: &[&str], sets: &[&str]) -> Self {
        let (address, (sender, lines)) = (quiet_address(), mpsc::channel());
        let url = format!("http://{address}");
        let log = ["--log", "fedtune=debug", "--log-format", "json"];
        let mut commands = vec![[&["server", spec, "--listen", &address, "--out", out], &log[..], sets].concat()];
        let states: Vec<String> = (0..clients.len()).map(|number| format!("states-{out}-{number}")).collect();
        for (id, state) in clients.iter().zip(&states) {
            let own = ["client", spec, "--client", id, "--server", &url, "--out", out, "--state", state];
            commands.push([&own[..], &["--patience", "120"], &log, sets].concat());
        }
        let commands: Vec<Vec<String>> =
            commands.iter().map(|words| words.iter().map(|word| (*word).to_owned()).collect()).collect();
        let processes = Vec::new();
        let mut siege =
            Self { bench, what, commands, states, processes, lines, sender, starts: 0, finished_servers: 0 };
        for who in 0..siege.commands.len() {
            let process = siege.start(who);
            siege.processes.push(process);
        }
        siege
    }

    /// Does these kills, one after another; says how many processes each of them hit.
    pub fn strike_all(&mut self, kills: &[Kill]) -> Vec<usize> {
        kills.iter().map(|kill| self.wait_and_strike(kill)).collect()
    }

    /// Waits for the kill's moment and does it; where all of its victims have ended by themselves, waits for the next.
    fn wait_and_strike(&mut self, kill: &Kill) -> usize {
        loop {
            let Some(speaker) = self.wait_for(kill) else { return 0 };
            let hit = self.strike(kill, speaker);
            if hit > 0 {
                return hit;
            }
        }
    }

    /// Who logged the kill's phase; none where the run ended before.
    fn wait_for(&mut self, kill: &Kill) -> Option<usize> {
        let Phase { side, name, exchange } = kill.phase;
        while !self.clients_ended() {
            let Some(heard) = self.hear(LIMIT) else {
                self.fail(&format!("nothing was heard while waiting for {kill:?}"))
            };
            let number = |field: &str| heard.phase[field].as_u64();
            let is_side = (heard.who == SERVER) == (side == Side::Server);
            let is_exchange = number("exchange").unwrap_or(0) == exchange;
            let is_late = number("round").unwrap_or(u64::MAX) >= kill.from_round;
            if is_side && heard.phase["phase"] == name && is_exchange && is_late {
                self.hold(kill.delay);
                return Some(heard.who);
            }
        }
        None
    }

    /// Goes on listening for so long, but not past the server's farewell: soon nobody is left to be killed.
    fn hold(&mut self, delay: Duration) {
        let until = Instant::now() + delay;
        while let Some(heard) = self.hear(until.saturating_duration_since(Instant::now())) {
            if heard.phase["phase"] == "farewell" {
                return;
            }
        }
    }

    /// Kills and starts again; how many were still there to be killed.
    fn strike(&mut self, kill: &Kill, speaker: usize) -> usize {
        let victims = match kill.whom {
            Whom::Speaker => vec![speaker],
            Whom::Server => vec![SERVER],
            Whom::All => (0..self.processes.len()).collect(),
        };
        // All of them before any is started again.
        let hit: Vec<usize> = victims.into_iter().filter(|who| self.kill(*who)).collect();
        if kill.forgets {
            let states = self.bench.path(&self.states[speaker - 1]);
            fs::remove_dir_all(states).expect("a client has a folder of round states");
        }
        for who in &hit {
            self.processes[*who] = self.start(*who);
        }
        hit.len()
    }

    /// Whether it was killed; one that has ended by itself is judged by its exit code.
    fn kill(&mut self, who: usize) -> bool {
        let process = &mut self.processes[who];
        if process.ended_well {
            return false;
        }
        process.child.kill().expect("a child may be killed");
        let status = process.child.wait().expect("a child can be waited for");
        match status.code() {
            None => true,
            Some(0) => {
                self.ended_well(who);
                false
            }
            Some(_) => self.fail(&format!("process {who} ended with {status}")),
        }
    }

    /// Waits for the end of the run, in which every process ended well.
    pub fn end(mut self) {
        while !self.clients_ended() {
            if self.hear(UNTOLD).is_none() && self.processes[SERVER].ended_well {
                assert!(self.finished_servers < 5, "{}: clients are never told of the end", self.what);
                self.processes[SERVER] = self.start(SERVER);
            }
        }
        // One that was started again after the end waits for clients who know already.
        let until = Instant::now() + if self.finished_servers > 0 { Duration::ZERO } else { UNTOLD };
        while !self.processes[SERVER].ended_well && Instant::now() < until {
            self.hear(until.saturating_duration_since(Instant::now()));
        }
    }

    fn clients_ended(&self) -> bool {
        self.processes.iter().skip(SERVER + 1).all(|process| process.ended_well)
    }

    fn ended_well(&mut self, who: usize) {
        self.finished_servers += usize::from(who == SERVER);
        self.processes[who].ended_well = true;
    }

    /// The next phase that is logged, within `patience`.
    fn hear(&mut self, patience: Duration) -> Option<Heard> {
        let until = Instant::now() + patience;
        loop {
            let line = match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => unreachable!("this holds a sender itself"),
            };
            let Line { who, start, text } = line;
            let process = &mut self.processes[who];
            if process.start != start {
                continue;
            }
            let Some(text) = text else {
                let status = process.child.wait().expect("a child can be waited for");
                if !status.success() {
                    self.fail(&format!("process {who} ended with {status}"));
                }
                if !process.ended_well {
                    self.ended_well(who);
                }
                // So that whoever waits for an end looks again.
                return Some(Heard { who, phase: Value::Null });
            };
            process.said.push_back(text.clone());
            if process.said.len() > QUOTED {
                process.said.pop_front();
            }
            match serde_json::from_str::<Value>(&text) {
                Ok(phase) if phase["phase"].is_string() => return Some(Heard { who, phase }),
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn start(&mut self, who: usize) -> Process {
        self.starts += 1;
        let arguments: Vec<&str> = self.commands[who].iter().map(String::as_str).collect();
        let mut command = self.bench.command(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let (start, sender) = (self.starts, self.sender.clone());
        let stderr = child.stderr.take().expect("it is piped");
        thread::spawn(move || pass_on(stderr, who, start, &sender));
        Process { start, child, said: VecDeque::new(), ended_well: false }
    }

    fn fail(&self, why: &str) -> ! {
        let mut text = format!("{}: {why}\n", self.what);
        for (who, process) in self.processes.iter().enumerate() {
            let said: Vec<&str> = process.said.iter().map(String::as_str).collect();
            writeln!(text, "process {who}, start {}, last said:\n{}\n", process.start, said.join("\n"))
                .expect("a String takes all that is written");
        }
        panic!("{text}");
    }
}

fn pass_on(stderr: ChildStderr, who: usize, start: u64, sender: &Sender<Line>) {
    // A process that is killed may leave half a line.
    let texts = BufReader::new(stderr).split(b'\n').map_while(Result::ok);
    let texts = texts.map(|bytes| Some(String::from_utf8_lossy(&bytes).into_owned()));
    for text in texts.chain([None]) {
        // A test that has failed no longer listens.
        if sender.send(Line { who, start, text }).is_err() {
            return;
        }
    }
}

/// An address that nothing listens on, and that no outgoing connection takes while a server is away: it lies below the
/// ports that are given out.
pub fn quiet_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let number = (process::id() as u16).wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let address = format!("127.0.0.1:{}", 12_000 + number % 20_000);
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}
