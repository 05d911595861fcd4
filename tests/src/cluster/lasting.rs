//! A cluster that outlives the program that started it, for use by hand; one at a time.
//! Must not be used by tests: they would leave it behind.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::time::{self, Instant};

use super::Cluster;

/// What the end of a cluster may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at whether it is gone.
const LOOK: Duration = Duration::from_millis(100);

/// Starts one and notes in `note` how it is ended; gives its kubeconfig.
pub async fn start_lasting(note: &Path) -> io::Result<PathBuf> {
    if let Some((_, folder)) = read(note)?.filter(|(_, folder)| folder.exists()) {
        return Err(io::Error::other(format!("a cluster runs already, in {}; end it first", folder.display())));
    }
    let cluster = Cluster::node().await;
    let process = cluster.keeper().detach();
    fs::write(note, format!("{process} {}", cluster.folder.display()))?;
    Ok(cluster.kubeconfig())
}

/// Ends the one that is noted in `note`, and waits until nothing of it is left; false where there is none.
pub async fn end_lasting(note: &Path) -> io::Result<bool> {
    let Some((process, folder)) = read(note)? else { return Ok(false) };
    // A folder that is gone says that the number may be another process' by now.
    if folder.exists() {
        Command::new("kill").args(["-TERM", &process]).status()?;
        let (deadline, mut looks) = (Instant::now() + LIMIT, time::interval(LOOK));
        while folder.exists() {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{} is still there after {LIMIT:?}", folder.display())));
            }
            looks.tick().await;
        }
    }
    fs::remove_file(note)?;
    Ok(true)
}

/// The keeper's process and the cluster's folder.
fn read(note: &Path) -> io::Result<Option<(String, PathBuf)>> {
    match fs::read_to_string(note) {
        Ok(text) => Ok(text.split_once(' ').map(|(process, folder)| (process.to_owned(), PathBuf::from(folder)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
