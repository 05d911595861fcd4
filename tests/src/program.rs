//! The `fedtune` program: built once, started as a user does, waited for.
//! Must not wait for ever: a program that hangs is killed, and what it said is in the panic.

use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    mem,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// What any one process may take; far more than it needs, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// The program under test: `FEDTUNE_PROGRAM` where that is set, else the workspace's own, built as this test was.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| env::var_os("FEDTUNE_PROGRAM").map_or_else(|| build("fedtune"), PathBuf::from))
}

/// The operator under test: the workspace's own, built as this test was.
pub fn operator() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| env::var_os("FEDTUNE_OPERATOR").map_or_else(|| build("fedtune-operator"), PathBuf::from))
}

/// The plugin of kubectl: the workspace's own, built as this test was.
pub fn plugin() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| build("kubectl-fedtune"))
}

/// A program of this package, which cargo has built beside this test.
pub(crate) fn built(name: &str) -> PathBuf {
    let program = folder().join(name);
    if program.is_file() { program } else { build(name) }
}

/// Where programs lie that were built as this one was. A test lies deeper, in `deps`.
fn folder() -> PathBuf {
    let this = env::current_exe().expect("a program has a path");
    let beside = this.parent().expect("a program lies in a folder");
    let above = beside.parent().filter(|_| beside.ends_with("deps"));
    above.unwrap_or(beside).to_owned()
}

/// Cargo builds another package's program for no test, so an older one may lie there: it is brought up to date first.
fn build(name: &str) -> PathBuf {
    let folder = folder();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--workspace", "--bin", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let built = build.output().expect("cargo, which started this test, can be started again");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "the program under test does not build:\n{said}");
    let program = folder.join(name);
    assert!(program.is_file(), "there is no {}; name the program to test in FEDTUNE_PROGRAM", program.display());
    program
}

/// What a process left when it ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// Fails the test unless the process ended well.
    #[must_use]
    pub fn well(self) -> Self {
        assert_eq!(self.code, Some(0), "it should have ended well: {self:#?}");
        self
    }
}

/// A process that has been started; killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// Of standard error, what has been waited for.
    said: String,
}

impl Running {
    /// Starts `command` with both outputs caught.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let stdout = read_lines(child.stdout.take().expect("it is piped"));
        let stderr = read_lines(child.stderr.take().expect("it is piped"));
        Self { child, stdout, stderr, said: String::new() }
    }

    /// Waits until the process ends.
    pub fn wait(self) -> Ended {
        self.wait_within(LIMIT)
    }

    /// Waits until the process ends, for so long. Outputs end with it, so no clock has to be watched.
    pub fn wait_within(mut self, limit: Duration) -> Ended {
        let deadline = Instant::now() + limit;
        while self.read_line(deadline).is_some() {}
        let stdout = self.stdout.iter().collect();
        let status = self.child.wait().expect("a child can be waited for");
        Ended { code: status.code(), stdout, stderr: mem::take(&mut self.said) }
    }

    /// Waits until the process says a line on standard error that has all of these words, and gives that line.
    pub fn wait_for(&mut self, words: &[&str]) -> String {
        let deadline = Instant::now() + LIMIT;
        while let Some(line) = self.read_line(deadline) {
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
        }
        panic!("a process ended without a line with {words:?}; it said:\n{}", self.said);
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, as in `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(sent.expect("there is a shell").success(), "a process cannot be sent SIG{name}");
    }

    /// The next line of standard error; none where that has ended.
    fn read_line(&mut self, deadline: Instant) -> Option<String> {
        match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.said.push_str(&line);
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("a process took too long; it said:\n{}", self.said),
        }
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is past killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines with their ends, as they come.
fn read_lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).expect("a pipe can be read") > 0 {
            // A test that has failed no longer listens.
            let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    });
    receiver
}
