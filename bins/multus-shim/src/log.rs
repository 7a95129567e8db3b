//! The log, in upstream's form: `2026-02-03T04:05:06Z [verbose] message`.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write, stderr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::settings::Settings;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Panic,
    Error,
    Verbose,
    Debug,
}

impl Level {
    const ALL: [Self; 4] = [Self::Panic, Self::Error, Self::Verbose, Self::Debug];

    fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Error => "error",
            Self::Verbose => "verbose",
            Self::Debug => "debug",
        }
    }
}

pub(crate) struct Log {
    level: Level,
    file: Option<File>,
    to_stderr: bool,
    now: fn() -> SystemTime,
    subject: String,
}

impl Log {
    /// Every line begins with `subject`. What is wrong with the log is said on standard error, and stops nobody.
    pub(crate) fn open(settings: &Settings, now: fn() -> SystemTime, subject: String) -> Self {
        let word = settings.log_level.as_str();
        let level = Level::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(word));
        if level.is_none() && !word.is_empty() {
            complain(&format!("\"logLevel\" {word:?} is none of panic, error, verbose, debug; it is taken as panic"));
        }
        let open = |path: &Path| {
            open(path).inspect_err(|error| complain(&format!("cannot log to {}: {error}", path.display()))).ok()
        };
        let file = settings.log_file.as_deref().and_then(open);
        Self { level: level.unwrap_or(Level::Panic), file, to_stderr: settings.log_to_stderr, now, subject }
    }

    pub(crate) fn write(&self, level: Level, message: &str) {
        if level > self.level {
            return;
        }
        let line = line((self.now)(), level, &format!("{}: {message}", self.subject));
        if let Some(mut file) = self.file.as_ref() {
            // In one piece, so that the lines of several shims do not mix.
            let _nowhere_to_say_so = file.write_all(line.as_bytes());
        }
        if self.to_stderr {
            let _nobody_reads = stderr().write_all(line.as_bytes());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn complain(message: &str) {
    let _nobody_reads = writeln!(stderr(), "multus-shim: {message}");
}

fn line(time: SystemTime, level: Level, message: &str) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let message = message.replace('\n', "\\n");
    let level = level.as_str();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z [{level}] {message}\n")
}

/// The Gregorian date so many days after 1970-01-01, counted in years that begin with March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_is_one_line_with_the_time_in_rfc_3339() {
        let at = |seconds| line(UNIX_EPOCH + Duration::from_secs(seconds), Level::Verbose, "a\nb");
        assert_eq!(at(0), "1970-01-01T00:00:00Z [verbose] a\\nb\n");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z [verbose] a\\nb\n");
        assert_eq!(at(951_868_799), "2000-02-29T23:59:59Z [verbose] a\\nb\n");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z [verbose] a\\nb\n");
        assert_eq!(at(1_798_761_599), "2026-12-31T23:59:59Z [verbose] a\\nb\n");
    }
}
