//! The arguments that say who this process is, and how it comes to trust the other side.
//! Must not let plain text beyond this machine unless that was asked for.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use tracing::warn;

use crate::{
    identity::{Identity, Name, Papers, PeerIdentity, Source},
    plan::Plan,
};

/// Certificates of a server or a client. All three files or none; they are read again for each connection.
#[derive(Debug, Args)]
pub(super) struct IdentityArgs {
    /// This side's certificate, PEM; its URI names the run and, for a client, its group.
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// The certificate's key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The CA that signs both sides' certificates, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// What certificates call the run; by default its metadata.uid, or else its metadata.name.
    #[arg(long, value_name = "UID", env = "FEDTUNE_RUN_UID")]
    run_uid: Option<String>,
    /// Speaks plain text with other machines: anyone on the way can read and change what is sent.
    #[arg(long, conflicts_with = "tls_cert")]
    insecure: bool,
}

impl IdentityArgs {
    /// Gives the plan the uid of the command line, where there is one.
    pub(super) fn name_run(&self, plan: &mut Plan) {
        if self.run_uid.is_some() {
            plan.uid.clone_from(&self.run_uid);
        }
    }

    /// The uid of the command line.
    pub(super) fn run_uid(&self) -> Option<&str> {
        self.run_uid.as_deref()
    }

    /// The server's identity, checked; none: plain text, which may be spoken where `private`.
    pub(super) fn of_server(&self, plan: &Plan, private: bool, address: &str) -> Result<Option<Identity>, String> {
        let Some(source) = self.files() else { return self.plain(private, address) };
        let papers = read(&source)?;
        let expected = Name::Server { run: plan.run().to_owned() };
        if *papers.name() != expected {
            return Err(format!("the certificate names {}, and this server is {expected}", papers.name()));
        }
        Ok(Some(Identity { source, run: plan.run().to_owned() }))
    }

    /// A client's identity, checked; none: plain text, which may be spoken where `private`.
    pub(super) fn of_client(
        &self,
        plan: &Plan,
        group: &str,
        bundle: Option<&Path>,
        private: bool,
        address: &str,
    ) -> Result<Option<Identity>, String> {
        let source = bundle.map(|path| Source::Bundle(path.to_owned())).or_else(|| self.files());
        let Some(source) = source else { return self.plain(private, address) };
        let peer = PeerIdentity::Certified(read(&source)?.name().clone());
        peer.may_speak_for(plan.run(), group).map_err(|error| error.to_string())?;
        Ok(Some(Identity { source, run: plan.run().to_owned() }))
    }

    fn files(&self) -> Option<Source> {
        let (cert, key, ca) = (self.tls_cert.clone()?, self.tls_key.clone()?, self.tls_ca.clone()?);
        Some(Source::Files { cert, key, ca })
    }

    fn plain(&self, private: bool, address: &str) -> Result<Option<Identity>, String> {
        if private {
            return Ok(None);
        }
        if self.insecure {
            warn!("plain text beyond this machine ({address}): anyone on the way can read and change what is sent");
            return Ok(None);
        }
        Err(format!(
            "{address} is beyond this machine, and there are no certificates (`fedtune certs` makes them); plain text \
             lets anyone on the way read and change what is sent: add --insecure to accept that"
        ))
    }
}

fn read(source: &Source) -> Result<Papers, String> {
    source.read(SystemTime::now()).map_err(|error| error.to_string())
}
