//! Lines, and where they go.

use std::{
    io::{Write, stderr},
    path::Path,
    time::SystemTime,
};

use crate::{Level, LogFile, timestamp::Timestamp};

/// A program's log. What is wrong with it is said on standard error, and stops nobody.
#[derive(Debug)]
pub struct Log {
    pub(crate) program: &'static str,
    pub(crate) level: Level,
    file: Option<LogFile>,
    to_stderr: bool,
    now: fn() -> SystemTime,
    subject: String,
}

impl Log {
    /// A log to nowhere, of the program that is called so.
    #[must_use]
    pub fn new(program: &'static str, now: fn() -> SystemTime) -> Self {
        Self { program, level: Level::default(), file: None, to_stderr: false, now, subject: String::new() }
    }

    /// Tells as much as `logLevel` says in `word`; an empty one leaves the level as it is, and so does an unknown one, with
    /// a complaint.
    #[must_use]
    pub fn with_level(self, word: &str, default: Level) -> Self {
        let level = Level::parse(word);
        if level.is_none() && !word.is_empty() {
            let default = default.as_str();
            self.complain(&format!(
                "\"logLevel\" {word:?} is none of panic, error, verbose, debug; it is taken as {default}"
            ));
        }
        Self { level: level.unwrap_or(default), ..self }
    }

    /// Also to the file at `path`, unless that is empty.
    #[must_use]
    pub fn with_file(self, path: &Path) -> Self {
        if path.as_os_str().is_empty() {
            return self;
        }
        match LogFile::open(path) {
            Ok(file) => Self { file: Some(file), ..self },
            Err(error) => {
                self.complain(&format!("cannot log to {}: {error}", path.display()));
                self
            }
        }
    }

    /// With old files dealt with as `rotation` says.
    #[cfg(feature = "rotation")]
    #[must_use]
    pub fn with_rotation(self, rotation: crate::Rotation) -> Self {
        Self { file: self.file.map(|file| file.with_rotation(rotation)), ..self }
    }

    /// Also to standard error.
    #[must_use]
    pub fn with_stderr(self, to_stderr: bool) -> Self {
        Self { to_stderr, ..self }
    }

    /// With every line about `subject`.
    #[must_use]
    pub fn about(self, subject: impl AsRef<str>) -> Self {
        Self { subject: format!("{}: ", subject.as_ref()), ..self }
    }

    /// Whether there is a file.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Tells `message`, on one line.
    pub fn write(&self, level: Level, message: &str) {
        if level > self.level || (self.file.is_none() && !self.to_stderr) {
            return;
        }
        let time = (self.now)();
        let line = line(time, level, &self.subject, message);
        if let Some(file) = &self.file {
            // In one piece, so that the lines of several processes do not mix; there is nowhere to say that it failed.
            file.write(line.as_bytes(), time);
        }
        if self.to_stderr {
            let _nobody_reads = stderr().write_all(line.as_bytes());
        }
    }

    fn complain(&self, message: &str) {
        let _nobody_reads = writeln!(stderr(), "{}: {message}", self.program);
    }
}

fn line(time: SystemTime, level: Level, subject: &str, message: &str) -> String {
    let message = message.replace('\n', "\\n");
    format!("{} [{}] {subject}{message}\n", Timestamp::from(time), level.as_str())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_line_is_one_line() {
        let time = UNIX_EPOCH + Duration::from_millis(951_782_399_500);
        assert_eq!(line(time, Level::Verbose, "c: ", "a\nb\n"), "2000-02-28T23:59:59.500Z [verbose] c: a\\nb\\n\n");
    }
}
