//! A test that is killed while its cluster runs, as a user's Ctrl-C or a CI's time limit does.
//! Must not end the cluster itself: that it ends is what is tested.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::cluster::Cluster;

/// Set in a test that is to be killed.
const DOOMED: &str = "FEDTUNE_TEST_DOOMED";
/// How long a cluster may take to be gone; far more than it needs.
const LIMIT: Duration = Duration::from_secs(60);

/// A test of this program in a process of its own, with a cluster that is up.
#[derive(Debug)]
pub struct Doomed {
    child: Child,
    folder: PathBuf,
}

impl Doomed {
    /// Starts the test `name`, which calls [`wait_for_the_end`], and waits until its cluster is up.
    pub fn start(name: &str) -> Self {
        let this = env::current_exe().expect("a test has a path");
        let mut again = Command::new(this);
        again.args(["--exact", name, "--ignored", "--nocapture"]).env(DOOMED, "1");
        again.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = again.spawn().expect("a test can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let folder = lines.find_map(|line| line.expect("a pipe can be read").strip_prefix("in ").map(PathBuf::from));
        let folder = folder.expect("it says where its cluster is");
        Self { child, folder }
    }

    /// Where its cluster is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills it, and waits until the cluster's keeper has ended.
    pub fn kill(mut self) {
        self.child.kill().expect("a child may be killed");
        self.child.wait().expect("a child can be waited for");
        // Its keeper holds it open, too, until the cluster is gone.
        let mut stderr = self.child.stderr.take().expect("it is piped");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || sender.send(stderr.read_to_end(&mut Vec::new())));
        receiver.recv_timeout(LIMIT).expect("its keeper ends soon").expect("a pipe can be read");
    }
}

/// Whether this process is to be killed.
pub fn is_doomed() -> bool {
    env::var_os(DOOMED).is_some()
}

/// Says where the cluster is, and waits to be killed.
pub async fn wait_for_the_end(cluster: &Cluster) {
    println!("\nin {}", cluster.kubeconfig().parent().expect("it lies in a folder").display());
    std::future::pending::<()>().await;
}

/// How many processes name `folder` in their command line.
pub fn processes_of(folder: &Path) -> usize {
    let name = folder.to_str().expect("a temporary folder's name is plain").as_bytes();
    let processes = Path::new("/proc").read_dir().expect("Linux has /proc");
    // A process may end while it is looked at.
    let lines = processes.filter_map(|process| std::fs::read(process.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(name.len()).any(|part| part == name)).count()
}
