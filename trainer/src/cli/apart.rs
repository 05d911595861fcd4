//! `fedtune server SPEC` and `fedtune client SPEC`: the same run as processes of their own.
//! Must not speak plain text beyond this machine unless that was asked for.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use clap::Args;
use tonic::transport::Uri;

use super::{CONFIGURATION, FAILED, SUCCESS, SpecArgs, complain, environment, signals::Watch, specs};
use crate::{
    client::work,
    data::Scope,
    events::Events,
    meter::Slots,
    plan::Plan,
    report,
    run::{
        RunError,
        folder::Folder,
        local::{self, Kept},
        materials::{Materials, Shelf},
        say_finished, summary,
    },
    server::{Served, serve},
    wire::{self, client::ConnectOptions, dial::Dialer, server::Listener},
};

/// Arguments of `fedtune server`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// File of one `FederatedFineTune` resource.
    #[arg(value_name = "SPEC")]
    file: PathBuf,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7443")]
    listen: SocketAddr,
    /// The run writes to a folder of its name in here.
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Starts anew where results are there already.
    #[arg(long)]
    fresh: bool,
    /// Speaks plain text with other machines: anyone on the way can read and change what is sent.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    spec: SpecArgs,
}

/// Arguments of `fedtune client`.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// File of one `FederatedFineTune` resource, the same as the server's.
    #[arg(value_name = "SPEC")]
    file: PathBuf,
    /// Which client this is.
    #[arg(long, value_name = "GROUP/INDEX")]
    client: String,
    /// The server's address, as in `http://127.0.0.1:7443`.
    #[arg(long, value_name = "URL")]
    server: String,
    /// Where a framework leaves each client a model of its own (localOnly), it is written to a folder of the run's name
    /// in here.
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Where the client keeps its round states, in frameworks whose clients have any (KD-FedLLM, localOnly), so that a
    /// new process goes on from them; by default the run's folder in --out.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Seconds to wait for a server that does not answer yet, or not any more.
    #[arg(long, value_name = "SECONDS", default_value_t = 600,
        value_parser = clap::value_parser!(u64).range(..=86_400))]
    patience: u64,
    /// Speaks plain text with other machines: anyone on the way can read and change what is sent.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    spec: SpecArgs,
}

/// Runs the server until the run is over.
pub(super) fn server(arguments: &ServerArgs, events: &Events, watch: &Watch) -> u8 {
    if !arguments.insecure && !arguments.listen.ip().is_loopback() {
        let address = arguments.listen;
        return complain(
            format!(
                "{address} is reached by other machines and this version speaks plain text; add --insecure to accept that, or listen on 127.0.0.1"
            ),
            CONFIGURATION,
        );
    }
    let plan = match one_plan(&arguments.file, &arguments.spec.sets) {
        Ok(plan) => plan,
        Err(sentence) => return complain(sentence, CONFIGURATION),
    };
    finish(run_server(arguments, &plan, events, watch))
}

fn run_server(arguments: &ServerArgs, plan: &Plan, events: &Events, watch: &Watch) -> Result<(), RunError> {
    let folder = Folder::of(&arguments.out, plan);
    let finished = folder.finished(plan, arguments.fresh)?.is_some();
    if finished {
        say_finished(plan, events);
    }
    let scope = if plan.framework.needs().all_data { Scope::Everything } else { Scope::Server };
    let materials = Shelf::new(cache(&arguments.spec), events.clone()).take_for(plan, scope)?;
    let runtime = wire::runtime().map_err(RunError::Runtime)?;
    let listener = Listener::bind(arguments.listen, local::terms(&materials.run_hash), runtime.handle())?;
    if !finished {
        folder.begin(plan, arguments.fresh)?;
    }
    let keep = Kept::In(folder.path()).of_server(plan, &materials)?;
    let setup = local::server_setup(plan, &materials, &Slots::of_this_machine(plan.threads), events);
    let (sender, receiver) = mpsc::channel();
    watch.stop_through(sender.clone());
    let Served { outcome, parting } = serve(setup, keep, listener, (sender, receiver))?;
    let ended = local::Ended { outcome, clients: Vec::new(), apart: true };
    // A run that was finished before is only said again, to clients that were away.
    let written = if finished { Ok(()) } else { write_results(plan, &materials, &folder, &ended) };
    match &written {
        Ok(()) => parting.tell(),
        Err(error) => parting.tell_failure(&error.to_string()),
    }
    written
}

/// Before any client is told of the end: one that has been told does not come back.
fn write_results(plan: &Plan, materials: &Materials, folder: &Folder, ended: &local::Ended) -> Result<(), RunError> {
    tracing::debug!(phase = "export");
    folder.export(plan, materials, ended)?;
    report::write(&summary::succeeded(plan, materials, ended), folder.path())?;
    Ok(())
}

/// Runs one client until the run is over.
pub(super) fn client(arguments: &ClientArgs, events: &Events) -> u8 {
    if !arguments.insecure && !is_loopback(&arguments.server) {
        let url = &arguments.server;
        return complain(
            format!("{url} is another machine and this version speaks plain text; add --insecure to accept that"),
            CONFIGURATION,
        );
    }
    let plan = match one_plan(&arguments.file, &arguments.spec.sets) {
        Ok(plan) => plan,
        Err(sentence) => return complain(sentence, CONFIGURATION),
    };
    let Some(ordinal) = plan.ordinal(&arguments.client) else {
        let all: Vec<String> = plan.clients.iter().map(ToString::to_string).collect();
        let sentence = format!("--client {} is not of this run; its clients are {}", arguments.client, all.join(", "));
        return complain(sentence, CONFIGURATION);
    };
    finish(run_client(arguments, &plan, ordinal, events))
}

fn run_client(arguments: &ClientArgs, plan: &Plan, ordinal: usize, events: &Events) -> Result<(), RunError> {
    let materials = Shelf::new(cache(&arguments.spec), events.clone()).take_for(plan, Scope::Client(ordinal))?;
    let runtime = wire::runtime().map_err(RunError::Runtime)?;
    let options = ConnectOptions {
        terms: local::terms(&materials.run_hash),
        patience: Duration::from_secs(arguments.patience),
        runtime: runtime.handle().clone(),
    };
    let slots = Slots::of_this_machine(plan.threads);
    let folder = Folder::of(&arguments.out, plan);
    let needs = plan.framework.needs();
    if needs.clients_keep_models || (needs.clients_keep_state && arguments.state.is_none()) {
        // Also where this client comes before its server: a folder without a mark would be refused then.
        folder.join(plan)?;
    }
    let state = arguments.state.as_deref().unwrap_or(folder.path());
    let setup = local::client_setup(plan, &materials, Kept::In(state), ordinal, &slots, events)?;
    let mut dialer = Dialer::new(&arguments.server, options, setup.incarnation);
    let mut finished =
        work(setup, &mut dialer).map_err(|error| RunError::Client { client: arguments.client.clone(), error })?;
    if needs.clients_keep_models {
        folder.export_client(plan, &materials, ordinal, &finished)?;
    }
    finished.confirm();
    Ok(())
}

fn one_plan(file: &Path, sets: &[String]) -> Result<Plan, String> {
    let mut plans = specs::plans(&[file], sets).map_err(|problems| problems.join("\nfedtune: "))?;
    match (plans.pop(), plans.len()) {
        (Some(plan), 0) => Ok(plan),
        (_, more) => Err(format!("{} holds {} resources; expected one", file.display(), more + 1)),
    }
}

fn cache(spec: &SpecArgs) -> Option<PathBuf> {
    spec.cache.clone().or_else(environment::default_cache)
}

fn finish(ended: Result<(), RunError>) -> u8 {
    match ended {
        Ok(()) => SUCCESS,
        Err(error) => {
            let code = if error.is_configuration() { CONFIGURATION } else { FAILED };
            complain(error, code)
        }
    }
}

/// Whether a URL names this machine.
fn is_loopback(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_loopback() {
        for url in ["http://127.0.0.1:7443", "http://localhost:7443", "http://[::1]:7443", "http://127.8.8.8:1/"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in
            ["http://127.0.0.1:1@elsewhere:7443", "http://10.0.0.1:7443", "http://localhost.elsewhere:1", "x", ""]
        {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
