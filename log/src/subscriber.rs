//! What libraries tell.

use std::fmt::{self, Write as _};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{Level, Log};

/// Ours. What other libraries say of connections is nothing for an operator, and may hold secrets.
const TARGETS: [&str; 4] = ["multus", "macvlan", "host_local", "thin_entrypoint"];

impl Log {
    /// From now on, what the libraries of this project tell goes here, too. Only the first one of a process counts.
    pub fn install(self) {
        let target = self.program.replace('-', "_");
        let _already = tracing::subscriber::set_global_default(Installed { log: self, target });
    }
}

struct Installed {
    log: Log,
    /// The program's own.
    target: String,
}

impl Subscriber for Installed {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_ours = TARGETS.iter().any(|target| metadata.target().starts_with(target))
            || metadata.target().starts_with(&self.target);
        is_ours && metadata.is_event() && level(*metadata.level()) <= self.log.level
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        self.log.write(level(*event.metadata().level()), &(text.message + &text.fields));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR | tracing::Level::WARN => Level::Error,
        tracing::Level::INFO => Level::Verbose,
        _ => Level::Debug,
    }
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
