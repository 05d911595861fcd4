//! The flags of `fedtune-operator run`, read into what the operator needs.
//! Must not hold a default that the chart would have to repeat: flags can all be given as environment variables.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use fedtune_crds::template::Template;
use tracing_subscriber::{EnvFilter, fmt};

use crate::{
    caches::Scope,
    controller::build::Settings,
    leader::Timing,
    live::StatusVia,
    operator::{LeaseOptions, Options},
};

/// Namespace where nothing says in which one the operator runs.
const NAMESPACE: &str = "default";

/// How the operator runs.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Image of the trainer, for resources that name none.
    #[arg(long, value_name = "IMAGE", env = "FEDTUNE_TRAINER_IMAGE")]
    trainer_image: String,
    /// Looks at the resources of this namespace only. Left out, of all.
    #[arg(long, value_name = "NAME", env = "FEDTUNE_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace that the operator runs in: its Lease is there, and the trainers' network policies let it in.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = NAMESPACE)]
    operator_namespace: String,
    /// How running servers are asked how they stand. `api-proxy` is for an operator outside of the cluster.
    #[arg(long, value_enum, env = "FEDTUNE_STATUS_VIA", default_value_t = StatusVia::PodIp)]
    status_via: StatusVia,
    /// Serves `/healthz`, `/readyz` and `/metrics` here, as in `0.0.0.0:8080`.
    #[arg(long, value_name = "ADDRESS", env = "FEDTUNE_LISTEN")]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    trainer: TrainerArgs,
    #[command(flatten)]
    election: ElectionArgs,
    #[command(flatten)]
    logs: LogArgs,
}

/// What all pods of the trainer have in common, whatever their resource says.
#[derive(Debug, Args)]
struct TrainerArgs {
    /// When nodes look for a newer image under the same name: `Always`, `IfNotPresent` or `Never`. Left out, as
    /// Kubernetes does.
    #[arg(long, value_name = "POLICY", env = "FEDTUNE_TRAINER_PULL_POLICY")]
    trainer_pull_policy: Option<String>,
    /// Seconds that server and clients go on serving `/metrics` after the end, for a last scrape.
    #[arg(long, value_name = "SECONDS", env = "FEDTUNE_LINGER", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..60))]
    linger_seconds: u64,
    /// The storage driver knows `ReadWriteOncePod`: claims for checkpoints ask for it.
    #[arg(long, env = "FEDTUNE_READ_WRITE_ONCE_POD")]
    read_write_once_pod: bool,
    /// Labels of this operator's own pods, which network policies let in.
    #[arg(long, value_name = "KEY=VALUE", env = "FEDTUNE_OPERATOR_LABELS", value_delimiter = ',', value_parser = label)]
    operator_label: Vec<(String, String)>,
    /// Labels of the pods that may read `/metrics`, which network policies let in.
    #[arg(long, value_name = "KEY=VALUE", env = "FEDTUNE_PROMETHEUS_LABELS", value_delimiter = ',', value_parser = label)]
    prometheus_label: Vec<(String, String)>,
    /// Overlay on every pod of the trainer, beneath the resource's own: a YAML file as in `spec.server.template`.
    #[arg(long, value_name = "FILE", env = "FEDTUNE_TRAINER_TEMPLATE")]
    trainer_template: Option<PathBuf>,
}

/// Which of several operators works.
#[derive(Debug, Args)]
struct ElectionArgs {
    /// Works without being elected; for a single operator that is never replaced by another while it runs.
    #[arg(long)]
    no_leader_election: bool,
    /// Name of the Lease.
    #[arg(long, value_name = "NAME", env = "FEDTUNE_LEASE_NAME", default_value = "fedtune-operator")]
    lease_name: String,
    /// Name of this operator in the Lease. Left out, the machine's name and a random number.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,
    /// Seconds without a change after which another takes the Lease.
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    lease_seconds: u64,
    /// Seconds without a renewal after which the leader stops; fewer than the Lease's.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    renew_deadline_seconds: u64,
    /// Seconds between two tries to take or renew the Lease.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    retry_seconds: u64,
}

/// What is logged, to standard error.
#[derive(Debug, Args)]
struct LogArgs {
    /// Text to read, or one JSON object a line.
    #[arg(long, value_enum, env = "FEDTUNE_LOG_FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// A level, or module=level, comma between them.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", default_value = "info")]
    log: String,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line to read.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is wrong with the flags.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the sentences document the variants")]
pub enum ArgumentError {
    #[error(
        "--renew-deadline-seconds ({renew_deadline}) must be less than --lease-seconds ({lease}), and --retry-seconds ({retry}) less than both and above 0: else two operators could lead at once"
    )]
    Timing { lease: u64, renew_deadline: u64, retry: u64 },
    #[error("--log {filter:?}: {reason}; expected a level (error, warn, info, debug, trace) or module=level")]
    Log { filter: String, reason: String },
    #[error("--trainer-template {} cannot be read: {reason}", file.display())]
    Template { file: PathBuf, reason: String },
}

/// Reads `KEY=VALUE`.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE, as in app.kubernetes.io/name=prometheus")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl RunArgs {
    /// Starts logging for the whole process.
    ///
    /// # Errors
    /// Where the filter has no meaning.
    pub fn start_logging(&self) -> Result<(), ArgumentError> {
        let LogArgs { log_format, log } = &self.logs;
        let filter = EnvFilter::try_new(log)
            .map_err(|error| ArgumentError::Log { filter: log.clone(), reason: error.to_string() })?;
        let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match log_format {
            LogFormat::Text => lines.with_ansi(false).with_target(false).compact().init(),
            LogFormat::Json => lines.json().flatten_event(true).init(),
        }
        Ok(())
    }

    /// What the operator is started with; `machine` is this machine's name, `unique` what no other process has.
    ///
    /// # Errors
    /// Where flags do not fit together.
    pub fn options(&self, machine: &str, unique: u64) -> Result<Options, ArgumentError> {
        let identity = self.election.identity.clone().unwrap_or_else(|| format!("{machine}_{unique:016x}"));
        let election = if self.election.no_leader_election { None } else { Some(self.lease()?) };
        Ok(Options {
            settings: self.settings()?,
            scope: self.namespace.clone().map_or(Scope::Cluster, Scope::Namespace),
            status_via: self.status_via,
            listen: self.listen,
            identity,
            election,
        })
    }

    fn settings(&self) -> Result<Settings, ArgumentError> {
        let TrainerArgs {
            trainer_pull_policy,
            linger_seconds,
            read_write_once_pod,
            operator_label,
            prometheus_label,
            trainer_template,
        } = &self.trainer;
        let mut settings = Settings::new(&self.trainer_image, &self.operator_namespace);
        settings.image_pull_policy.clone_from(trainer_pull_policy);
        settings.linger = Duration::from_secs(*linger_seconds);
        settings.read_write_once_pod = *read_write_once_pod;
        if !operator_label.is_empty() {
            settings.operator_labels = operator_label.iter().cloned().collect();
        }
        if !prometheus_label.is_empty() {
            settings.prometheus_labels = prometheus_label.iter().cloned().collect();
        }
        if let Some(file) = trainer_template {
            settings.template = template(file)?;
        }
        Ok(settings)
    }

    fn lease(&self) -> Result<LeaseOptions, ArgumentError> {
        let ElectionArgs { lease_seconds, renew_deadline_seconds, retry_seconds, .. } = self.election;
        let ordered =
            0 < retry_seconds && retry_seconds < renew_deadline_seconds && renew_deadline_seconds < lease_seconds;
        if !ordered {
            let (lease, renew_deadline, retry) = (lease_seconds, renew_deadline_seconds, retry_seconds);
            return Err(ArgumentError::Timing { lease, renew_deadline, retry });
        }
        let timing = Timing {
            duration: Duration::from_secs(lease_seconds),
            renew_deadline: Duration::from_secs(renew_deadline_seconds),
            retry: Duration::from_secs(retry_seconds),
        };
        Ok(LeaseOptions { namespace: self.operator_namespace.clone(), name: self.election.lease_name.clone(), timing })
    }
}

fn template(file: &Path) -> Result<Template, ArgumentError> {
    let failed = |reason: String| ArgumentError::Template { file: file.to_owned(), reason };
    let text = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    serde_yaml::from_str(&text).map_err(|error| failed(error.to_string()))
}
