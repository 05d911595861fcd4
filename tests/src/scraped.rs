//! Server and clients as processes of their own whose telemetry can be read, also when they have ended.
//! Must not read it.

use crate::{bench::Bench, program::Running};

/// Longer than any test: the processes are killed when they have been read.
const LINGER: &str = "3600";

/// The namespace that the processes say they are in.
pub const NAMESPACE: &str = "lab";

/// Starts `fedtune` with telemetry; gives the address of that.
fn start(bench: &Bench, arguments: &[&str]) -> (Running, String) {
    let telemetry = ["--http", "127.0.0.1:0", "--linger", LINGER, "--namespace", NAMESPACE, "--log", "fedtune=info"];
    let mut process = bench.start(&[arguments, &telemetry].concat());
    let address = telemetry_of(&mut process);
    (process, address)
}

/// Starts the server of a spec, which leaves its last words in `last-words`; gives the address of its telemetry and the
/// one that it listens at.
pub fn start_server(bench: &Bench, spec: &str) -> (Running, String, String) {
    let log = bench.path("last-words").display().to_string();
    let arguments = ["server", spec, "--listen", "127.0.0.1:0", "--out", "apart", "--termination-log", &log];
    let (mut server, address) = start(bench, &arguments);
    let line = server.wait_for(&["listening on "]);
    let listens = line.trim().strip_prefix("listening on ").expect("it says where").to_owned();
    (server, address, listens)
}

/// Starts a client of the server at `server`.
pub fn start_client(bench: &Bench, spec: &str, id: &str, server: &str) -> (Running, String) {
    start(bench, &["client", spec, "--client", id, "--server", &format!("http://{server}"), "--patience", "120"])
}

/// Address of the telemetry of a process that was started with `--http 127.0.0.1:0 --log fedtune=info`.
fn telemetry_of(process: &mut Running) -> String {
    let line = process.wait_for(&["telemetry is served"]);
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    address.expect("it says where").to_owned()
}
