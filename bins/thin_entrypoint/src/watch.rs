//! News of directories.

use std::{
    ffi::{OsStr, OsString},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tracing::warn;

use crate::Error;

/// Files that come, go, or are closed by who wrote them. It is only for speed: whoever waits looks again in any case.
pub(crate) struct Watch {
    /// Absent where the kernel has none left: they are counted per user, and containers share users.
    inotify: Option<Inotify>,
}

/// How often everything is looked at when nothing seems to happen; and when nobody would tell.
const INTERVALS: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(5)];

/// What ended a wait.
pub(crate) enum Woken {
    /// Time, or news: our file called so was renamed to that.
    Look { renamed_to: Option<OsString> },
    /// Whoever waits is to end.
    Stop,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let complain = |error: &Errno| {
            warn!(
                "changes are noticed only now and then, since inotify is not to be had: {error}; is the limit \
                   fs.inotify.max_user_instances too low?"
            );
        };
        Self { inotify: inotify.inspect_err(complain).ok() }
    }

    /// Watches these, too. One that is not there is tried again the next time, one that was replaced is noticed then.
    pub(crate) fn cover<'a>(&self, directories: impl IntoIterator<Item = &'a Path>) {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        for directory in directories {
            let _next_time = self.inotify.as_ref().map(|inotify| inotify.add_watch(directory, flags));
        }
    }

    /// Waits for news, no longer than `limit` if there is one, or until `stop` is readable. `name` is our file's.
    pub(crate) fn wait(
        &self,
        stop: BorrowedFd<'_>,
        limit: Option<Duration>,
        name: Option<&OsStr>,
    ) -> Result<Woken, Error> {
        let [interval, interval_in_silence] = INTERVALS;
        let interval = if self.inotify.is_some() { interval } else { interval_in_silence };
        let mut files = vec![PollFd::new(stop, PollFlags::POLLIN)];
        files.extend(self.inotify.iter().map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)));
        // Rounded up, or it would wake too early and find nothing to do.
        let timeout = PollTimeout::try_from(limit.unwrap_or(interval).min(interval) + Duration::from_millis(1))
            .unwrap_or(PollTimeout::MAX);
        match poll(&mut files, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Error::Wait(error.into())),
        }
        if files.first().is_some_and(|stop| stop.any().unwrap_or(true)) {
            return Ok(Woken::Stop);
        }
        Ok(Woken::Look { renamed_to: self.renamed(name) })
    }

    /// Reads all news; what our file called `name` was renamed to. Those that did not fit into the kernel's queue change nothing: everything is looked at anyhow.
    pub(crate) fn renamed(&self, name: Option<&OsStr>) -> Option<OsString> {
        let mut events = Vec::new();
        while let Some(Ok(more)) = self.inotify.as_ref().map(Inotify::read_events) {
            events.extend(more);
        }
        let is_from = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_MOVED_FROM);
        let away = events.iter().rev().find(|event| is_from(event.mask) && event.name.as_deref() == name)?;
        let there = events.iter().find(|event| event.cookie == away.cookie && !is_from(event.mask))?;
        there.name.clone()
    }
}
