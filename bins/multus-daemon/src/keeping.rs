//! `00-multus.conf`, kept while the daemon serves.

use std::{
    io::{PipeWriter, pipe},
    os::fd::AsFd,
    thread::Builder,
};

use thin_entrypoint::Keeper;
use tracing::error;

use crate::error::Error;

/// It reads and writes small files, and waits.
const STACK: usize = 256 << 10;

/// The thread that keeps the configuration. It ends soon after this is dropped; what it has written stays. Nobody waits for
/// it, since a disk or another writer may hold it up, and no file is ever there in part.
pub(crate) struct Keeping {
    _stop: PipeWriter,
}

impl Keeping {
    pub(crate) fn start(mut keeper: Keeper) -> Result<Self, Error> {
        let failed = |error| Error::io("cannot start", "a thread")(error);
        // Closing one end makes the other readable.
        let (stopped, stop) = pipe().map_err(failed)?;
        let keep = move || {
            if let Err(error) = keeper.keep(stopped.as_fd()) {
                error!(%error, "the runtime's configuration is not kept any more");
            }
        };
        Builder::new().name("configuration".to_owned()).stack_size(STACK).spawn(keep).map_err(failed)?;
        Ok(Self { _stop: stop })
    }
}
