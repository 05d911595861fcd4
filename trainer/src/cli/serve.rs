//! `fedtune serve DIR`.
//! Must not know what the files are.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use tokio::{net::TcpListener, time::timeout};

use super::{CONFIGURATION, FAILED, SUCCESS, complain};
use crate::{serve, wire};

/// Arguments of `fedtune serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Folder of a run's results.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where it is served, for whoever comes: there is no certificate.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Seconds after which it ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    seconds: u64,
}

/// Serves until the time is over.
pub(super) fn serve(arguments: &ServeArgs) -> u8 {
    let ServeArgs { folder, listen, seconds } = arguments;
    if !folder.is_dir() {
        return complain(
            format!("{} is no folder; name one with the results of a run", folder.display()),
            CONFIGURATION,
        );
    }
    let runtime = match wire::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return complain(error, FAILED),
    };
    runtime.block_on(async {
        let listener = match TcpListener::bind(listen).await {
            Ok(listener) => listener,
            Err(error) => return complain(format!("--listen {listen} cannot be listened on: {error}"), CONFIGURATION),
        };
        match timeout(Duration::from_secs(*seconds), serve::serve(folder.clone(), listener)).await {
            Ok(Err(error)) => complain(format!("the results cannot be served on: {error}"), FAILED),
            Ok(Ok(())) | Err(_) => SUCCESS,
        }
    })
}
