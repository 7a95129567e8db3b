//! The log, in upstream's form: `2026-02-03T04:05:06Z [verbose] message`.

use std::{
    fmt::{self, Write as _},
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write, stderr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::SystemTime,
};

use k8s_openapi::jiff::Timestamp;
use multus_core::LogConfig;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Logs from now on what and where `config` says. What is wrong with it is said on standard error, and stops nobody.
pub(crate) fn install(config: &LogConfig, now: fn() -> SystemTime) {
    let level = Level::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(&config.level));
    if level.is_none() && !config.level.is_empty() {
        let word = &config.level;
        complain(&format!("\"logLevel\" {word:?} is none of panic, error, verbose, debug; it is taken as panic"));
    }
    let path = Some(config.file.as_str()).filter(|path| !path.is_empty());
    let open = |path| open(Path::new(path)).inspect_err(|error| complain(&format!("cannot log to {path}: {error}")));
    let file = path.and_then(|path| open(path).ok());
    let log = Log { level: level.unwrap_or(Level::Panic), file, to_stderr: config.to_stderr.unwrap_or(true), now };
    // A process serves one call; the first configuration is the only one.
    let _already = tracing::subscriber::set_global_default(log);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
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

    fn of(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR | tracing::Level::WARN => Self::Error,
            tracing::Level::INFO => Self::Verbose,
            _ => Self::Debug,
        }
    }
}

struct Log {
    level: Level,
    file: Option<File>,
    to_stderr: bool,
    now: fn() -> SystemTime,
}

impl Subscriber for Log {
    /// What other crates say of connections is nothing for an operator.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("multus") && Level::of(*metadata.level()) <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let line = line((self.now)(), Level::of(*event.metadata().level()), &text);
        if let Some(mut file) = self.file.as_ref() {
            // In one piece, so that the lines of several processes do not mix.
            let _nowhere_to_say_so = file.write_all(line.as_bytes());
        }
        if self.to_stderr {
            let _nobody_reads = stderr().write_all(line.as_bytes());
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An event's message, and its other fields as `key=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A String takes all that it is given.
        let _infallible = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

fn line(time: SystemTime, level: Level, text: &Text) -> String {
    let time = Timestamp::try_from(time).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ");
    let Text { message, fields } = text;
    format!("{time} [{}] {}\n", level.as_str(), format!("{message}{fields}").replace('\n', "\\n"))
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn complain(message: &str) {
    let _nobody_reads = writeln!(stderr(), "multus: {message}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_is_one_line_with_the_time_in_rfc_3339() {
        let text = Text { message: "a\nb".to_owned(), fields: " error=c\nd".to_owned() };
        let line = line(SystemTime::UNIX_EPOCH + Duration::from_secs(951_782_399), Level::Verbose, &text);
        assert_eq!(line, "2000-02-28T23:59:59Z [verbose] a\\nb error=c\\nd\n");
    }
}
