//! One program with everything that it starts: wall seconds, CPU seconds, peak memory.
//! Must not count another run's processes: each run's carry a mark of their own in their environment.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use serde_json::Value;

use crate::{contest::OWN_NETWORK, error::BenchError};

/// The variable whose value marks the processes of one run. A parent would not do: daemons change theirs.
const MARK: &str = "FEDTUNE_BENCH_RUN";

/// Between two looks at a run's processes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Clock ticks of `/proc/<pid>/stat` in a second: Linux shows this number to programs whatever its own clock.
const TICKS: f64 = 100.0;

/// What one run of a program took.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Taken {
    /// From its start to its end.
    pub wall_seconds: f64,
    /// Of all its processes together.
    pub cpu_seconds: f64,
    /// Most memory of all its processes at one moment, pages that several share counted once (Pss).
    pub peak_bytes: u64,
    /// Most processes at one moment.
    pub processes: usize,
    /// Cores that others kept busy meanwhile.
    pub others_cores: f64,
    /// The last line of JSON that it printed.
    pub said: Value,
}

/// Tells a process when it was started, in seconds since 1970.
const STARTED: &str = "FEDTUNE_BENCH_STARTED";

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Seconds since this process was started by [`measure`]; none where it was not.
pub(crate) fn seconds_since_start() -> Option<f64> {
    let started: f64 = std::env::var(STARTED).ok()?.parse().ok()?;
    Some(unix_seconds() - started)
}

/// Runs `command` to its end. Standard error is shown only where it fails.
pub(crate) fn measure(command: &mut Command, mark: &str) -> Result<Taken, BenchError> {
    let name = format!("{command:?}");
    let (started, busy_before) = (Instant::now(), busy_seconds());
    let mut child = command
        .env(MARK, mark)
        .env(STARTED, unix_seconds().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| BenchError::io(format!("{name} cannot be started"), error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = (thread::spawn(move || read_all(stdout)), thread::spawn(move || read_all(stderr)));
    let (stop, stopped) = mpsc::channel();
    let tree = Tree::marked(mark);
    let watcher = thread::spawn(move || tree.watch(&stopped));
    let status = child.wait().map_err(|error| BenchError::io(format!("{name} cannot be waited for"), error))?;
    let wall_seconds = started.elapsed().as_secs_f64();
    drop(stop);
    let tree = watcher.join().unwrap_or_default();
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    if !status.success() {
        let lines: Vec<&str> = stderr.lines().collect();
        let complaint = lines[lines.len().saturating_sub(20)..].join("\n");
        return Err(BenchError::Failed { command: name, status: status.to_string(), complaint });
    }
    let Some(said) = last_json(&stdout) else { return Err(BenchError::Silent { command: name }) };
    let cpu_seconds: f64 = tree.cpu.values().sum();
    Ok(Taken {
        wall_seconds,
        cpu_seconds,
        peak_bytes: tree.peak_bytes,
        processes: tree.processes,
        others_cores: ((busy_seconds() - busy_before - cpu_seconds) / wall_seconds).max(0.0),
        said,
    })
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_json(stdout: &str) -> Option<Value> {
    let mut objects = stdout.lines().rev().filter(|line| line.starts_with('{'));
    objects.find_map(|line| serde_json::from_str(line).ok())
}

/// What was seen of a run's processes so far.
#[derive(Debug, Default)]
struct Tree {
    mark: String,
    /// Whether a process, by its id and when it started, is one of this run.
    known: BTreeMap<(u32, u64), bool>,
    /// CPU seconds of each.
    cpu: BTreeMap<(u32, u64), f64>,
    peak_bytes: u64,
    processes: usize,
}

impl Tree {
    fn marked(mark: &str) -> Self {
        Self { mark: format!("{MARK}={mark}"), ..Self::default() }
    }

    /// Looks until the other end of the channel is gone.
    fn watch(mut self, stopped: &mpsc::Receiver<()>) -> Self {
        loop {
            self.look();
            if let Err(mpsc::RecvTimeoutError::Disconnected) = stopped.recv_timeout(LOOK_EVERY) {
                return self;
            }
        }
    }

    fn look(&mut self) {
        let (mut bytes, mut processes) = (0, 0);
        for id in process_ids() {
            let Some((started, cpu)) = stat(id) else { continue };
            if !self.is_ours(id, started) {
                continue;
            }
            self.cpu.insert((id, started), cpu);
            bytes += shared_once(id);
            processes += 1;
        }
        self.peak_bytes = self.peak_bytes.max(bytes);
        self.processes = self.processes.max(processes);
    }

    fn is_ours(&mut self, id: u32, started: u64) -> bool {
        if self.known.get(&(id, started)) == Some(&true) {
            return true;
        }
        // Not for good: between fork and exec a process has its parent's environment.
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        let ours = environment.split(|byte| *byte == 0).any(|entry| entry == self.mark.as_bytes());
        self.known.insert((id, started), ours);
        ours
    }
}

fn process_ids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// When a process started, in ticks since the machine did, and its CPU seconds.
fn stat(id: u32) -> Option<(u64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, which may hold anything, stands in parentheses; behind it is field 3.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some((ticks(22)?, (ticks(14)? + ticks(15)?) as f64 / TICKS))
}

/// Resident bytes of a process, its share of what it shares with others.
fn shared_once(id: u32) -> u64 {
    kibibytes(Path::new(&format!("/proc/{id}/smaps_rollup")), "Pss:") * 1024
}

fn kibibytes(path: &Path, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value.and_then(|value| value.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

/// Seconds that all cores together were busy since the machine started.
fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> =
        stat.lines().next().into_iter().flat_map(|line| line.split_whitespace().skip(1)).flat_map(str::parse).collect();
    // user, nice, system, idle, iowait, irq, softirq.
    [0, 1, 2, 5, 6].iter().filter_map(|&field| ticks.get(field)).sum::<f64>() / TICKS
}

/// CPU seconds of this process so far.
pub(crate) fn own_cpu_seconds() -> f64 {
    stat(std::process::id()).map_or(0.0, |(_, cpu)| cpu)
}

/// Bytes that went over loopback since this network namespace began; nothing where it holds others' too.
pub(crate) fn loopback_bytes() -> Option<u64> {
    std::env::var_os(OWN_NETWORK)?;
    let table = fs::read_to_string("/proc/net/dev").ok()?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_measured_with_what_it_starts() {
        let mut command = Command::new("sh");
        command.args(["-c", "(sleep 0.6 & sleep 0.6; wait); echo '{\"x\": 7}'; echo done"]);
        let taken = measure(&mut command, "a-test-with-children").unwrap();
        assert_eq!(taken.said["x"], 7);
        assert!(taken.processes >= 2, "{taken:?}");
        assert!(taken.peak_bytes > 100_000, "{taken:?}");
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let error = measure(&mut command, "a-test-that-fails").unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains('3'), "{error}");
    }
}
