//! Brings results of a run from the claim they lie on: a pod of the trainer mounts it for as long as that takes.
//! Must not leave the pod behind, nor half of the files.

use std::{
    fs,
    io::{self, Write},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use fedtune_crds::{FederatedFineTune, volumes::OutputVolume};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
    runtime::wait::await_condition,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{self, timeout};

use crate::cluster::{Cluster, ClusterError, refused};

/// Where the pod listens, on its own loopback: nobody but who may forward ports gets there.
const PORT: u16 = 8081;
/// What the pod may take to start: the image may have to be pulled.
const START: Duration = Duration::from_secs(300);
/// After which the pod ends whatever becomes of this program.
const LIFE_SECONDS: i64 = 900;
/// Between two tries to reach a program that has just been started.
const PAUSE: Duration = Duration::from_millis(200);
const TRIES: u32 = 50;
const FOLDER: &str = "/output";

/// Which results are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// `results.json` and the page.
    Report,
    /// The adapter's files.
    Adapter,
}

/// One file as the pod lists it.
#[derive(Debug, Deserialize)]
struct Entry {
    path: String,
    bytes: u64,
}

/// Why results were not brought.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResultsError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the results of {run} are in {url}: fetch them there, with your own access to that store")]
    InStore { run: String, url: String },
    #[error(
        "{0} has no spec.output: its results lie in the server's checkpoint claim, and only as long as that is kept"
    )]
    NoOutput(String),
    #[error("the image of {0} is not known any more; name one with --image")]
    NoImage(String),
    #[error("pod {pod} did not start within {START:?}: {why}", why = .why.as_deref().unwrap_or("its node says nothing"))]
    NotStarted { pod: String, why: Option<String> },
    #[error("pod {pod} cannot be talked to: {why}")]
    Talk { pod: String, why: String },
    #[error("the claim {claim} has no {what} in {folder}: the run has not ended, or wrote elsewhere")]
    NothingThere { claim: String, what: &'static str, folder: String },
    #[error("the pod names a file {0:?}, which leads out of the folder it is to be written to")]
    LeadsOut(String),
    #[error("{file}: {got} bytes came of {expected}")]
    CutShort { file: String, got: u64, expected: u64 },
    #[error("{path} cannot be written: {error}", path = .path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("{} is there already; name another folder with -o, or remove it", .0.display())]
    Exists(PathBuf),
}

impl Wanted {
    fn takes(self, path: &str) -> bool {
        match self {
            Self::Report => ["results.json", "report.html"].contains(&path),
            Self::Adapter => path.starts_with("adapter/"),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Report => "results.json",
            Self::Adapter => "adapter",
        }
    }
}

/// Brings what is wanted of a run into the folder `into`, which must not be there; the files.
pub(crate) async fn bring(
    cluster: &Cluster,
    run: &FederatedFineTune,
    image: Option<String>,
    wanted: Wanted,
    into: &Path,
) -> Result<Vec<PathBuf>, ResultsError> {
    if into.exists() {
        return Err(ResultsError::Exists(into.to_owned()));
    }
    let volume = volume_of(run)?;
    let image = match image {
        Some(image) => image,
        None => cluster.image_of(run).await?.ok_or_else(|| ResultsError::NoImage(run.name_any()))?,
    };
    let pods = cluster.pods();
    let pod = create(cluster, &pods, &pod_of(run, volume, &image)).await?;
    let brought = tokio::select! {
        brought = fetch(cluster, &pods, &pod, wanted, into) => brought,
        _ = tokio::signal::ctrl_c() => Err(ResultsError::Talk { pod: pod.clone(), why: "it was interrupted".to_owned() }),
    };
    let now = DeleteParams::default().grace_period(0);
    // One that cannot be deleted ends by itself.
    let _ = pods.delete(&pod, &now).await;
    brought?.ok_or_else(|| ResultsError::NothingThere {
        claim: volume.existing_claim.clone(),
        what: wanted.words(),
        folder: folder_of(run, volume),
    })
}

fn volume_of(run: &FederatedFineTune) -> Result<&OutputVolume, ResultsError> {
    let output = run.spec.output.as_ref().ok_or_else(|| ResultsError::NoOutput(run.name_any()))?;
    let in_store = || match &output.s3 {
        Some(s3) => ResultsError::InStore { run: run.name_any(), url: s3.url.clone() },
        None => ResultsError::NoOutput(run.name_any()),
    };
    output.volume.as_ref().ok_or_else(in_store)
}

fn folder_of(run: &FederatedFineTune, volume: &OutputVolume) -> String {
    volume.path.clone().unwrap_or_else(|| run.name_any())
}

/// A pod that passes the `restricted` level and reads the claim. It carries no label of the run's pods: nobody counts it
/// among them, and no network policy opens a port to it.
fn pod_of(run: &FederatedFineTune, volume: &OutputVolume, image: &str) -> Value {
    let folder = format!("{FOLDER}/{}", folder_of(run, volume));
    let container = json!({
        "name": "results", "image": image,
        "args": ["serve", folder, "--listen", format!("127.0.0.1:{PORT}"), "--seconds", LIFE_SECONDS.to_string()],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
        },
        "volumeMounts": [{"name": "output", "mountPath": FOLDER, "readOnly": true}],
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": format!("{}-results-", run.name_any()), "labels": {"app.kubernetes.io/name": "fedtune-results"}},
        "spec": {
            "restartPolicy": "Never", "activeDeadlineSeconds": LIFE_SECONDS, "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0, "containers": [container],
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": [{"name": "output", "persistentVolumeClaim": {"claimName": volume.existing_claim, "readOnly": true}}],
        },
    })
}

async fn create(cluster: &Cluster, pods: &Api<Pod>, pod: &Value) -> Result<String, ClusterError> {
    let pod: Pod = serde_json::from_value(pod.clone()).expect("it is written as a pod");
    let created = pods.create(&PostParams::default(), &pod).await;
    Ok(created.map_err(|error| refused("create", "pods", &cluster.place(), error))?.name_any())
}

/// The files that are wanted, written; none where the pod has none of them.
async fn fetch(
    cluster: &Cluster,
    pods: &Api<Pod>,
    pod: &str,
    wanted: Wanted,
    into: &Path,
) -> Result<Option<Vec<PathBuf>>, ResultsError> {
    wait_until_running(pods, pod).await?;
    let talk = |why: String| ResultsError::Talk { pod: pod.to_owned(), why };
    let mut sender = connect(cluster, pods, pod).await?;
    let listed = body(get(&mut sender, "/").await.map_err(talk)?).await.map_err(talk)?;
    let entries: Vec<Entry> = serde_json::from_slice(&listed).map_err(|error| talk(error.to_string()))?;
    let entries: Vec<Entry> = entries.into_iter().filter(|entry| wanted.takes(&entry.path)).collect();
    if entries.is_empty() {
        return Ok(None);
    }
    let aside =
        tempfile::tempdir_in(parent_of(into)).map_err(|error| ResultsError::Write { path: into.to_owned(), error })?;
    let mut files = Vec::new();
    for entry in entries {
        let path = below(&entry.path)?;
        let content = get(&mut sender, &format!("/files/{}", entry.path)).await.map_err(talk)?;
        write(&aside.path().join(path), content, &entry).await?;
        files.push(into.join(path));
    }
    put_in_place(aside, into).map_err(|error| ResultsError::Write { path: into.to_owned(), error })?;
    Ok(Some(files))
}

/// Renamed as a whole, readable as any new folder is.
fn put_in_place(aside: tempfile::TempDir, into: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let aside = aside.keep();
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
    fs::rename(&aside, into).inspect_err(|_| drop(fs::remove_dir_all(&aside)))
}

fn parent_of(into: &Path) -> &Path {
    into.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file's place below the folder.
fn below(path: &str) -> Result<&Path, ResultsError> {
    let is_inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if is_inside { Ok(Path::new(path)) } else { Err(ResultsError::LeadsOut(path.to_owned())) }
}

async fn write(path: &Path, mut content: Incoming, entry: &Entry) -> Result<(), ResultsError> {
    let failed = |error: io::Error| ResultsError::Write { path: path.to_owned(), error };
    fs::create_dir_all(parent_of(path)).map_err(failed)?;
    let (mut file, mut got) = (fs::File::create_new(path).map_err(failed)?, 0);
    while let Some(Ok(frame)) = content.frame().await {
        let data = frame.into_data().unwrap_or_default();
        got += data.len() as u64;
        file.write_all(&data).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    if got == entry.bytes {
        return Ok(());
    }
    Err(ResultsError::CutShort { file: entry.path.clone(), got, expected: entry.bytes })
}

/// Waits until the pod runs; what it waits for itself is told where that takes too long.
async fn wait_until_running(pods: &Api<Pod>, name: &str) -> Result<(), ResultsError> {
    let runs = |pod: Option<&Pod>| phase(pod).is_some_and(|phase| phase == "Running" || phase == "Failed");
    let waited = timeout(START, await_condition(pods.clone(), name, runs)).await;
    if matches!(&waited, Ok(Ok(Some(pod))) if phase(Some(pod)) == Some("Running")) {
        return Ok(());
    }
    let why = pods.get(name).await.ok().and_then(|pod| why(&pod));
    Err(ResultsError::NotStarted { pod: name.to_owned(), why })
}

fn phase(pod: Option<&Pod>) -> Option<&str> {
    pod?.status.as_ref()?.phase.as_deref()
}

/// What its container waits for, or the scheduler.
fn why(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some(format!("{}: {}", waiting.reason.as_deref()?, waiting.message.as_deref().unwrap_or_default()))
    });
    waiting.or_else(|| status.conditions.iter().flatten().find_map(|condition| condition.message.clone()))
}

/// A forwarded port, as soon as something listens behind it.
async fn connect(cluster: &Cluster, pods: &Api<Pod>, pod: &str) -> Result<SendRequest<Empty<Bytes>>, ResultsError> {
    let mut said = String::new();
    for _ in 0..TRIES {
        let forwarded = pods.portforward(pod, &[PORT]).await;
        let mut forwarded =
            forwarded.map_err(|error| refused("create", "pods/portforward", &cluster.place(), error))?;
        let stream = forwarded.take_stream(PORT).expect("the port was asked for");
        let shaken = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string());
        match shaken {
            Ok((mut sender, connection)) => {
                tokio::spawn(async move {
                    let _held = forwarded;
                    connection.await
                });
                match get(&mut sender, "/").await {
                    Ok(listed) => {
                        // One connection serves all requests, so the answer is read to its end.
                        if body(listed).await.is_ok() {
                            return Ok(sender);
                        }
                    }
                    Err(why) => said = why,
                }
            }
            Err(why) => said = why,
        }
        time::sleep(PAUSE).await;
    }
    Err(ResultsError::Talk { pod: pod.to_owned(), why: said })
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Result<Incoming, String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let request =
        http::Request::get(path).header("host", "results").body(Empty::new()).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    Err(format!("{path}: {}", response.status()))
}

async fn body(body: Incoming) -> Result<Bytes, String> {
    Ok(body.collect().await.map_err(|error| error.to_string())?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_leads_out_of_its_folder_is_refused() {
        assert!(below("adapter/adapter_model.safetensors").is_ok());
        for path in ["../x", "adapter/../../x", "/etc/passwd", "./x"] {
            assert!(matches!(below(path), Err(ResultsError::LeadsOut(_))), "{path}");
        }
    }

    #[test]
    fn what_is_not_on_a_claim_is_said_to_be_where_it_is() {
        let run = |output: Value| -> FederatedFineTune {
            let spec = json!({
                "framework": {"fedLLM": {}}, "model": {"source": {"path": "/m"}}, "output": output,
                "data": {"source": {"path": "/d"}, "format": "CSV"}, "training": {"rounds": 2},
            });
            let object = json!({"apiVersion": "fedtune.io/v1alpha1", "kind": "FederatedFineTune",
                "metadata": {"name": "mail"}, "spec": spec});
            serde_json::from_value(object).expect("it is a run")
        };
        let said = |output: Value| volume_of(&run(output)).expect_err("there is no claim").to_string();
        assert!(said(json!({"s3": {"url": "s3://bucket/mail"}})).contains("are in s3://bucket/mail"));
        assert!(said(Value::Null).contains("mail has no spec.output"));
    }
}
