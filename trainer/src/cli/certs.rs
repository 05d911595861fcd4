//! `fedtune certs SPEC`: a CA, certificates and join bundles for a run, to try mutual TLS by hand.
//! Must not print a key, and must not replace a CA that others trust already.

use std::{path::PathBuf, time::SystemTime};

use clap::Args;

use super::{CONFIGURATION, FAILED, SUCCESS, complain, specs};
use crate::{
    identity::issue::{IssueError, Issued, Order, issue},
    plan::Plan,
};

/// Arguments of `fedtune certs`.
#[derive(Debug, Args)]
pub struct CertsArgs {
    /// File of one `FederatedFineTune` resource.
    #[arg(value_name = "SPEC")]
    file: PathBuf,
    /// Where everything goes: ca/, server/, and a folder and a .join file a group. What is there is renewed.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A name or address of the server beside localhost, 127.0.0.1 and ::1; may be given several times, and clients are
    /// sent to the first.
    #[arg(long, value_name = "HOST")]
    server_name: Vec<String>,
    /// The port that join bundles send clients to.
    #[arg(long, value_name = "PORT", default_value_t = 7443)]
    port: u16,
    /// Days that certificates last; the CA lasts ten years.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// What certificates call the run; by default its metadata.uid, or else its metadata.name.
    #[arg(long, value_name = "UID", env = "FEDTUNE_RUN_UID")]
    run_uid: Option<String>,
}

/// Makes or renews the certificates, and says where they are.
pub(super) fn certs(arguments: &CertsArgs) -> u8 {
    let plan = match specs::one_plan(&arguments.file, &[]) {
        Ok(plan) => plan,
        Err(sentence) => return complain(sentence, CONFIGURATION),
    };
    match issue(&arguments.out, &order(arguments, &plan), SystemTime::now()) {
        Ok(issued) => {
            print!("{}", describe(arguments, &issued));
            SUCCESS
        }
        Err(error) => {
            let code = match error {
                IssueError::Host { .. } | IssueError::Group { .. } => CONFIGURATION,
                IssueError::Certificate(_)
                | IssueError::File { .. }
                | IssueError::Key { .. }
                | IssueError::Authority { .. }
                | IssueError::Expired { .. } => FAILED,
            };
            complain(error, code)
        }
    }
}

fn order(arguments: &CertsArgs, plan: &Plan) -> Order {
    let mut groups: Vec<String> = plan.clients.iter().map(|client| client.group.clone()).collect();
    groups.dedup();
    Order {
        run: arguments.run_uid.clone().unwrap_or_else(|| plan.run().to_owned()),
        groups,
        hosts: arguments.server_name.clone(),
        port: arguments.port,
        days: arguments.days,
    }
}

/// What was made, and the commands that use it.
fn describe(arguments: &CertsArgs, issued: &Issued) -> String {
    let (out, spec, server) = (arguments.out.display(), arguments.file.display(), issued.server.display());
    let made = if issued.renewed {
        format!("Renewed the certificates in {out} under the CA that was there, for {} days.\n", arguments.days)
    } else {
        format!(
            "Made a CA and certificates in {out}, for {} days; {out}/ca/key.pem can make more: keep it apart.\n",
            arguments.days
        )
    };
    let mut text = made;
    text += &format!(
        "server:  fedtune server {spec} --tls-cert {server}/cert.pem --tls-key {server}/key.pem --tls-ca \
         {server}/ca.pem\n"
    );
    for (group, _, bundle) in &issued.groups {
        text += &format!(
            "clients: fedtune client {spec} --client {group}/INDEX --join {}    ({})\n",
            bundle.display(),
            issued.url
        );
    }
    text
}
