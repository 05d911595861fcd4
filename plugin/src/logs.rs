//! What server and clients of a run say, each line after the name of who says it.
//! Must not change a line.

use std::io::{self, Write};

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::LogParams};

use crate::cluster::{Cluster, ClusterError, TRAINER, refused};

const GROUP: &str = "fedtune.io/group";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// How much is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// What is said from now on, too.
    pub(crate) follow: bool,
    /// Lines of each pod from its end.
    pub(crate) tail: Option<i64>,
}

/// Why lines cannot be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("what a pod says cannot be read on: {0}")]
    Read(io::Error),
    #[error("lines cannot be printed: {0}")]
    Print(io::Error),
}

/// Prints what the pods say: in the order of time, or as it comes where it goes on.
pub(crate) async fn print(
    cluster: &Cluster,
    pods: &[Pod],
    wanted: &Wanted,
    out: &mut impl Write,
) -> Result<(), LogError> {
    let width = pods.iter().map(|pod| who(pod).len()).max().unwrap_or(0);
    let mut streams = Vec::new();
    for pod in pods.iter().filter(|pod| has_started(pod)) {
        let who = format!("{:width$}", who(pod));
        let lines = lines_of(cluster, pod, wanted).await?;
        streams.push(lines.map_ok(move |line| (who.clone(), line)).boxed());
    }
    let mut said = stream::select_all(streams);
    let mut so_far = Vec::new();
    while let Some(line) = said.next().await {
        let (who, line) = line.map_err(LogError::Read)?;
        if wanted.follow { say(out, &who, &line)? } else { so_far.push((who, line)) }
    }
    // Each begins with its time, to the nanosecond and in UTC: text in order is time in order.
    so_far.sort_by(|(_, one), (_, other)| time_and_words(one).0.cmp(time_and_words(other).0));
    so_far.iter().try_for_each(|(who, line)| say(out, who, line))
}

async fn lines_of(
    cluster: &Cluster,
    pod: &Pod,
    Wanted { follow, tail }: &Wanted,
) -> Result<impl futures::Stream<Item = io::Result<String>> + Send + use<>, ClusterError> {
    let parameters = LogParams {
        container: Some(TRAINER.to_owned()),
        follow: *follow,
        tail_lines: *tail,
        timestamps: true,
        ..LogParams::default()
    };
    let opened = cluster.pods().log_stream(&pod.name_any(), &parameters).await;
    Ok(opened.map_err(|error| refused("get", "pods/log", &cluster.place(), error))?.lines())
}

fn say(out: &mut impl Write, who: &str, line: &str) -> Result<(), LogError> {
    writeln!(out, "{who} | {}", time_and_words(line).1).map_err(LogError::Print)
}

fn time_and_words(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
}

/// `server`, or a client as its group and index.
fn who(pod: &Pod) -> String {
    let label = |key: &str| pod.labels().get(key).or_else(|| pod.annotations().get(key));
    match (label(GROUP), label(INDEX)) {
        (Some(group), Some(index)) => format!("{group}/{index}"),
        (Some(group), None) => group.clone(),
        (None, _) => "server".to_owned(),
    }
}

/// Whether its container has said anything yet: one that waits cannot be asked.
fn has_started(pod: &Pod) -> bool {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().any(|container| {
        container.name == TRAINER
            && container.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_is_called_by_its_group_and_index() {
        let pod = |labels: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "x", "labels": labels}})).expect("it is a pod")
        };
        assert_eq!(who(&pod(json!({GROUP: "silo", INDEX: "3"}))), "silo/3");
        assert_eq!(who(&pod(json!({INDEX: "0"}))), "server");
    }

    #[test]
    fn a_line_is_printed_without_the_time_that_orders_it() {
        let mut out = Vec::new();
        say(&mut out, "server", "2026-01-01T00:00:00.000000001Z round 1 is done").expect("memory can be written");
        assert_eq!(String::from_utf8_lossy(&out), "server | round 1 is done\n");
    }
}
