//! The process that keeps a cluster: it starts the parts, and ends them all when the test that asked for them is gone.
//! Must not outlive its harness unless it is told to: the end of its standard input is the end of the cluster.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use super::{
    enclosure,
    orders::{Answer, Order, Part},
};

/// Exists in a cluster's folder when what its parts wrote is to be kept.
pub(super) const FAILED: &str = "failed";
/// What is kept then, besides.
const WORTH_KEEPING: [&str; 3] = [FAILED, "log", "kubeconfig"];

/// Keeps the cluster of `folder` until its harness is gone; then nothing of it is left, but the logs of a failed test.
pub fn keep(folder: &Path) -> io::Result<()> {
    let kept = keep_parts(folder);
    sweep(folder)?;
    kept
}

/// The same, with all parts in an enclosure of their own, whose number is the first answer.
pub fn keep_enclosed(folder: &Path) -> io::Result<()> {
    let claim = enclosure::claim(folder)?;
    let number = claim.number;
    let kept = enclosure::connect(number).and_then(|()| {
        say(&Answer::Enclosed(number.0))?;
        enclosure::keep_inside(number, folder)
    });
    claim.give_back()?;
    sweep(folder)?;
    kept
}

/// Starts and ends the parts, and leaves the folder.
pub fn keep_parts(folder: &Path) -> io::Result<()> {
    let mut keeper = Keeper { folder: folder.to_owned(), parts: BTreeMap::new() };
    let is_detached = keeper.obey()?;
    if is_detached {
        Signals::new([SIGTERM, SIGINT])?.forever().next();
    }
    keeper.end()
}

fn say(answer: &Answer) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(answer)?)?;
    stdout.flush()
}

struct Keeper {
    folder: PathBuf,
    parts: BTreeMap<String, Running>,
}

/// A part as it was started, which may have ended.
struct Running {
    part: Part,
    child: Child,
}

impl Keeper {
    /// Does what it is told, line by line, until there is no more; true where it is to go on alone.
    fn obey(&mut self) -> io::Result<bool> {
        for line in io::stdin().lock().lines() {
            let order = serde_json::from_str(&line?)?;
            let answer = self.answer(&order).unwrap_or_else(|error| Answer::Refused(error.to_string()));
            say(&answer)?;
            if order == Order::Detach {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn answer(&mut self, order: &Order) -> io::Result<Answer> {
        match order {
            Order::Start(part) => self.start(part),
            Order::Again(name) => {
                let part = self.running(name)?.part.clone();
                self.start(&part)
            }
            Order::Signal(name, signal) => {
                let process = self.running(name)?.child.id().to_string();
                run(Path::new("kill"), &[format!("-{signal}"), process])
            }
            Order::Await(name) => self.running(name)?.child.wait().map(|status| Answer::Ended(status.to_string())),
            Order::Ask(name) => {
                let status = self.running(name)?.child.try_wait()?;
                Ok(status.map_or(Answer::Done, |status| Answer::Ended(status.to_string())))
            }
            Order::Run(program, arguments) => run(program, arguments),
            Order::Detach => Ok(Answer::Done),
        }
    }

    /// In a process group of its own, so that a terminal's Ctrl-C is for the harness; killed when the keeper is.
    fn start(&mut self, part: &Part) -> io::Result<Answer> {
        let log = self.log(&part.name)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&part.program).args(&part.arguments);
        command.envs(&part.environment).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.parts.insert(part.name.clone(), Running { part: part.clone(), child: command.spawn()? });
        Ok(Answer::Done)
    }

    fn log(&self, name: &str) -> io::Result<File> {
        let folder = self.folder.join("log");
        fs::create_dir_all(&folder)?;
        OpenOptions::new().create(true).append(true).open(folder.join(format!("{name}.log")))
    }

    fn running(&mut self, name: &str) -> io::Result<&mut Running> {
        self.parts.get_mut(name).ok_or_else(|| io::Error::other(format!("{name} was never started")))
    }

    /// All at once: what they hold is thrown away.
    fn end(&mut self) -> io::Result<()> {
        for running in self.parts.values_mut() {
            running.child.kill()?;
        }
        self.parts.values_mut().try_for_each(|running| running.child.wait().map(drop))
    }
}

fn run(program: &Path, arguments: &[String]) -> io::Result<Answer> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(Answer::Done);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(Answer::Refused(format!("{} {}: {}", program.display(), arguments.join(" "), said.trim())))
}

/// Removes the folder, or what is not worth keeping of it.
fn sweep(folder: &Path) -> io::Result<()> {
    if !folder.join(FAILED).exists() {
        return fs::remove_dir_all(folder);
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if WORTH_KEEPING.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}
