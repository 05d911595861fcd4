//! A cluster that outlives the program that started it, for use by hand; one at a time.
//! Must not be used by tests: they would leave it behind.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::time::{self, Instant};

use super::{Cluster, folder};

/// What the end of a cluster may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at whether it is gone.
const LOOK: Duration = Duration::from_millis(100);

/// Where `tests/e2e/volumes.yaml` finds its claims without being told a namespace.
const NAMESPACE: &str = "default";

/// A cluster that goes on.
#[derive(Debug)]
pub struct Lasting {
    /// The administrator's way into it.
    pub kubeconfig: PathBuf,
    /// The folder on this machine behind the claim `results`.
    pub results: PathBuf,
}

/// Starts one with the operator and the volumes that manifests read, and notes in `note` how it is ended.
pub async fn start_lasting(note: &Path) -> io::Result<Lasting> {
    if let Some((_, folder)) = read(note)?.filter(|(_, folder)| folder.exists()) {
        return Err(io::Error::other(format!("a cluster runs already, in {}; end it first", folder.display())));
    }
    let folder = folder::new();
    // Nobody's pipe is held open by what goes on.
    let errors = File::create(folder.join("log/keeper.log"))?;
    let cluster = Cluster::node_in(folder, errors.into()).await;
    cluster.install_operator(&[]).await;
    let results = cluster.claim_inputs(NAMESPACE).await;
    let process = cluster.keeper().detach();
    fs::write(note, format!("{process} {}", cluster.folder.display()))?;
    Ok(Lasting { kubeconfig: cluster.kubeconfig(), results })
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
