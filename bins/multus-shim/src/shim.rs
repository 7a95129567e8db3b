//! The plugin: every command is the daemon's.

use std::{fmt, time::SystemTime};

use multus_cni::{Attachment, Command, Error as CniError, Invocation, Pending, Plugin, RawObject, Success, Version};

use multus_log::{Level, Log};

use crate::{Error, Request, daemon::Daemon, settings::Settings};

/// The plugin `multus-shim`.
pub struct Shim {
    now: fn() -> SystemTime,
}

impl Shim {
    /// `now` gives the time of each line of the log, mostly [`SystemTime::now`].
    #[must_use]
    pub fn new(now: fn() -> SystemTime) -> Self {
        Self { now }
    }

    fn open(
        &self,
        command: Command,
        attachment: Option<&Attachment>,
        invocation: &Invocation,
    ) -> Result<(Daemon, Request), CniError> {
        invocation.environment.refuse_nested()?;
        let settings = Settings::parse(&invocation.config)?;
        settings.must_be_guarded()?;
        let attachment = attachment.map(|of| format!(" {} {}", of.container_id, of.ifname));
        let log = Log::new("multus-shim", self.now)
            .with_level(&settings.log_level, Level::Panic)
            .with_file(&settings.log_file)
            .with_stderr(settings.log_to_stderr)
            .about(command.as_str().to_owned() + &attachment.unwrap_or_default());
        Ok((Daemon::new(settings, log), Request::new(invocation)?))
    }

    fn call(&self, command: Command, attachment: Option<&Attachment>, invocation: &Invocation) -> Result<(), CniError> {
        let (daemon, request) = self.open(command, attachment, invocation)?;
        daemon.call(command, &request)?;
        Ok(())
    }
}

impl Plugin for Shim {
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, CniError> {
        let (daemon, request) = self.open(Command::Add, Some(attachment), invocation)?;
        let answer = daemon.call(Command::Add, &request)?;
        let undo = move || Ok(daemon.del(&request.with_command(Command::Del))?);
        match result(&answer) {
            Ok(success) => Ok(Pending::new(success, undo)),
            Err(error) => {
                // The daemon has made what nobody can be told of.
                let _told_by_the_log = undo();
                Err(error.into())
            }
        }
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), CniError> {
        if invocation.environment.is_nested() {
            // Its ADD was refused.
            return Ok(());
        }
        let (daemon, request) = self.open(Command::Del, Some(attachment), invocation)?;
        daemon.del(&request)?;
        Ok(())
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), CniError> {
        self.call(Command::Check, Some(attachment), invocation)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), CniError> {
        self.call(Command::Status, None, invocation)
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), CniError> {
        self.call(Command::Gc, None, invocation)
    }
}

impl fmt::Debug for Shim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shim").finish_non_exhaustive()
    }
}

/// The daemon answers `{"Result": …}` in the newest version, whatever that of the configuration is.
fn result(answer: &[u8]) -> Result<Success, Error> {
    let unreadable = |problem: CniError| Error::NoResult(problem.to_string());
    let answer = RawObject::parse(answer).map_err(unreadable)?;
    let result = answer.value("Result").ok_or_else(|| Error::NoResult("it has no \"Result\"".to_owned()))?;
    Success::parse(result.get().as_bytes(), Version::LATEST).map_err(unreadable)
}
