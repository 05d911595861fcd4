//! What the pods of server and clients share: how they are secured, watched, and what is mounted in all of them.
//! Must not say what only one of them does: that is `server_job` and `client_job`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, PodSecurityContext, PodSpec, PodTemplateSpec,
        Probe, SeccompProfile, SecurityContext,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{
    Run, Settings, config_map,
    labels::{self, Part},
    mount::Mount,
    names::HTTP_PORT,
    secret, volume,
};

/// Name of the container that a template's own container of this name is merged into.
pub const TRAINER: &str = "trainer";

const RUN_DIR: &str = "/etc/fedtune/run";
const TLS_DIR: &str = "/etc/fedtune/tls";
const CACHE_DIR: &str = "/var/cache/fedtune";
const TMP_DIR: &str = "/tmp";
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Where a server keeps its checkpoint, and a client its state.
pub(super) const WORK_DIR: &str = "/var/lib/fedtune";

/// User and group of the trainer: nobody's on any node. The image's files are for everyone to read.
const USER: i64 = 65532;

/// Seconds between SIGTERM and SIGKILL. Nothing is lost at the latter: a run goes on from its last finished round.
const GRACE_SECONDS: i64 = 30;

/// What makes a pod the server's or a group's.
#[derive(Debug)]
pub(super) struct Pod<'a> {
    pub(super) part: Part<'a>,
    /// Name of the `ConfigMap` with the spec.
    pub(super) config_map: &'a str,
    /// Name of the Secret with the certificate.
    pub(super) tls: String,
    /// Command of the trainer and what only it takes.
    pub(super) args: Vec<String>,
    /// Secrets of the sources that it reads.
    pub(super) env: Vec<EnvVar>,
    /// Ports beside that of `/metrics`.
    pub(super) ports: Vec<ContainerPort>,
    /// What is mounted beside what all pods have, [`WORK_DIR`] included.
    pub(super) mounts: Vec<Mount>,
}

/// The template of `pod`, before overlays.
pub(super) fn template(run: &Run, settings: &Settings, pod: Pod<'_>) -> PodTemplateSpec {
    let metadata = metadata(run, pod.part);
    let mut mounts = mounts(run, &pod);
    mounts.extend(pod.mounts.iter().cloned());
    let (volumes, volume_mounts) = mounts.into_iter().map(|Mount { volume, mount }| (volume, mount)).unzip();
    let trainer = Container { volume_mounts: Some(volume_mounts), ..trainer(run, settings, pod) };
    let spec = PodSpec {
        containers: vec![trainer],
        volumes: Some(volumes),
        restart_policy: Some("Never".to_owned()),
        service_account_name: run.spec.service_account_name.clone(),
        automount_service_account_token: Some(false),
        // Variables of every Service of the namespace are of no use to it.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(security()),
        ..PodSpec::default()
    };
    PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) }
}

/// A port of a pod.
pub(super) fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn metadata(run: &Run, part: Part<'_>) -> ObjectMeta {
    let container = ("kubectl.kubernetes.io/default-container".to_owned(), TRAINER.to_owned());
    ObjectMeta {
        labels: Some(labels::labels(run, part)),
        annotations: Some(BTreeMap::from([container])),
        ..ObjectMeta::default()
    }
}

fn mounts(run: &Run, pod: &Pod<'_>) -> Vec<Mount> {
    let cache = volume::cache_claim(run);
    vec![
        Mount::config_map("run", RUN_DIR, pod.config_map),
        Mount::secret("tls", TLS_DIR, &pod.tls),
        cache.map_or_else(|| Mount::empty_dir("cache", CACHE_DIR), |claim| Mount::claim("cache", CACHE_DIR, &claim)),
        Mount::empty_dir("tmp", TMP_DIR),
    ]
}

fn trainer(run: &Run, settings: &Settings, pod: Pod<'_>) -> Container {
    let mut ports = pod.ports;
    ports.push(port("http", HTTP_PORT));
    Container {
        name: TRAINER.to_owned(),
        image: Some(config_map::image(run, settings).to_owned()),
        image_pull_policy: settings.image_pull_policy.clone(),
        args: Some(arguments(run, settings, pod.args)),
        env: Some(pod.env).filter(|env| !env.is_empty()),
        ports: Some(ports),
        liveness_probe: Some(probe("/healthz", 20, 6)),
        readiness_probe: Some(probe("/readyz", 5, 1)),
        termination_message_path: Some(TERMINATION_LOG.to_owned()),
        // What ends before it can write there, as for want of memory, leaves the end of its log.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(container_security()),
        ..Container::default()
    }
}

/// The command line: what only this pod has, after the command, then what all have.
fn arguments(run: &Run, settings: &Settings, own: Vec<String>) -> Vec<String> {
    let linger = settings.linger.as_secs().to_string();
    let namespace = run.metadata.namespace.clone().unwrap_or_default();
    let [cert, key, ca] = [secret::CERT, secret::KEY, secret::CA].map(|file| format!("{TLS_DIR}/{file}"));
    let shared = [
        ("--out", WORK_DIR.to_owned()),
        ("--cache", CACHE_DIR.to_owned()),
        ("--tls-cert", cert),
        ("--tls-key", key),
        ("--tls-ca", ca),
        ("--http", format!("0.0.0.0:{HTTP_PORT}")),
        ("--namespace", namespace),
        ("--termination-log", TERMINATION_LOG.to_owned()),
        ("--linger", linger),
    ];
    own.into_iter().chain(shared.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value])).collect()
}

/// The spec's file in the pod.
pub(super) fn run_json() -> String {
    format!("{RUN_DIR}/{}", config_map::RUN_JSON)
}

/// It is answered from the first moment on, so nothing need wait for a slow start; a machine whose cores are all taken
/// is given time.
fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    let port = IntOrString::Int(i32::from(HTTP_PORT));
    Probe {
        http_get: Some(HTTPGetAction { path: Some(path.to_owned()), port, ..HTTPGetAction::default() }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

/// What the `restricted` level asks of a pod. The group owns its volumes, so that the user may write to them.
fn security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// What the `restricted` level asks of a container, and more: it writes to its volumes only.
fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        read_only_root_filesystem: Some(true),
        ..SecurityContext::default()
    }
}
