//! The DELs that came while no daemon was there.

use std::{sync::Arc, thread, time::Duration};

use multus_cni::{Command, Error, ErrorCode};
use multus_shim::{Entry, Spool};
use tracing::{error, info};

use crate::{
    call::{Call, Surroundings, Unusable},
    execution::{Executor, caught},
};

/// A shim adds to the spool also while the daemon is there but does not answer.
const PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);

/// Works the spool off, again and again.
pub(crate) struct Spooled {
    pub(crate) spool: Spool,
    pub(crate) executor: Executor,
    pub(crate) surroundings: Arc<Surroundings>,
}

impl Spooled {
    /// Never returns. Calls `first` when everything was tried once. What fails stays, and is tried less and less often.
    pub(crate) fn work_off(&self, first: impl FnOnce()) {
        let mut first = Some(first);
        let mut pause = PAUSE;
        loop {
            let is_clean = surviving(|| self.pass());
            if let Some(first) = first.take() {
                first();
            }
            pause = if is_clean { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            thread::sleep(pause);
        }
    }

    /// Runs what is there, in order; returns whether nothing remains.
    fn pass(&self) -> bool {
        let entries = self.spool.entries().unwrap_or_else(|error| {
            error!(%error, "the spool cannot be read");
            Vec::new()
        });
        // All of them first: the ADD of the last one must not come while the first one is worked on.
        let calls = entries.iter().filter_map(|entry| self.read(*entry).ok().flatten());
        for sandbox in calls.filter_map(|call| call.sandbox().cloned()) {
            self.executor.operations.bury(&sandbox);
        }
        let mut is_clean = true;
        for entry in entries {
            match self.run(entry) {
                Ok(()) => info!(?entry, "a DEL of the spool is done"),
                Err(error) => {
                    is_clean = false;
                    error!(?entry, %error, "a DEL of the spool failed and stays in it");
                }
            }
        }
        is_clean
    }

    fn run(&self, entry: Entry) -> Result<(), Error> {
        let Some(call) = self.read(entry)? else {
            return Ok(());
        };
        let outcome = self.executor.submit(call).blocking_recv();
        match outcome.map(|outcome| outcome.result) {
            Ok(Ok(_)) => self.spool.remove(entry).map_err(spool_error),
            Ok(Err(object)) => Err(Error::Plugin { object, source: None }),
            // It was not begun.
            Err(_) => Ok(()),
        }
    }

    /// `None` when somebody else has removed it.
    fn read(&self, entry: Entry) -> Result<Option<Call>, Error> {
        let Some(request) = self.spool.read(entry).map_err(spool_error)? else {
            return Ok(None);
        };
        match Call::new(&request, &self.surroundings).map_err(Unusable::into_error)? {
            call if call.command == Command::Del => Ok(Some(call)),
            call => Err(Unusable::NoDel(call.command.as_str()).into_error()),
        }
    }
}

/// What a pass came to. One that panics fails, and the next one is tried as after any failure: without this thread, every DEL
/// of the spool would be lost.
fn surviving(pass: impl FnOnce() -> bool) -> bool {
    caught(|| Ok(pass())).unwrap_or_else(|error| {
        error!(%error, "a pass over the spool failed");
        false
    })
}

fn spool_error(error: multus_shim::SpoolError) -> Error {
    Error::from_plugin(ErrorCode::Io, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_that_panics_is_a_failed_pass() {
        assert!(surviving(|| true));
        assert!(!surviving(|| panic!("out of luck")));
    }
}
