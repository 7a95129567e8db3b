//! What probes ask.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use multus_shim::post;

use crate::error::Error;

/// The least that probes are given by default.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the daemon at `socket` is well, or even ready.
pub(crate) fn check(socket: &Path, is_ready: bool) -> Result<(), Error> {
    let target = if is_ready { "/readyz" } else { "/healthz" };
    match post(socket, target, b"null", Instant::now() + PATIENCE) {
        Ok(response) if response.status == 200 => Ok(()),
        Ok(response) => Err(Error::Unhealthy(format!("{target} answers with status {}", response.status))),
        Err(error) => Err(Error::Unhealthy(format!("{}: {error}", socket.display()))),
    }
}
