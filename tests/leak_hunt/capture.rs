//! Everything that this process logs, at every level, kept as it was given: each field of each span and event, whoever
//! logs it and through which crate, and every panic's message.

use std::{
    error::Error,
    fmt::{self, Write},
    panic,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};

use crate::needles;

static TEXT: Mutex<String> = Mutex::new(String::new());
static STARTED: Once = Once::new();
static SPANS: AtomicU64 = AtomicU64::new(1);
/// So much of the text was searched, and nothing found.
static SEARCHED: AtomicUsize = AtomicUsize::new(0);

/// Keeps from now on what any thread logs.
pub(crate) fn start() {
    STARTED.call_once(|| {
        tracing::subscriber::set_global_default(Everything).unwrap();
        log::set_logger(&Everything).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied());
            let text = text.unwrap_or_default();
            // The message that tells of a leak shows it.
            if !text.starts_with(needles::FOUND) {
                note(panic);
            }
            // What is planned to panic here would only clutter the test's own output.
            if !text.contains(PLANNED) {
                usual(panic);
            }
        }));
    });
}

/// In the message of a panic that belongs to a test.
pub(crate) const PLANNED: &str = "planned panic";

/// Keeps how `shown` prints itself.
pub(crate) fn note(shown: impl fmt::Display) {
    writeln!(text(), "{shown}").unwrap();
}

/// Keeps how an error and all its causes print themselves.
pub(crate) fn note_error(error: &(dyn Error + 'static)) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        note(format_args!("{error} {error:?} {error:#?}"));
        cause = error.source();
    }
}

/// All that was kept so far. Fails where a key is in what nobody has searched yet.
pub(crate) fn searched() -> String {
    let text = text().clone();
    let from = SEARCHED.fetch_max(text.len(), Ordering::Relaxed);
    let overlap = from.saturating_sub(needles::LONGEST);
    needles::search(
        &text.as_bytes()[overlap.min(text.len())..],
        "what was logged or shown",
    );
    text
}

fn text() -> MutexGuard<'static, String> {
    TEXT.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Everything;

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line::of(span.metadata());
        span.record(&mut line);
        note(line.0);
        Id::from_u64(SPANS.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        note(line.0);
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::of(event.metadata());
        event.record(&mut line);
        note(line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        note(format_args!("log {} {}", record.target(), record.args()));
    }

    fn flush(&self) {}
}

/// One span or event, written with every form of each value.
struct Line(String);

impl Line {
    fn of(metadata: &Metadata<'_>) -> Self {
        Self(format!("tracing {} {}", metadata.target(), metadata.name()))
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {field}={value} {value:?}").unwrap();
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        write!(self.0, " {field}={value} {value:?}").unwrap();
        let mut cause = value.source();
        while let Some(error) = cause {
            write!(self.0, " {error} {error:?}").unwrap();
            cause = error.source();
        }
    }
}
