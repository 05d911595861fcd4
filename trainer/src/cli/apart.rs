//! `fedtune server SPEC` and `fedtune client SPEC`: the same run as processes of their own.
//! Must not speak plain text beyond this machine unless that was asked for.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, SystemTime},
};

use clap::Args;
use tokio::runtime::Handle;
use tonic::transport::Uri;

use super::{CONFIGURATION, FAILED, SUCCESS, SpecArgs, environment, specs, telemetry::TelemetryArgs};
use crate::{
    client::work,
    data::Scope,
    events::{Event, Events},
    meter::Slots,
    plan::Plan,
    report,
    run::{RunError, folder::Folder, local, materials::Shelf, say_finished, summary},
    server::serve,
    telemetry::{Role, Telemetry},
    wire::{self, client::ConnectOptions, server::Listener},
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
    #[command(flatten)]
    telemetry: TelemetryArgs,
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
    /// Seconds to wait for a server that does not answer yet.
    #[arg(long, value_name = "SECONDS", default_value_t = 600,
        value_parser = clap::value_parser!(u64).range(..=86_400))]
    patience: u64,
    /// Speaks plain text with other machines: anyone on the way can read and change what is sent.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Runs the server until the run is over.
pub(super) fn server(arguments: &ServerArgs, events: &Events) -> u8 {
    if !arguments.insecure && !arguments.listen.ip().is_loopback() {
        let address = arguments.listen;
        return arguments.telemetry.complain(
            format!(
                "{address} is reached by other machines and this version speaks plain text; add --insecure to accept that, or listen on 127.0.0.1"
            ),
            CONFIGURATION,
        );
    }
    let plan = match one_plan(&arguments.file, &arguments.spec.sets) {
        Ok(plan) => plan,
        Err(sentence) => return arguments.telemetry.complain(sentence, CONFIGURATION),
    };
    watched(&arguments.telemetry, &plan, Role::Server, events, |telemetry, runtime, events| {
        run_server(arguments, &plan, telemetry, runtime, events)
    })
}

fn run_server(
    arguments: &ServerArgs,
    plan: &Plan,
    telemetry: &Telemetry,
    runtime: &Handle,
    events: &Events,
) -> Result<(), RunError> {
    let folder = Folder::of(&arguments.out, plan);
    telemetry.watch_volume(folder.path());
    if let Some(report) = folder.finished(plan, arguments.fresh)? {
        telemetry.recall(&report);
        say_finished(plan, events);
        return Ok(());
    }
    let scope = if plan.framework.needs().all_data { Scope::Everything } else { Scope::Server };
    let materials = Shelf::new(cache(&arguments.spec), events.clone()).take_for(plan, scope)?;
    let listener = Listener::bind(arguments.listen, local::terms(&materials.run_hash), runtime)?;
    folder.begin(plan, arguments.fresh)?;
    let setup = local::server_setup(plan, &materials, &Slots::of_this_machine(plan.threads), events);
    telemetry.watch_ledger(&setup.ledger);
    events.tell(Event::Listening { address: listener.local_addr() });
    let outcome = serve(setup, listener, mpsc::channel())?;
    let ended = local::Ended { outcome, clients: Vec::new(), apart: true };
    folder.export(plan, &materials, &ended)?;
    let report = summary::succeeded(plan, &materials, &ended);
    telemetry.name_run(&report.uid, 0);
    report::write(&report, folder.path())?;
    Ok(())
}

/// Runs one client until the run is over.
pub(super) fn client(arguments: &ClientArgs, events: &Events) -> u8 {
    if !arguments.insecure && !is_loopback(&arguments.server) {
        let url = &arguments.server;
        return arguments.telemetry.complain(
            format!("{url} is another machine and this version speaks plain text; add --insecure to accept that"),
            CONFIGURATION,
        );
    }
    let plan = match one_plan(&arguments.file, &arguments.spec.sets) {
        Ok(plan) => plan,
        Err(sentence) => return arguments.telemetry.complain(sentence, CONFIGURATION),
    };
    let Some(ordinal) = plan.ordinal(&arguments.client) else {
        let all: Vec<String> = plan.clients.iter().map(ToString::to_string).collect();
        let sentence = format!("--client {} is not of this run; its clients are {}", arguments.client, all.join(", "));
        return arguments.telemetry.complain(sentence, CONFIGURATION);
    };
    let role = Role::Client(arguments.client.clone());
    watched(&arguments.telemetry, &plan, role, events, |_, runtime, events| {
        run_client(arguments, &plan, ordinal, runtime, events)
    })
}

fn run_client(
    arguments: &ClientArgs,
    plan: &Plan,
    ordinal: usize,
    runtime: &Handle,
    events: &Events,
) -> Result<(), RunError> {
    let materials = Shelf::new(cache(&arguments.spec), events.clone()).take_for(plan, Scope::Client(ordinal))?;
    let options = ConnectOptions {
        terms: local::terms(&materials.run_hash),
        patience: Duration::from_secs(arguments.patience),
        runtime: runtime.clone(),
    };
    let slots = Slots::of_this_machine(plan.threads);
    let setup = local::client_setup(plan, &materials, ordinal, &slots, events);
    let finished = work(setup, &arguments.server, &options)
        .map_err(|error| RunError::Client { client: arguments.client.clone(), error })?;
    if plan.framework.needs().clients_keep_models {
        Folder::of(&arguments.out, plan).export_client(plan, &materials, ordinal, &finished)?;
    }
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

/// Does `work` with telemetry around it: served before it begins, and for a while after it ended.
fn watched(
    arguments: &TelemetryArgs,
    plan: &Plan,
    role: Role,
    events: &Events,
    work: impl FnOnce(&Telemetry, &Handle, &Events) -> Result<(), RunError>,
) -> u8 {
    let runtime = match wire::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return arguments.complain(RunError::Runtime(error), FAILED),
    };
    let told = match arguments.start(plan, role, SystemTime::now, events, runtime.handle()) {
        Ok(told) => told,
        Err(error) => return arguments.complain(error, CONFIGURATION),
    };
    let ended = work(&told.telemetry, runtime.handle(), &told.events);
    arguments.end(&told, plan, ended.as_ref().err().map(ToString::to_string));
    let code = match ended {
        Ok(()) => SUCCESS,
        Err(error) => {
            let code = if error.is_configuration() { CONFIGURATION } else { FAILED };
            arguments.complain(error, code)
        }
    };
    arguments.linger(&told, runtime.handle(), std::future::pending());
    code
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
