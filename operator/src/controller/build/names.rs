//! The name of every object of a run, and the names by which its server is dialled.
//! Must not check lengths: the resource's own rules keep each of them within Kubernetes' bounds.

use super::Run;

/// Port of the server's gRPC.
pub const GRPC_PORT: u16 = 7443;

/// Port of `/healthz`, `/readyz`, `/metrics` and a server's `/status`, of every pod.
pub const HTTP_PORT: u16 = 8080;

/// The resource's own name; empty where it was never stored, which [`super::children`] refuses.
fn of(run: &Run) -> &str {
    run.metadata.name.as_deref().unwrap_or_default()
}

/// The headless Service and the policy of the server.
pub fn server(run: &Run) -> String {
    format!("{}-server", of(run))
}

/// The policy of a group's pods, and what their Job's name begins with.
pub fn clients(run: &Run, group: &str) -> String {
    format!("{}-clients-{group}", of(run))
}

/// The server's Job.
pub fn server_job(run: &Run) -> String {
    with_attempt(server(run), run.spec.attempt)
}

/// The Job of a group.
pub fn client_job(run: &Run, group: &str) -> String {
    with_attempt(clients(run, group), run.spec.attempt)
}

/// A failed Job is final, so another attempt has Jobs of another name.
fn with_attempt(name: String, attempt: u32) -> String {
    if attempt == 0 { name } else { format!("{name}-{attempt}") }
}

/// The Secret of the run's CA, which no pod mounts.
pub fn ca(run: &Run) -> String {
    format!("{}-ca", of(run))
}

/// The Secret of the server's certificate. No group is called `server`.
pub fn server_tls(run: &Run) -> String {
    tls(run, "server")
}

/// The Secret of a group's certificate.
pub fn tls(run: &Run, group: &str) -> String {
    format!("{}-tls-{group}", of(run))
}

/// The Secret of an external group's join bundle.
pub fn join(run: &Run, group: &str) -> String {
    format!("{}-join-{group}", of(run))
}

/// The Service that opens the server to the outside.
pub fn exposed(run: &Run) -> String {
    format!("{}-exposed", of(run))
}

/// The claim of the server's checkpoint, where the operator makes it.
pub fn checkpoint(run: &Run) -> String {
    format!("{}-checkpoint", of(run))
}

/// The claim of models and data, where the operator makes it.
pub fn cache(run: &Run) -> String {
    format!("{}-cache", of(run))
}

/// The `ConfigMap` whose content has this `hash`.
pub fn config_map(run: &Run, hash: &str) -> String {
    format!("{}-run-{hash}", of(run))
}

/// Where clients in the cluster dial the server; without the cluster's domain, which only its DNS knows.
pub fn server_url(run: &Run) -> String {
    format!("https://{}.{}.svc:{GRPC_PORT}", server(run), namespace(run))
}

/// Every name that the server's certificate must have, but for addresses that the cluster gives its exposed Service.
pub fn server_hosts(run: &Run) -> Vec<String> {
    let (service, namespace) = (server(run), namespace(run));
    let inside = [format!("{service}.{namespace}.svc"), format!("{service}.{namespace}"), service];
    let outside = run.spec.server.expose.iter().flat_map(|expose| expose.hosts.clone());
    inside.into_iter().chain(outside).collect()
}

fn namespace(run: &Run) -> &str {
    run.metadata.namespace.as_deref().unwrap_or_default()
}
