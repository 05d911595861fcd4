//! What an experiment would cost: `fedtune estimate`, which has the formulas, on this machine.
//! Must not know a formula.

use std::{
    io,
    path::Path,
    process::{Command, ExitCode},
};

/// Why nothing can be estimated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EstimateError {
    #[error(
        "the program fedtune is not on the PATH: estimates are the trainer's, which links libtorch; `make smoke` builds it"
    )]
    NoProgram,
    #[error("fedtune cannot be started: {0}")]
    Start(io::Error),
}

/// Runs it, and ends as it does.
pub(crate) fn run(file: &Path, others: &[String]) -> Result<ExitCode, EstimateError> {
    let ended = Command::new("fedtune").arg("estimate").arg(file).args(others).status().map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound { EstimateError::NoProgram } else { EstimateError::Start(error) }
    })?;
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
