//! The log, in upstream's form: `2026-02-03T04:05:06.000000Z [verbose] message`, with the fields behind it.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write, stderr},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::Mutex,
};

use tracing::{Event, Level, Subscriber, level_filters::LevelFilter, subscriber};
use tracing_subscriber::{
    Registry,
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields, Layer,
        format::Writer,
        time::{FormatTime, SystemTime},
        writer::{BoxMakeWriter, MakeWriterExt},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
};

use crate::{error::Error, options::Options};

/// Sends what is logged from now on to where `options` say; without any to standard error.
pub(crate) fn start(options: &Options) -> Result<(), Error> {
    let to_stderr = options.log_to_stderr.unwrap_or(options.log_file.is_none());
    let file = options.log_file.as_deref().map(|path| open(path).map_err(Error::io("cannot log to", path.display())));
    let writer = match (file.transpose()?.map(Mutex::new), to_stderr) {
        (Some(file), true) => BoxMakeWriter::new(file.and(stderr)),
        (Some(file), false) => BoxMakeWriter::new(file),
        (None, true) => BoxMakeWriter::new(stderr),
        (None, false) => BoxMakeWriter::new(io::sink),
    };
    let level = level(&options.log_level);
    // Only ours are told in detail: what libraries have to say may contain secrets.
    let ours = ["multus", "macvlan", "host_local"].map(|target| (target, level));
    let filter = Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(ours);
    let lines = Layer::default().event_format(Line).with_writer(writer);
    // There is no other.
    let _first = subscriber::set_global_default(Registry::default().with(filter).with(lines));
    Ok(())
}

fn level(word: &str) -> LevelFilter {
    match word.to_ascii_lowercase().as_str() {
        "panic" => LevelFilter::OFF,
        "error" | "" => LevelFilter::WARN,
        "verbose" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        _ => {
            let _nobody_reads = writeln!(
                stderr(),
                "multus-daemon: \"logLevel\" {word:?} is none of panic, error, verbose, debug; it is taken as error"
            );
            LevelFilter::WARN
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let level = match *event.metadata().level() {
            Level::ERROR | Level::WARN => "error",
            Level::INFO => "verbose",
            Level::DEBUG | Level::TRACE => "debug",
        };
        write!(writer, " [{level}] ")?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
