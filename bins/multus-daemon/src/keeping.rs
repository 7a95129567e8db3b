//! `00-multus.conf`, kept while the daemon serves.

use std::{
    io::{PipeWriter, pipe},
    os::fd::AsFd,
    thread::{Builder, JoinHandle},
};

use thin_entrypoint::Keeper;
use tracing::error;

use crate::error::Error;

/// It reads and writes small files, and waits.
const STACK: usize = 256 << 10;

/// The thread that keeps the configuration. It ends when this is dropped; what it has written stays.
pub(crate) struct Keeping {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
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
        let thread = Builder::new().name("configuration".to_owned()).stack_size(STACK).spawn(keep).map_err(failed)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.stop = None;
        // A panic in it has been told.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
