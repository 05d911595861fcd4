//! `fedtune server SPEC` and `fedtune client SPEC`: the same run as processes of their own.
//! Must not speak plain text beyond this machine unless that was asked for.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::mpsc,
    time::{Duration, SystemTime},
};

use clap::Args;
use fedtune_crds::report::RunReport;
use tokio::runtime::Handle;
use tonic::transport::Uri;

use super::{
    CONFIGURATION, FAILED, SUCCESS, SpecArgs, environment, identity::IdentityArgs, signals::Watch, specs,
    telemetry::TelemetryArgs,
};
use crate::{
    client::{dialer::Dialer, work},
    data::Scope,
    events::{Event, Events},
    identity::{Bundle, Identity},
    meter::Slots,
    plan::Plan,
    report,
    run::{
        RunError, deliver,
        folder::Folder,
        local::{self, Kept},
        materials::{Materials, Shelf},
        say_begun, say_finished, summary,
    },
    server::{Served, saved_uid, serve},
    sources::Access,
    telemetry::{Role, Telemetry},
    wire::{
        self,
        client::{ConnectOptions, check_url},
        server::{ListenOptions, Listener},
    },
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
    /// When the run is over, copies adapter, results and report to this folder too, as to `output.s3` of the spec.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    identity: IdentityArgs,
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
    /// The server's address, as in `https://127.0.0.1:7443`, or `http://` for plain text; a join bundle has one.
    #[arg(long, value_name = "URL", required_unless_present = "join")]
    server: Option<String>,
    /// All that a client of one group needs, in one file, as `fedtune certs` makes it.
    #[arg(long, value_name = "BUNDLE", conflicts_with_all = ["tls_cert", "insecure"])]
    join: Option<PathBuf>,
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
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// Runs the server until the run is over.
pub(super) fn server(arguments: &ServerArgs, events: &Events, watch: &Watch) -> u8 {
    let (plan, identity) = match settle_server(arguments) {
        Ok(settled) => settled,
        Err(sentence) => return arguments.telemetry.complain(sentence, CONFIGURATION),
    };
    watched(&arguments.telemetry, &plan, Role::Server, events, |telemetry, runtime, events| {
        run_server(arguments, &plan, identity, watch, &Surroundings { telemetry, runtime, events })
    })
}

/// The plan and the server's identity, or what in the arguments is wrong.
fn settle_server(arguments: &ServerArgs) -> Result<(Plan, Option<Identity>), String> {
    let mut plan = specs::one_plan(&arguments.file, &arguments.spec.sets)?;
    arguments.identity.name_run(&mut plan);
    let address = arguments.listen;
    let identity = arguments.identity.of_server(&plan, address.ip().is_loopback(), &address.to_string())?;
    Ok((plan, identity))
}

fn run_server(
    arguments: &ServerArgs,
    plan: &Plan,
    identity: Option<Identity>,
    watch: &Watch,
    around: &Surroundings<'_>,
) -> Result<(), RunError> {
    let Surroundings { telemetry, runtime, events } = *around;
    let folder = Folder::of(&arguments.out, plan);
    telemetry.watch_volume(folder.path());
    watch_certificate(telemetry, identity.as_ref());
    let finished = folder.finished(plan, arguments.fresh)?;
    if let Some(report) = &finished {
        telemetry.recall(report);
        say_finished(plan, events);
    }
    let scope = if plan.framework.needs().all_data { Scope::Everything } else { Scope::Server };
    let access = Access::from_environment();
    let materials = shelf(&arguments.spec, access.clone(), events).take_for(plan, scope)?;
    let options = ListenOptions { identity, ..local::terms(&materials.run_hash).into() };
    let listener = Listener::bind(arguments.listen, options, runtime)?;
    if finished.is_none() {
        folder.begin(plan, arguments.fresh)?;
    }
    let keep = Kept::In(folder.path()).of_server(plan, &materials)?;
    let uid = saved_uid(keep.as_ref())?;
    let setup = local::server_setup(plan, &materials, uid, &Slots::of_this_machine(plan.threads), events);
    telemetry.watch_ledger(&setup.ledger);
    telemetry.name_run(plan.uid.as_deref().unwrap_or(&setup.uid), keep.epoch());
    events.tell(Event::Listening { address: listener.local_addr() });
    say_begun(plan, events);
    let (sender, receiver) = mpsc::channel();
    watch.stop_through(sender.clone());
    let Served { outcome, parting } = serve(setup, keep, listener, (sender, receiver))?;
    let ended = local::Ended { outcome, clients: Vec::new(), apart: true };
    // A run that was finished before is only said again, to clients that were away.
    let written = match finished {
        Some(_) => Ok(()),
        None => write_results(plan, &materials, &folder, &ended).map(|report| telemetry.settle(&report)),
    };
    let written = written.and_then(|()| deliver(plan, &folder, arguments.output.as_deref(), &access));
    match &written {
        Ok(()) => parting.tell(),
        Err(error) => parting.tell_failure(&error.to_string()),
    }
    written
}

/// Before any client is told of the end: one that has been told does not come back.
fn write_results(
    plan: &Plan,
    materials: &Materials,
    folder: &Folder,
    ended: &local::Ended,
) -> Result<RunReport, RunError> {
    tracing::debug!(phase = "export");
    folder.export(plan, materials, ended)?;
    let report = summary::succeeded(plan, materials, ended);
    report::write(&report, folder.path())?;
    Ok(report)
}

/// Runs one client until the run is over.
pub(super) fn client(arguments: &ClientArgs, events: &Events) -> u8 {
    let (plan, seat) = match settle_client(arguments) {
        Ok(settled) => settled,
        Err(sentence) => return arguments.telemetry.complain(sentence, CONFIGURATION),
    };
    let role = Role::Client(arguments.client.clone());
    watched(&arguments.telemetry, &plan, role, events, |telemetry, runtime, events| {
        watch_certificate(telemetry, seat.identity.as_ref());
        run_client(arguments, &plan, seat, runtime, events)
    })
}

/// Which client this is, and how it comes to its server.
struct Seat {
    ordinal: usize,
    server: String,
    identity: Option<Identity>,
}

/// The plan and the client's place in it, or what in the arguments is wrong.
fn settle_client(arguments: &ClientArgs) -> Result<(Plan, Seat), String> {
    let mut plan = specs::one_plan(&arguments.file, &arguments.spec.sets)?;
    arguments.identity.name_run(&mut plan);
    let Some(ordinal) = plan.ordinal(&arguments.client) else {
        let all: Vec<String> = plan.clients.iter().map(ToString::to_string).collect();
        return Err(format!("--client {} is not of this run; its clients are {}", arguments.client, all.join(", ")));
    };
    let bundle = arguments.join.as_deref().map(Bundle::read).transpose().map_err(|error| error.to_string())?;
    if let (Some(bundle), None) = (&bundle, arguments.identity.run_uid()) {
        plan.uid = Some(bundle.run.clone());
    }
    let server = arguments.server.clone().or_else(|| bundle.map(|bundle| bundle.server));
    let server = server.ok_or("there is neither --server nor --join")?;
    let group = &plan.clients[ordinal].group;
    let identity =
        arguments.identity.of_client(&plan, group, arguments.join.as_deref(), is_loopback(&server), &server)?;
    check_url(&server, identity.is_some()).map_err(|error| error.to_string())?;
    Ok((plan, Seat { ordinal, server, identity }))
}

fn run_client(
    arguments: &ClientArgs,
    plan: &Plan,
    seat: Seat,
    runtime: &Handle,
    events: &Events,
) -> Result<(), RunError> {
    let Seat { ordinal, server, identity } = seat;
    let materials =
        shelf(&arguments.spec, Access::from_environment(), events).take_for(plan, Scope::Client(ordinal))?;
    let options = ConnectOptions { identity, ..ConnectOptions::plain(local::terms(&materials.run_hash), runtime) };
    let slots = Slots::of_this_machine(plan.threads);
    let folder = Folder::of(&arguments.out, plan);
    let needs = plan.framework.needs();
    if needs.clients_keep_models || (needs.clients_keep_state && arguments.state.is_none()) {
        // Also where this client comes before its server: a folder without a mark would be refused then.
        folder.join(plan)?;
    }
    let state = arguments.state.as_deref().unwrap_or(folder.path());
    let setup = local::client_setup(plan, &materials, Kept::In(state), ordinal, &slots, events)?;
    let patience = Duration::from_secs(arguments.patience);
    let mut dialer = Dialer::new(&server, options, patience, setup.incarnation);
    events.tell(Event::Disconnected { reason: format!("waits for the server at {server}") });
    let mut finished =
        work(setup, &mut dialer).map_err(|error| RunError::Client { client: arguments.client.clone(), error })?;
    if needs.clients_keep_models {
        folder.export_client(plan, &materials, ordinal, &finished)?;
    }
    finished.confirm();
    Ok(())
}

/// Says when this side's certificate ends; what is wrong with it is said where it is used.
fn watch_certificate(telemetry: &Telemetry, identity: Option<&Identity>) {
    let papers = identity.and_then(|identity| identity.source.read(SystemTime::now()).ok());
    if let Some(papers) = papers {
        telemetry.set_certificate_expiry(papers.not_after());
    }
}

fn shelf(spec: &SpecArgs, access: Access, events: &Events) -> Shelf {
    let cache = spec.cache.clone().or_else(environment::default_cache);
    Shelf::new(cache, access, events.clone())
}

/// What a command runs in.
#[derive(Clone, Copy)]
struct Surroundings<'a> {
    telemetry: &'a Telemetry,
    runtime: &'a Handle,
    events: &'a Events,
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
