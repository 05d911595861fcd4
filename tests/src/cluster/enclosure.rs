//! A network and a space of processes, mounts and control groups of a node's own, joined to this machine by one cable.
//! Must not need cleaning by whoever is inside: when the enclosure ends, the kernel ends all that is in it.

use std::{
    env,
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Where control groups are, for each controller (version 1) or for all (version 2).
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";
/// Enclosures that one machine may have at once.
const MOST: u8 = 100;
/// Where their locks are, each with the folder of its cluster.
const LOCKS: &str = "/run/fedtune";

/// The number of an enclosure, from which its names and addresses follow.
///
/// Addresses are from the block that is set aside for benchmarks of networks: nobody's network has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(pub(super) u8);

impl Number {
    /// Name of the network namespace, of this machine's end of the cable, and of the control groups.
    pub(super) fn name(self) -> String {
        format!("fedtune-{}", self.0)
    }

    /// Address of this machine, as the node sees it.
    pub(super) fn machine(self) -> String {
        format!("198.18.{}.1", self.0)
    }

    /// Address of the node.
    pub(super) fn node(self) -> String {
        format!("198.18.{}.2", self.0)
    }

    /// Where the node's pods have their addresses.
    pub(super) fn pods(self) -> String {
        format!("198.19.{}.0/24", self.0)
    }
}

/// A number that is this process' for as long as it holds its lock, however it ends.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) number: Number,
    lock: File,
}

impl Claim {
    /// Gives back what the kernel does not by itself, and the number last. The cluster's folder is its keeper's to sweep.
    pub(super) fn give_back(self) -> io::Result<()> {
        release(self.number)?;
        self.lock.set_len(0)
    }
}

/// Takes the first number that no living process has, for the cluster in `folder`. What an earlier one left behind, whose
/// keeper was killed, goes first.
pub(super) fn claim(folder: &Path) -> io::Result<Claim> {
    fs::create_dir_all(LOCKS)?;
    for number in (0..MOST).map(Number) {
        let path = Path::new(LOCKS).join(number.name());
        let lock = File::options().create(true).truncate(false).write(true).open(&path)?;
        if lock.try_lock().is_ok() {
            clear_away(number, Path::new(&fs::read_to_string(&path)?))?;
            fs::write(&path, folder.as_os_str().as_encoded_bytes())?;
            run("ip", &["netns", "add", &number.name()])?;
            return Ok(Claim { number, lock });
        }
    }
    Err(io::Error::other(format!("{MOST} clusters run on this machine already")))
}

/// The processes of an enclosure end with its keeper, and their mounts with them; names, groups and files do not.
fn clear_away(number: Number, folder: &Path) -> io::Result<()> {
    if Path::new("/run/netns").join(number.name()).exists() {
        release(number)?;
    }
    if folder.exists() { fs::remove_dir_all(folder) } else { Ok(()) }
}

/// Joins the enclosure's network to this machine's.
pub(super) fn connect(number: Number) -> io::Result<()> {
    let (name, machine, node, pods) = (number.name(), number.machine(), number.node(), number.pods());
    run("ip", &["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
    run("ip", &["address", "add", &format!("{machine}/30"), "dev", &name])?;
    run("ip", &["link", "set", &name, "up"])?;
    run("ip", &["route", "add", &pods, "via", &node])?;
    for inside in [
        &["link", "set", "lo", "up"][..],
        &["address", "add", &format!("{node}/30"), "dev", "eth0"],
        &["link", "set", "eth0", "up"],
        &["route", "add", "default", "via", &machine],
    ] {
        run("ip", &[&["-n", &name], inside].concat())?;
    }
    make_control_groups(&name)
}

/// Keeps the parts of the cluster in `folder`, inside of the enclosure.
pub(super) fn keep_inside(number: Number, folder: &Path) -> io::Result<()> {
    let mut command = Command::new("setpriv");
    // Each ends with the one before it, so that none is left when this process is killed.
    command.args(["--pdeathsig", "KILL", "--", "nsenter"]);
    command.arg(format!("--net=/run/netns/{}", number.name()));
    command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    let mut inside = command.arg(env::current_exe()?).args(["keep", "--inside"]).arg(folder).spawn()?;
    let process = inside.id().to_string();
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            // It may have ended by itself.
            let _ = run("kill", &["-KILL", &process]);
        }
    });
    inside.wait().map(drop)
}

/// Removes names and groups; the cable at once, so that the next enclosure of the number can have one.
fn release(number: Number) -> io::Result<()> {
    let name = number.name();
    // It is there only if the enclosure was joined to this machine.
    let _ = run("ip", &["link", "delete", &name]);
    run("ip", &["netns", "delete", &name])?;
    control_group_roots()?.iter().try_for_each(|root| remove_groups(&root.join(&name)))
}

fn make_control_groups(name: &str) -> io::Result<()> {
    for root in control_group_roots()? {
        let group = root.join(name);
        fs::create_dir_all(&group)?;
        // In version 1 a new group has no cores and no memory nodes, and takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if root.ends_with("cpuset") {
                fs::write(group.join(file), fs::read(root.join(file))?)?;
            }
        }
    }
    Ok(())
}

fn control_group_roots() -> io::Result<Vec<PathBuf>> {
    let root = Path::new(CONTROL_GROUPS);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root)?.map(|entry| entry.map(|entry| entry.path()));
    // Some are links to others.
    let folders = entries.filter(|path| path.as_ref().is_ok_and(|path| path.is_dir() && !path.is_symlink()));
    folders.collect()
}

/// A group is removed after those in it; its files are the kernel's.
fn remove_groups(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            remove_groups(&path)?;
        }
    }
    fs::remove_dir(group)
}

/// Runs a program to its end; what it says on standard error is the error.
fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {}: {}", arguments.join(" "), said.trim())))
}
